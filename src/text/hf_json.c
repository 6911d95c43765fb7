/* Owns the loading of tokenizer.json and the files beside it. The vocabulary and the merges are read straight from the text into the
 * tables (jscan.h); everything else is small and goes through base/json.h.
 *
 * Order matters: stages first, since a ByteLevel pre-tokenizer decides that the vocabulary is kept as bytes; then the model; then
 * added tokens, which take the model's ids where it knows them; then the post-processor, which names ids. */
#include "text/compiled.h"
#include "text/hf_int.h"
#include "text/jscan.h"
#include "text/utf8.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

/* Members of the file; those that are absent are empty. */
typedef struct parts {
    am_str part[AM_HF_N_PARTS];
    am_str vocab, merges; /* of the model */
    am_buf rest_text;     /* its other members as one JSON object */
    bool has_model;
    am_compiled *compiled; /* what vocab and merges were made into earlier; NULL: they have to be read */
} parts;

static am_status members(am_jscan *j, parts *p, am_status (*one)(am_jscan *, parts *, am_str, am_error *), am_error *err) {
    if (!am_jscan_take(j, '{')) return am_jscan_fail(j, "an object", err);
    if (am_jscan_take(j, '}')) return AM_OK;
    do {
        am_str key;
        am_status status = am_jscan_string(j, &key, err);
        if (status) return status;
        char name[64];
        key.n = key.n < sizeof name ? key.n : sizeof name;
        memcpy(name, key.p, key.n);
        key.p = name;
        if (!am_jscan_take(j, ':')) return am_jscan_fail(j, "':'", err);
        status = one(j, p, key, err);
        if (status) return status;
    } while (am_jscan_take(j, ','));
    return am_jscan_take(j, '}') ? AM_OK : am_jscan_fail(j, "',' or '}'", err);
}

static am_status model_member(am_jscan *j, parts *p, am_str key, am_error *err) {
    am_str value;
    am_status status = am_jscan_skip(j, &value, err);
    if (status) return status;
    if (am_str_eq(key, AM_STR("vocab"))) p->vocab = value;
    else if (am_str_eq(key, AM_STR("merges"))) p->merges = value;
    else {
        status = am_buf_putc(&p->rest_text, p->rest_text.n ? ',' : '{');
        if (!status) status = am_json_quote(key, &p->rest_text);
        if (!status) status = am_buf_putc(&p->rest_text, ':');
        if (!status) status = am_buf_add(&p->rest_text, value);
        if (status) am_fail(err, status, "the model's settings are too large");
    }
    return status;
}

static am_status top_member(am_jscan *j, parts *p, am_str key, am_error *err) {
    if (am_str_eq(key, AM_STR("model"))) {
        if (p->has_model) return am_fail(err, AM_EFORMAT, "'model' occurs twice");
        p->has_model = true;
        return members(j, p, model_member, err);
    }
    am_str value;
    am_status status = am_jscan_skip(j, &value, err);
    static const char *const name[] = {"normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"};
    for (size_t i = 0; i < AM_HF_REST; i++)
        if (am_str_eq(key, am_str_of(name[i]))) p->part[i] = value;
    return status;
}

/* Parses a small member and hands it to its reader; the error says which member it was. */
static am_status part_read(am_tokenizer *t, am_str text, const char *name, am_status (*read)(am_tokenizer *, const json_t *, am_error *), am_error *err) {
    if (text.n == 0) return AM_OK;
    json_t *j = NULL;
    am_status status = am_json_parse(text, false, &j, err);
    if (!status) status = read(t, j, err);
    if (status) am_error_prefix(err, "%s", name);
    json_decref(j);
    return status;
}

/* ---- the model */

static am_status vocab_object(am_tokenizer *t, am_str text, am_error *err) {
    am_jscan j;
    am_jscan_init(&j, text);
    am_status status = AM_OK;
    if (!am_jscan_take(&j, '{')) status = am_jscan_fail(&j, "the vocabulary's object", err);
    bool more = !status && !am_jscan_take(&j, '}');
    while (more && !status) {
        am_str s;
        uint64_t id;
        status = am_jscan_string(&j, &s, err);
        if (!status && !am_jscan_take(&j, ':')) status = am_jscan_fail(&j, "':'", err);
        /* the id lies behind the string, whose view stays good */
        if (!status) status = am_jscan_id(&j, &id, err);
        if (!status) status = am_words_add(&t->words, id, s, err);
        more = am_jscan_take(&j, ',');
        if (!more && !status && !am_jscan_take(&j, '}')) status = am_jscan_fail(&j, "',' or '}'", err);
    }
    am_jscan_free(&j);
    return status;
}

