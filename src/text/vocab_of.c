/* Owns the way back: from a tokenizer, whatever it was read from, to the lists that GGUF metadata holds, and the proof that they mean the same.
 *
 * GGUF has no words for stages, only the name of a split pattern and a few flags. So a name is taken only when a tokenizer read back from the lists gives the
 * same ids for all of Unicode in several surroundings; a name by likeness would split words wrongly in silence. */
#include "text/vocab_int.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6, LAST_TRIED = 0x1FFFF };

/* ---- the lists */

static bool alive(const am_tokenizer *t, size_t id) { return id < t->words.n && (t->words.flags[id] & AM_WORD_PRESENT); }

/* An entry as files have it: of a byte-level model in the alphabet. NULL when there is no memory. */
static const char *spelled(const am_tokenizer *t, size_t id, am_arena *memory, am_str *out) {
    am_str s = am_words_get(&t->words, (int64_t)id);
    bool bytes = t->bpe.byte_level && (t->words.flags[id] & AM_WORD_FINDABLE) && !(t->words.flags[id] & AM_WORD_ADDED);
    char *p = am_arena_alloc(memory, 2 * s.n + 1);
    if (!p) return NULL;
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (bytes) n += am_utf8_put(p + n, am_byte_char((uint8_t)s.p[i]));
        else p[n++] = s.p[i];
    }
    *out = (am_str){p, n};
    return p;
}

static int32_t type_of(const am_tokenizer *t, size_t id) {
    if ((int32_t)id == t->unk) return UNKNOWN;
    if (t->words.flags[id] & AM_WORD_ADDED) return t->words.flags[id] & AM_WORD_SPECIAL ? CONTROL : USER_DEFINED;
    int byte = t->bpe.byte_level ? -1 : am_byte_token(am_words_get(&t->words, (int64_t)id));
    return byte >= 0 && t->bpe.fallback_id[byte] == (int32_t)id ? BYTE : NORMAL;
}

static am_status put_tokens(const am_tokenizer *t, size_t n, am_arena *memory, am_vocab *v) {
    am_str *tokens = am_arena_alloc(memory, n * sizeof *tokens);
    int32_t *types = am_arena_alloc(memory, n * sizeof *types);
    if (!tokens || !types) return AM_ENOMEM;
    for (size_t id = 0; id < n; id++) {
        char unused[32];
        if (alive(t, id) && !spelled(t, id, memory, &tokens[id])) return AM_ENOMEM;
        types[id] = alive(t, id) ? type_of(t, id) : UNUSED;
        if (alive(t, id)) continue;
        snprintf(unused, sizeof unused, "[PAD%zu]", id);
        tokens[id] = (am_str){am_arena_strdup(memory, am_str_of(unused)), strlen(unused)};
        if (!tokens[id].p) return AM_ENOMEM;
    }
    v->tokens = tokens;
    v->types = types;
    v->n_tokens = n;
    return AM_OK;
}

static int by_rank(const void *a, const void *b) {
    const am_pair *x = a, *y = b;
    if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
    return x->key < y->key ? -1 : x->key > y->key;
}

static am_status put_merges(const am_tokenizer *t, am_arena *memory, am_vocab *v) {
    am_pair *pairs = am_arena_alloc(memory, (t->bpe.n_pairs + 1) * sizeof *pairs);
    am_str *merges = am_arena_alloc(memory, (t->bpe.n_pairs + 1) * sizeof *merges);
    if (!pairs || !merges) return AM_ENOMEM;
    size_t n = 0;
    for (size_t k = 0; t->bpe.pairs && k <= t->bpe.mask; k++)
        if (t->bpe.pairs[k].key != UINT64_MAX) pairs[n++] = t->bpe.pairs[k];
    qsort(pairs, n, sizeof *pairs, by_rank);
    for (size_t i = 0; i < n; i++) {
        size_t left = pairs[i].key >> 32, right = (uint32_t)pairs[i].key;
        if (!alive(t, left) || !alive(t, right)) return AM_EUNSUPPORTED;
        am_str l, r;
        if (!spelled(t, left, memory, &l) || !spelled(t, right, memory, &r)) return AM_ENOMEM;
        char *p = am_arena_alloc(memory, l.n + 1 + r.n + 1);
        if (!p) return AM_ENOMEM;
        memcpy(p, l.p, l.n);
        p[l.n] = ' ';
        memcpy(p + l.n + 1, r.p, r.n);
        merges[i] = (am_str){p, l.n + 1 + r.n};
    }
    v->merges = merges;
    v->n_merges = n;
    return AM_OK;
}

static am_status put_rstrip(const am_tokenizer *t, am_arena *memory, am_vocab *v) {
    bool *rstrip = NULL;
    for (size_t i = 0; i < t->n_added; i++) {
        if (!t->added[i].rstrip) continue;
        if (!rstrip && !(rstrip = am_arena_alloc(memory, v->n_tokens * sizeof *rstrip))) return AM_ENOMEM;
        rstrip[t->added[i].id] = true;
    }
    v->rstrip = rstrip;
    return AM_OK;
}