/* [["piece", score], ...] */
static am_status vocab_scores(am_tokenizer *t, am_str text, am_error *err) {
    am_jscan j;
    am_jscan_init(&j, text);
    size_t cap = 0;
    uint64_t id = 0;
    am_status status = AM_OK;
    if (!am_jscan_take(&j, '[')) status = am_jscan_fail(&j, "the vocabulary's array", err);
    bool more = !status && !am_jscan_take(&j, ']');
    t->unigram.least = 0;
    for (; more && !status; id++) {
        am_str s;
        double score = 0;
        if (!am_jscan_take(&j, '[')) status = am_jscan_fail(&j, "'['", err);
        if (!status) status = am_jscan_string(&j, &s, err);
        if (!status) status = am_words_add(&t->words, id, s, err);
        if (!status && !am_jscan_take(&j, ',')) status = am_jscan_fail(&j, "','", err);
        if (!status) status = am_jscan_number(&j, &score, err);
        if (!status && !am_jscan_take(&j, ']')) status = am_jscan_fail(&j, "']'", err);
        if (!status && !am_grow(&t->unigram.score, &cap, id + 1, sizeof *t->unigram.score)) status = am_fail(err, AM_ENOMEM, "no memory for scores");
        if (!status) t->unigram.score[id] = score;
        if (id == 0 || score < t->unigram.least) t->unigram.least = score;
        more = am_jscan_take(&j, ',');
        if (!more && !status && !am_jscan_take(&j, ']')) status = am_jscan_fail(&j, "',' or ']'", err);
    }
    am_jscan_free(&j);
    return status;
}

bool am_half_put(const am_tokenizer *t, am_str s, am_buf *out) {
    if (!t->bpe.byte_level) return am_buf_add(out, s) == AM_OK;
    if (am_buf_reserve(out, s.n)) return false;
    for (size_t i = 0; i < s.n;) {
        if ((uint8_t)s.p[i] - 0x21u < 0x5E) { /* stands for itself */
            out->p[out->n++] = s.p[i++];
            continue;
        }
        uint32_t cp;
        i += am_utf8_get(s.p + i, &cp);
        int byte = am_char_byte(cp);
        if (byte < 0) return false;
        out->p[out->n++] = (char)byte;
    }
    return true;
}

/* Merges wait in a short queue while the memory that their look-ups will touch is fetched. */
enum { QUEUE = 16 };
typedef struct waiting {
    am_buf text; /* both halves side by side */
    size_t left_n;
    uint64_t hash[3]; /* left, right, joined */
    uint32_t rank;
    int32_t left, right, id; /* once resolved */
    bool full;
} waiting;

static am_str waiting_part(const waiting *w, int part) {
    if (part == 0) return (am_str){w->text.p, w->left_n};
    if (part == 1) return (am_str){w->text.p + w->left_n, w->text.n - w->left_n};
    return am_buf_str(&w->text);
}

/* With a prefix for inner entries, the merged entry lacks the right half's. */
static int32_t joined_find(const am_tokenizer *t, const waiting *w) {
    if (t->bpe.prefix.n == 0) return am_words_find_hashed(&t->words, am_buf_str(&w->text), w->hash[2]);
    am_buf joined;
    am_buf_init(&joined, w->text.n + 1);
    size_t right_n = w->text.n - w->left_n, cut = t->bpe.prefix.n < right_n ? t->bpe.prefix.n : right_n;
    am_status status = am_buf_append(&joined, w->text.p, w->left_n);
    if (!status) status = am_buf_append(&joined, w->text.p + w->left_n + cut, right_n - cut);
    int32_t id = status ? -1 : am_words_find(&t->words, am_buf_str(&joined));
    am_buf_free(&joined);
    return id;
}

/* Looks the three up; what they are goes into w. */
static am_status merge_resolve(am_tokenizer *t, waiting *w, am_error *err) {
    if (!w->full) return AM_OK;
    am_str left = waiting_part(w, 0), right = waiting_part(w, 1);
    w->left = am_words_find_hashed(&t->words, left, w->hash[0]);
    w->right = am_words_find_hashed(&t->words, right, w->hash[1]);
    w->id = joined_find(t, w);
    if (w->left < 0 || w->right < 0 || w->id < 0)
        return am_fail(err, AM_EFORMAT, "merge %u ('%.*s' with '%.*s') names a token that the vocabulary lacks", w->rank + 1,
                       (int)(left.n < 60 ? left.n : 60), left.p, (int)(right.n < 60 ? right.n : 60), right.p);
    am_bpe_prefetch(&t->bpe, w->left, w->right);
    return AM_OK;
}

static am_status merge_put(am_tokenizer *t, waiting *w, am_error *err) {
    if (!w->full) return AM_OK;
    w->full = false;
    return am_bpe_merge(&t->bpe, w->left, w->right, w->rank, w->id, err);
}

/* One merge: "left right" or ["left", "right"], its halves side by side in text. */
static am_status merge_read(const am_tokenizer *t, am_jscan *j, am_buf *text, size_t *left_n, bool *spelled, uint32_t rank, am_error *err) {
    am_str s;
    am_buf_clear(text);
    am_status status;
    if (am_jscan_take(j, '[')) {
        status = am_jscan_string(j, &s, err);
        if (!status) *spelled = am_half_put(t, s, text), *left_n = text->n;
        if (!status && !am_jscan_take(j, ',')) status = am_jscan_fail(j, "','", err);
        if (!status) status = am_jscan_string(j, &s, err);
        if (!status) *spelled = am_half_put(t, s, text) && *spelled;
        if (!status && !am_jscan_take(j, ']')) status = am_jscan_fail(j, "']'", err);
        return status;
    }
    status = am_jscan_string(j, &s, err);
    if (status) return status;
    const char *space = memchr(s.p, ' ', s.n);
    if (!space || memchr(space + 1, ' ', s.n - (size_t)(space + 1 - s.p)))
        return am_fail(err, AM_EFORMAT, "merge %u ('%.*s') is not two tokens with a space between", rank + 1, (int)(s.n < 60 ? s.n : 60), s.p);
    *spelled = am_half_put(t, (am_str){s.p, (size_t)(space - s.p)}, text);
    *left_n = text->n;
    *spelled = am_half_put(t, (am_str){space + 1, s.n - (size_t)(space + 1 - s.p)}, text) && *spelled;
    return AM_OK;
}

/* What was `age` merges ago. */
static waiting *queue_at(waiting *queue, uint32_t rank, uint32_t age) { return &queue[(rank - age) % QUEUE]; }

/* Moves every waiting merge a step on, after the newest came in. */
static am_status queue_step(am_tokenizer *t, waiting *queue, uint32_t rank, am_error *err) {
    for (int step = 0; step < 3; step++) {
        const waiting *w = queue_at(queue, rank, (uint32_t)step * 4);
        for (int part = 0; w->full && part < 3; part++) am_words_prefetch(&t->words, w->hash[part], step);
    }
    am_status status = merge_resolve(t, queue_at(queue, rank, 11), err);
    return status ? status : merge_put(t, queue_at(queue, rank, QUEUE - 1), err);
}

static am_status merges_read(am_tokenizer *t, am_str list, am_error *err) {
    am_jscan j;
    am_jscan_init(&j, list);
    waiting queue[QUEUE] = {0};
    for (size_t i = 0; i < QUEUE; i++) am_buf_init(&queue[i].text, 1 << 24);
    am_status status = am_jscan_take(&j, '[') ? AM_OK : am_jscan_fail(&j, "the merges' array", err);
    if (!status) status = am_bpe_reserve(&t->bpe, list.n / 32, err);
    bool more = !status && !am_jscan_take(&j, ']');
    uint32_t rank = 0;
    for (; more && !status; rank++) {
        waiting *w = &queue[rank % QUEUE];
        w->rank = rank;
        status = merge_read(t, &j, &w->text, &w->left_n, &w->full, rank, err);
        for (int part = 0; !status && w->full && part < 3; part++) w->hash[part] = am_words_hash(waiting_part(w, part));
        if (!status) status = queue_step(t, queue, rank, err);
        more = am_jscan_take(&j, ',');
        if (!more && !status && !am_jscan_take(&j, ']')) status = am_jscan_fail(&j, "',' or ']'", err);
    }
    for (uint32_t i = 0; i < QUEUE && !status; i++, rank++) { /* empty the queue */
        queue[rank % QUEUE].full = false;
        status = queue_step(t, queue, rank, err);
    }
    for (size_t i = 0; i < QUEUE; i++) am_buf_free(&queue[i].text);
    am_jscan_free(&j);
    return status;
}