/* SentencePiece has scores where others have merges: the sooner an entry is made, the higher. */
static am_status put_scores(const am_tokenizer *t, am_arena *memory, am_vocab *v) {
    float *scores = am_arena_alloc(memory, v->n_tokens * sizeof *scores);
    if (!scores) return AM_ENOMEM;
    for (size_t id = 0; id < v->n_tokens; id++) scores[id] = v->types[id] == NORMAL ? -1e6f : 0;
    for (size_t k = 0; t->bpe.pairs && k <= t->bpe.mask; k++) {
        const am_pair *pair = &t->bpe.pairs[k];
        if (pair->key == UINT64_MAX || (size_t)pair->id >= v->n_tokens || v->types[pair->id] != NORMAL) continue;
        float score = -(float)pair->rank;
        if (score > scores[pair->id] || scores[pair->id] <= -1e6f) scores[pair->id] = score;
    }
    v->scores = scores;
    return AM_OK;
}

/* ---- the proof */

/* Text from outside, in which no mark is a token, and between marks. */
enum { SMALL, LARGE, MARKED, N_TEXTS };
typedef struct trial {
    const am_tokenizer *t;
    am_buf text[N_TEXTS];
    am_tokens ids[N_TEXTS]; /* the tokenizer's own */
    bool marks_differ;
} trial;

static const char *const samples[] = {
    "Hello world, it's 1 12 123 1234 12345 dogs; WE'LL DON'T i'd I'M they've You're", "camelCase HTTPServer iPhone McDonald's O'Neill ALLCAPSWord",
    " two  three   four    \t tab\t\ttabs \n\n newlines\r\n\r\n\n  end   ", "a//b/\n/c:=!?!?...\n\n!!!\r\n--- +=*&^%$#@ <|x|> [y] {z}\n",
    "\xE4\xBD\xA0\xE5\xA5\xBD\xE4\xB8\x96\xE7\x95\x8C \xE3\x81\x93\xE3\x82\x93\xE3\x81\xAB\xE3\x81\xA1\xE3\x81\xAF 1\xE5\xB9\xB4 \xED\x95\x9C\xEA\xB5\xAD\xEC\x96\xB4",
    "\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82 \xD9\x85\xD8\xB1\xD8\xAD\xD8\xA8\xD8\xA7 \xE0\xA4\xB9\xE0\xA4\xBF\xE0\xA4\xA8\xE0\xA5\x8D \xF0\x9F\x98\x80\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9 caf\xC3\xA9",
    "for (int i = 0; i < n; i++) {\n    x[i] += 3.14159e-10;\n\treturn 'a' \"b\";\n}", " ", "\n", "  x"};

static am_status encode(const trial *x, const am_tokenizer *t, int which, am_tokens *out) {
    am_error err;
    am_str text = am_buf_str(&x->text[which]);
    return am_tokenizer_encode(t, text, &(am_span){0, text.n}, which != MARKED, 0, out, &err);
}