static am_status own_affix(const json_t *model, const char *key, am_str *out, am_error *err) {
    am_str s;
    am_status status = am_json_str(model, key, &s, err);
    if (status) return status == AM_ENOTFOUND ? AM_OK : status;
    *out = am_str_own(s);
    return out->p ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for '%s'", key);
}

/* The tables as they were compiled earlier; what is not bytes must be text, as it would have been read. */
static am_status compiled_take(am_tokenizer *t, am_compiled *c, am_error *err) {
    for (size_t id = 0; !t->bpe.byte_level && id < c->words.n; id++) {
        am_str s = am_words_get(&c->words, (int64_t)id);
        if (am_utf8_check(s) != s.n) return am_fail(err, AM_EFORMAT, "a compiled entry is not UTF-8");
    }
    t->words = c->words;
    t->bpe.pairs = c->bpe.pairs;
    t->bpe.mask = c->bpe.mask;
    t->bpe.n_pairs = c->bpe.n_pairs;
    c->words = (am_words){0};
    c->bpe = (am_bpe){0};
    return AM_OK;
}

static am_status bpe_read(am_tokenizer *t, const parts *p, const json_t *model, am_error *err) {
    double dropout = 0;
    am_json_f64(model, "dropout", &dropout, NULL);
    if (dropout > 0) return am_fail(err, AM_EUNSUPPORTED, "BPE dropout is not supported: it makes ids random");
    am_json_bool(model, "byte_fallback", &t->bpe.byte_fallback, NULL);
    am_json_bool(model, "fuse_unk", &t->bpe.fuse_unk, NULL);
    am_json_bool(model, "ignore_merges", &t->bpe.ignore_merges, NULL);
    am_status status = own_affix(model, "continuing_subword_prefix", &t->bpe.prefix, err);
    if (!status) status = own_affix(model, "end_of_word_suffix", &t->bpe.suffix, err);
    if (p->compiled) return status ? status : compiled_take(t, p->compiled, err);
    if (!status) status = vocab_object(t, p->vocab, err);
    if (!status && t->bpe.byte_level) am_words_undo_bytes(&t->words);
    if (!status) status = am_words_seal(&t->words, err);
    if (!status) status = merges_read(t, p->merges, err);
    return status;
}

static am_status unigram_read(am_tokenizer *t, const parts *p, const json_t *model, am_error *err) {
    uint64_t unk = 0;
    am_json_bool(model, "byte_fallback", &t->unigram.byte_fallback, NULL);
    am_status status = vocab_scores(t, p->vocab, err);
    if (status) return status;
    status = am_json_u64(model, "unk_id", t->words.n ? t->words.n - 1 : 0, &unk, err);
    if (status && status != AM_ENOTFOUND) return status;
    t->unk = status == AM_OK && t->words.n ? (int32_t)unk : -1;
    return am_words_seal(&t->words, err);
}

static am_status wordpiece_read(am_tokenizer *t, const parts *p, const json_t *model, am_error *err) {
    uint64_t max_chars = 100;
    am_status status = own_affix(model, "continuing_subword_prefix", &t->wordpiece.prefix, err);
    if (!status) status = am_json_u64(model, "max_input_chars_per_word", 1 << 20, &max_chars, err);
    if (status && status != AM_ENOTFOUND) return status;
    t->wordpiece.max_chars = max_chars;
    status = vocab_object(t, p->vocab, err);
    return status ? status : am_words_seal(&t->words, err);
}

/* Files from before models had a type are told apart by their members, as the library does. */
static am_status model_kind(am_tokenizer *t, const parts *p, const json_t *model, am_error *err) {
    am_str type;
    if (am_json_str(model, "type", &type, NULL)) {
        if (p->merges.n) t->kind = AM_MODEL_BPE;
        else if (p->vocab.n && p->vocab.p[0] == '[') t->kind = AM_MODEL_UNIGRAM;
        else t->kind = json_object_get(model, "continuing_subword_prefix") ? AM_MODEL_WORDPIECE : AM_MODEL_WORDLEVEL;
        return AM_OK;
    }
    static const char *const name[] = {"BPE", "Unigram", "WordPiece", "WordLevel"};
    for (size_t i = 0; i < 4; i++)
        if (am_str_eq(type, am_str_of(name[i]))) return t->kind = (am_model_kind)i, AM_OK;
    return am_fail(err, AM_EUNSUPPORTED, "model type '%.*s' is not supported", (int)(type.n < 100 ? type.n : 100), type.p);
}

static am_status model_read(am_tokenizer *t, const parts *p, am_error *err) {
    if (!p->compiled && (!p->has_model || p->vocab.n == 0)) return am_fail(err, AM_EFORMAT, "no model with a vocabulary in the file");
    json_t *model = NULL;
    am_status status = am_json_parse(p->part[AM_HF_REST], false, &model, err);
    if (!status) status = model_kind(t, p, model, err);
    if (!status) {
        bool last = true; /* of the stages that look at the text */
        for (size_t i = t->n_pre; i-- > 0; last = false) {
            if (t->pre[i].kind != AM_PRE_BYTES) continue;
            t->bpe.byte_level = t->kind == AM_MODEL_BPE;
            t->pre[i].spell = !last || t->kind != AM_MODEL_BPE;
        }
        status = t->kind == AM_MODEL_BPE ? bpe_read(t, p, model, err) : t->kind == AM_MODEL_UNIGRAM ? unigram_read(t, p, model, err) : wordpiece_read(t, p, model, err);
    }
    am_str unk;
    if (!status && t->kind != AM_MODEL_UNIGRAM && am_json_str(model, "unk_token", &unk, NULL) == AM_OK) {
        t->unk = am_words_find(&t->words, unk);
        t->unk_lost = t->unk < 0;
    }
    if (status) am_error_prefix(err, "model");
    json_decref(model);
    return status;
}

/* ---- added tokens and the config beside it */

am_str am_hf_content(const json_t *j) {
    am_str s = {"", 0};
    if (json_is_string(j)) return (am_str){json_string_value(j), json_string_length(j)};
    if (json_is_object(j)) am_json_str(j, "content", &s, NULL);
    return s;
}

am_status am_hf_added(am_tokenizer *t, const json_t *j, uint64_t id, am_error *err) {
    am_added a = {.content = am_hf_content(j)};
    am_json_bool(j, "special", &a.special, NULL);
    a.normalized = !a.special;
    am_json_bool(j, "normalized", &a.normalized, NULL);
    am_json_bool(j, "single_word", &a.single_word, NULL);
    am_json_bool(j, "lstrip", &a.lstrip, NULL);
    am_json_bool(j, "rstrip", &a.rstrip, NULL);
    return am_added_put(t, &a, id, err);
}

static am_status added_read(am_tokenizer *t, const json_t *list, am_error *err) {
    if (json_is_null(list)) return AM_OK;
    if (!json_is_array(list)) return am_fail(err, AM_EFORMAT, "must be an array");
    am_status status = AM_OK;
    size_t n_model = 0; /* entries */
    for (size_t id = 0; id < t->words.n; id++) n_model += t->words.flags[id] & AM_WORD_PRESENT;
    uint64_t next = n_model;
    for (size_t i = 0; i < json_array_size(list) && !status; i++) {
        const json_t *j = json_array_get(list, i);
        uint64_t id = 0;
        status = am_json_u64(j, "id", UINT32_MAX, &id, err);
        /* the library counts on from the model's entries, whatever the file says; where a hole makes that an entry's id, the file's stands */
        bool taken = next < t->words.n && (t->words.flags[next] & AM_WORD_PRESENT);
        size_t n = t->n_added;
        if (!status) status = am_hf_added(t, j, taken ? id : next, err);
        if (!status && t->n_added > n && (uint64_t)t->added[n].id >= next) next = (uint64_t)t->added[n].id + 1;
    }
    return status;
}