/* Of others composition makes other text, which GGUF readers leave alone. */
static bool composes_to_itself(uint32_t cp) {
    utf8proc_uint8_t in[5] = {0}, *out = NULL;
    in[am_utf8_put((char *)in, cp)] = 0;
    utf8proc_ssize_t n = utf8proc_map(in, 0, &out, UTF8PROC_NULLTERM | UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    bool same = n >= 0 && strcmp((const char *)in, (const char *)out) == 0;
    free(out);
    return same;
}

/* Every character beside letters, digits, blanks, lines and itself; q composes with nothing. */
static am_status texts_make(trial *x) {
    am_status status = AM_OK;
    for (size_t i = 0; !status && i < sizeof samples / sizeof *samples; i++) {
        status = am_buf_add(&x->text[SMALL], am_str_of(samples[i]));
        if (!status) status = am_buf_putc(&x->text[SMALL], '\n');
    }
    for (uint32_t cp = 1; !status && cp <= LAST_TRIED; cp++) {
        char c[8];
        if ((cp >= 0xD800 && cp < 0xE000) || !composes_to_itself(cp)) continue;
        int n = (int)am_utf8_put(c, cp);
        status = am_buf_printf(&x->text[LARGE], "q%.*sq %.*s1%.*s%.*s\n%.*sQ' %.*s", n, c, n, c, n, c, n, c, n, c, n, c);
    }
    for (size_t i = 0; !status && i < x->t->n_added; i++) {
        int n = (int)x->t->added[i].content.n;
        const char *c = x->t->added[i].content.p;
        status = am_buf_printf(&x->text[MARKED], "q%.*sq %.*s q\n%.*s\n%.*sq", n, c, n, c, n, c, n, c);
    }
    for (int i = 0; !status && i < N_TEXTS; i++) status = encode(x, x->t, i, &x->ids[i]);
    return status;
}

static am_status compare(const trial *x, const am_tokenizer *back, int which, bool *same) {
    am_tokens found = {0};
    const am_tokens *wanted = &x->ids[which];
    am_status status = encode(x, back, which, &found);
    *same = !status && found.n == wanted->n && memcmp(found.ids, wanted->ids, found.n * sizeof *found.ids) == 0;
    am_tokens_free(&found);
    return status;
}

/* AM_ENOTFOUND: the lists are another tokenizer. */
static am_status try_lists(trial *x, const am_vocab *v, am_error *err) {
    am_tokenizer *back;
    bool same = false, marked = false;
    am_status status = am_tokenizer_load_vocab(v, &back, err);
    if (status) return status == AM_ENOMEM ? status : AM_ENOTFOUND;
    status = compare(x, back, SMALL, &same);
    if (!status && same) status = compare(x, back, LARGE, &same);
    if (!status && same) status = compare(x, back, MARKED, &marked);
    x->marks_differ = same && !marked;
    am_tokenizer_free(back);
    return status == AM_ENOMEM ? status : same ? AM_OK : AM_ENOTFOUND;
}

/* ---- which lists */

static bool only_composes(const am_tokenizer *t) {
    for (size_t i = 0; i < t->n_norm; i++)
        if (t->norm[i].kind != AM_NORM_UNICODE || t->norm[i].compat) return false;
    return true;
}

static am_status find_name(trial *x, am_vocab *v, am_error *err) {
    v->model = AM_STR("gpt2");
    const am_pre_name *pre;
    for (size_t i = 0; (pre = am_pre_name_at(i)); i++) {
        if ((pre->flags & AM_PRE_MARKS) || !(pre->flags & AM_PRE_IGNORE_MERGES) != !x->t->bpe.ignore_merges) continue;
        v->pre = (am_str){pre->names, strcspn(pre->names, " ")};
        am_status status = try_lists(x, v, err);
        if (status != AM_ENOTFOUND) return status;
    }
    return AM_ENOTFOUND;
}

static am_status find_prefix(trial *x, am_vocab *v, am_error *err) {
    v->model = AM_STR("llama");
    am_status status = AM_ENOTFOUND;
    for (int8_t prefix = 0; prefix < 2 && status == AM_ENOTFOUND; prefix++) {
        v->add_space_prefix = prefix;
        status = try_lists(x, v, err);
    }
    return status;
}

static am_status find(trial *x, size_t n_tokens, am_arena *memory, am_vocab *v, am_error *err) {
    const am_tokenizer *t = x->t;
    if (t->kind != AM_MODEL_BPE || t->bpe.prefix.n || t->bpe.suffix.n || (t->bpe.byte_level ? !only_composes(t) : !t->bpe.byte_fallback)) return AM_ENOTFOUND;
    am_status status = texts_make(x);
    if (!status) status = put_tokens(t, n_tokens, memory, v);
    if (!status) status = put_rstrip(t, memory, v);
    if (!status) status = t->bpe.byte_level ? put_merges(t, memory, v) : put_scores(t, memory, v);
    if (!status) status = t->bpe.byte_level ? find_name(x, v, err) : find_prefix(x, v, err);
    return status;
}

am_status am_vocab_of(const am_tokenizer *t, size_t n_tokens, am_arena *memory, am_vocab *out, am_error *err) {
    trial x = {.t = t};
    for (int i = 0; i < N_TEXTS; i++) am_buf_init(&x.text[i], 1 << 24);
    *out = (am_vocab){.bos = t->bos, .eos = t->eos, .unk = t->unk, .pad = -1, .add_space_prefix = -1, .remove_extra_whitespaces = -1,
                      .add_bos = t->n_head == 1 && t->head[0] == t->bos, .add_eos = t->n_tail == 1 && t->tail[0] == t->eos};
    am_status status = n_tokens < t->words.n ? AM_ENOTFOUND : find(&x, n_tokens, memory, out, err);
    for (int i = 0; i < N_TEXTS; i++) {
        am_buf_free(&x.text[i]);
        am_tokens_free(&x.ids[i]);
    }
    if (!status && x.marks_differ) am_log(AM_LOG_WARN, "GGUF has no words for all that this tokenizer does around added tokens: ids may differ there");
    if (!status && t->n_norm && t->bpe.byte_level) am_log(AM_LOG_WARN, "GGUF readers do not compose characters (NFC), as this tokenizer does: ids may differ there");
    if (status == AM_ENOMEM) return am_fail(err, status, "no memory for the lists of a vocabulary");
    return status ? am_fail(err, AM_EUNSUPPORTED, "no lists of GGUF mean what this tokenizer does") : AM_OK;
}