/* What the config (or a file beside it, under its name) says of added tokens goes before what tokenizer.json says of them. */
static am_status config_added(am_tokenizer *t, const json_t *config, const char *list, am_error *err) {
    const char *key;
    json_t *value;
    am_status status = AM_OK;
    json_object_foreach(json_object_get(config, list), key, value) {
        char *end;
        uint64_t id = strtoul(key, &end, 10);
        if (!*end && end != key && am_hf_content(value).n && !status) status = am_hf_added(t, value, id, err);
    }
    return status;
}

static bool config_lists(const json_t *config, am_str content) {
    const json_t *decoder = json_object_get(config, "added_tokens_decoder");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)decoder, key, value)
        if (am_str_eq(am_hf_content(value), content)) return true;
    return !decoder;
}

/* A token with a part to play is special, and looked for in text; one that nobody has is put behind all others. What is an added token
 * already stays as it is when the config lists added tokens without it, or only counts it among others. */
static am_status config_special(am_tokenizer *t, const json_t *config, const json_t *value, bool counted, am_error *err) {
    am_added a = {.content = am_hf_content(value)};
    for (size_t i = 0; i < t->n_added; i++) {
        if (!am_str_eq(t->added[i].content, a.content)) continue;
        if (counted || !config_lists(config, a.content)) return AM_OK;
        a = t->added[i];
    }
    a.special = true;
    return am_added_put(t, &a, t->words.n, err);
}

static const char *const roles[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
enum { N_ROLES = sizeof roles / sizeof *roles };

/* A model's own roles are called "..._token" too. */
static bool is_own_role(const char *key) {
    size_t n = strlen(key), i = 0;
    while (i < N_ROLES && strcmp(roles[i], key) != 0) i++;
    return i == N_ROLES && n > 6 && strcmp(key + n - 6, "_token") == 0;
}

/* In the order in which the library gives ids to those that have none. */
static am_status config_specials(am_tokenizer *t, const json_t *config, am_error *err) {
    static const char *const more[] = {"extra_special_tokens", "model_specific_special_tokens", "additional_special_tokens"};
    const char *key;
    json_t *value;
    size_t i;
    am_status status = AM_OK;
    for (size_t k = 0; k < N_ROLES && !status; k++) status = config_special(t, config, json_object_get(config, roles[k]), false, err);
    json_object_foreach((json_t *)config, key, value)
        if (!status && is_own_role(key)) status = config_special(t, config, value, false, err);
    for (size_t k = 0; k < sizeof more / sizeof *more; k++) {
        const json_t *list = json_object_get(config, more[k]);
        json_object_foreach((json_t *)list, key, value)
            if (!status) status = config_special(t, config, value, false, err);
        json_array_foreach(list, i, value)
            if (!status) status = config_special(t, config, value, true, err);
    }
    return status;
}

am_status am_hf_config(am_tokenizer *t, am_str text, bool add_ends, am_error *err) {
    if (text.n == 0) return AM_OK;
    json_t *config = NULL;
    am_status status = am_json_parse(text, false, &config, err);
    if (!status) status = config_added(t, config, "added_tokens_decoder", err);
    if (!status) status = config_added(t, config, AM_HF_ADDED_FILE, err);
    if (!status) status = config_specials(t, config, err);
    if (!status) {
        am_str bos = am_hf_content(json_object_get(config, "bos_token")), eos = am_hf_content(json_object_get(config, "eos_token"));
        bool add_bos = false, add_eos = false;
        if (bos.n) t->bos = am_tokenizer_find(t, bos);
        if (eos.n) t->eos = am_tokenizer_find(t, eos);
        am_json_bool(config, "add_bos_token", &add_bos, NULL);
        am_json_bool(config, "add_eos_token", &add_eos, NULL);
        size_t cap = 0;
        if (add_ends && add_bos && t->bos >= 0 && t->n_head == 0) {
            if (am_grow(&t->head, &cap, 1, sizeof *t->head)) t->head[t->n_head++] = t->bos;
            else status = am_fail(err, AM_ENOMEM, "no memory");
        }
        cap = 0;
        if (add_ends && add_eos && t->eos >= 0 && t->n_tail == 0) {
            if (am_grow(&t->tail, &cap, 1, sizeof *t->tail)) t->tail[t->n_tail++] = t->eos;
            else status = am_fail(err, AM_ENOMEM, "no memory");
        }
    }
    if (status) am_error_prefix(err, "tokenizer_config.json");
    json_decref(config);
    return status;
}

/* Finds the members in the text. */
static am_status parts_find(parts *p, am_str text, am_error *err) {
    am_jscan j;
    am_jscan_init(&j, text);
    am_status status = members(&j, p, top_member, err);
    am_jscan_free(&j);
    if (!status && p->rest_text.n == 0) status = am_buf_putc(&p->rest_text, '{');
    if (!status) status = am_buf_putc(&p->rest_text, '}');
    p->part[AM_HF_REST] = am_buf_str(&p->rest_text);
    return status == AM_ENOMEM ? am_fail(err, status, "no memory for the model's settings") : status;
}

/* Every stage, table and token of the file, but for what sealing makes. */
static am_status parts_read(am_tokenizer *t, const parts *p, am_str config, am_error *err) {
    const am_str *part = p->part;
    am_status status = part_read(t, part[AM_HF_ADDED], "added_tokens", added_read, err);
    if (!status) status = part_read(t, part[AM_HF_POST_PROCESSOR], "post_processor", am_hf_postprocessor, err);
    return status ? status : am_hf_config(t, config, false, err); /* what is put before and behind, the post-processor alone says */
}

static am_status model_load(am_tokenizer *t, const parts *p, am_error *err) {
    const am_str *part = p->part;
    am_status status = part_read(t, part[AM_HF_NORMALIZER], "normalizer", am_hf_normalizer, err);
    if (!status) status = part_read(t, part[AM_HF_PRE_TOKENIZER], "pre_tokenizer", am_hf_pretokenizer, err);
    if (!status) status = part_read(t, part[AM_HF_DECODER], "decoder", am_hf_decoder, err);
    return status ? status : model_read(t, p, err);
}

/* Only what takes long to parse is worth a file. */
enum { WORTH_COMPILING = 1 << 20 };

static void compile(const am_tokenizer *t, const parts *p, const char *dir, am_sum key) {
    am_error err = {0};
    if (t->kind != AM_MODEL_BPE || !t->bpe.pairs || t->words.n == 0) return;
    if (am_compiled_write(dir, key, &t->words, &t->bpe, p->part, &err)) am_log(AM_LOG_WARN, "vocabulary_not_compiled", AM_LS("reason", err.message));
}

am_status am_hf_load(am_str text, am_str config, const char *compiled_dir, am_tokenizer **out, am_error *err) {
    *out = NULL;
    am_tokenizer *t = am_tokenizer_create();
    if (!t) return am_fail(err, AM_ENOMEM, "no memory for the tokenizer");
    parts p = {0};
    am_compiled compiled = {0};
    am_sum key = {0};
    am_status status = AM_ENOTFOUND;
    am_buf_init(&p.rest_text, 1 << 20);
    if (text.n < WORTH_COMPILING) compiled_dir = NULL;
    if (compiled_dir) {
        am_error why = {0};
        key = am_sum_of(text.p, text.n);
        status = am_compiled_read(compiled_dir, key, &compiled, &why);
        if (status == AM_EFORMAT || status == AM_EIO) am_log(AM_LOG_WARN, "compiled_vocabulary_refused", AM_LS("reason", why.message));
    }
    if (status == AM_OK) {
        p.compiled = &compiled;
        memcpy(p.part, compiled.part, sizeof p.part);
    } else status = parts_find(&p, text, err);
    if (!status) status = model_load(t, &p, err);
    if (!status && compiled_dir && !p.compiled) compile(t, &p, compiled_dir, key);
    if (!status) status = parts_read(t, &p, config, err);
    if (!status) status = am_tokenizer_seal(t, (am_str[]){text, config}, 2, err);
    am_buf_free(&p.rest_text);
    am_compiled_free(&compiled);
    if (status) am_tokenizer_free(t);
    else *out = t;
    return status;
}

am_status am_tokenizer_load_json(am_str text, am_str config, am_tokenizer **out, am_error *err) { return am_hf_load(text, config, NULL, out, err); }
