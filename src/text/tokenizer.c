/* Owns a tokenizer's life and the path of a text through its stages (tokenizer_int.h draws it), and the seam at which a longer text
 * is encoded on from the tokens of a shorter one. */
#include "text/tokenizer_int.h"
#include "text/utf8.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

/* ---- tokens and scratch */

void am_tokens_free(am_tokens *tokens) {
    if (!tokens) return;
    free(tokens->ids);
    free(tokens->offsets);
    free(tokens->ends);
    *tokens = (am_tokens){0};
}

static bool tokens_reserve(am_tokens *tokens, size_t n) {
    if (tokens->offsets && n < tokens->cap) return true;
    size_t cap_ids = tokens->cap, cap_offsets = tokens->cap;
    if (!am_grow(&tokens->ids, &cap_ids, n + 1, sizeof *tokens->ids)) return false;
    if (!am_grow(&tokens->offsets, &cap_offsets, n + 1, sizeof *tokens->offsets)) return false;
    tokens->cap = cap_offsets;
    return true;
}

am_status am_tokens_push(am_tokens *tokens, int32_t id, uint32_t offset) {
    if (tokens->max && tokens->n >= tokens->max) return AM_ELIMIT;
    if (tokens->n + 1 >= tokens->cap && !tokens_reserve(tokens, tokens->n + 1)) return AM_ENOMEM;
    tokens->ids[tokens->n] = id;
    tokens->offsets[tokens->n++] = offset;
    return AM_OK;
}

am_status am_tokens_fail(const am_tokens *tokens, am_status status, am_error *err) {
    if (status == AM_ELIMIT) return am_fail(err, status, "the text is more than %zu tokens", tokens->max);
    return am_fail(err, status, "no memory for tokens");
}

void am_scratch_free(am_scratch *s) {
    am_mapped_free(&s->text[0]);
    am_mapped_free(&s->text[1]);
    am_mapped_free(&s->joined);
    free(s->pieces.v);
    free(s->more.v);
    free(s->parts.v);
    free(s->last);
    free(s->symbols);
    free(s->heap);
    free(s->path);
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->context);
    pcre2_jit_stack_free(s->stack);
}

/* ---- life */

am_tokenizer *am_tokenizer_create(void) {
    am_tokenizer *t = am_calloc(1, sizeof *t);
    if (t) t->unk = t->bos = t->eos = -1;
    return t;
}

void am_tokenizer_free(am_tokenizer *t) {
    if (!t) return;
    am_words_free(&t->words);
    am_words_free(&t->pieces);
    for (size_t i = 0; i < t->n_norm; i++) am_norm_free(&t->norm[i]);
    for (size_t i = 0; i < t->n_pre; i++) am_pre_free(&t->pre[i]);
    for (size_t i = 0; i < t->n_dec; i++) am_dec_free(&t->dec[i]);
    for (size_t i = 0; i < t->n_added; i++) {
        if (t->added[i].needle.p != t->added[i].content.p) free((char *)t->added[i].needle.p);
        free((char *)t->added[i].content.p);
    }
    free(t->added);
    am_trie_free(&t->raw.trie);
    am_trie_free(&t->normal.trie);
    am_bpe_free(&t->bpe);
    am_trie_free(&t->unigram.trie);
    free(t->unigram.score);
    free((char *)t->wordpiece.prefix.p);
    free((char *)t->wordpiece.first.p);
    free(t->head);
    free(t->tail);
    free(t);
}

static int added_order(const void *a, const void *b) {
    const am_added *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* A token that is looked for in normalised text is itself normalised first. */
static am_status needle_make(am_tokenizer *t, am_added *a, am_error *err) {
    if (!a->normalized || t->n_norm == 0) return AM_OK;
    am_scratch s = {0};
    am_view v = {a->content.p, a->content.n, NULL, 0};
    am_status status = AM_OK;
    for (size_t i = 0; i < t->n_norm && !status; i++) status = am_norm_apply(&t->norm[i], &s, &v, err);
    if (!status) {
        a->needle = am_str_own((am_str){v.p, v.n});
        if (!a->needle.p) {
            a->needle = a->content;
            status = am_fail(err, AM_ENOMEM, "no memory for added tokens");
        } else if (a->needle.n == 0) { /* the library cuts the text at every byte for it, and falls over inside of characters */
            status = am_fail(err, AM_EUNSUPPORTED, "added token %d, '%.*s', of which the normalizer leaves nothing, is not supported", a->id, (int)(a->content.n < 60 ? a->content.n : 60), a->content.p);
        } else if (!am_str_eq(a->needle, a->content)) {
            t->words.flags[a->id] |= AM_WORD_NEEDLE;
        }
    }
    am_scratch_free(&s);
    return status;
}

/* "\n" before an ASCII letter always ends a piece? True for the known patterns, on text that no stage shifts; and no added token may
 * reach over such a place. See am_tokenizer_extend. */
static bool lines_cut(const am_tokenizer *t) {
    for (size_t i = 0; i < t->n_norm; i++)
        if (t->norm[i].kind != AM_NORM_UNICODE) return false;
    for (size_t i = 0; i < t->n_added; i++) {
        const am_added *a = &t->added[i];
        if (a->lstrip || a->rstrip || a->single_word || memchr(a->content.p, '\n', a->content.n)) return false;
    }
    if (t->n_pre == 0) return false;
    for (size_t i = 0; i < t->n_pre; i++) {
        const am_pre *pre = &t->pre[i];
        if ((pre->kind != AM_PRE_SPLIT && pre->kind != AM_PRE_BYTES) || pre->prefix_space || pre->spell) return false;
    }
    return am_regex_cuts_lines(t->pre[0].regex);
}

/* The most bytes of text that one token can stand for; 0 when that is not known. Only where every byte becomes part of a token: a
 * byte-level vocabulary with all bytes, and no stage or added token that drops white space. Unicode's forms make of 4 bytes one at most. */
static size_t longest_token(const am_tokenizer *t) {
    size_t longest = 0, shrink = 1;
    if (t->kind != AM_MODEL_BPE || !t->bpe.byte_level) return 0;
    for (size_t b = 0; b < 256; b++)
        if (t->bpe.byte_id[b] < 0) return 0;
    for (size_t i = 0; i < t->n_norm; i++) {
        if (t->norm[i].kind != AM_NORM_UNICODE) return 0;
        shrink *= 4;
    }
    for (size_t i = 0; i < t->n_pre; i++)
        if ((t->pre[i].kind != AM_PRE_SPLIT && t->pre[i].kind != AM_PRE_BYTES) || t->pre[i].behavior == AM_REMOVED) return 0;
    for (size_t i = 0; i < t->n_added; i++) {
        if (t->added[i].lstrip || t->added[i].rstrip) return 0;
        if (t->added[i].content.n > longest) longest = t->added[i].content.n;
    }
    for (size_t id = 0; id < t->words.n; id++)
        if (t->words.at[id].len > longest) longest = t->words.at[id].len;
    return longest * shrink;
}

/* Unigram vocabularies may hold a text twice: what is special is so under all its ids. */
static void specials_spread(am_tokenizer *t) {
    for (size_t id = 0; t->kind == AM_MODEL_UNIGRAM && id < t->words.n; id++) {
        int32_t same = am_words_find(&t->words, am_words_get(&t->words, (int64_t)id));
        if (same >= 0) t->words.flags[id] |= t->words.flags[same] & (AM_WORD_SPECIAL | AM_WORD_MARK);
    }
}

/* Marks that are entries of the model too, and more than a character: text could be made into them without the matcher. */
static bool specials_spelled(const am_tokenizer *t) {
    for (size_t i = 0; i < t->n_added; i++) {
        uint8_t flags = t->words.flags[t->added[i].id];
        am_str s = am_words_get(&t->words, t->added[i].id);
        if ((flags & AM_WORD_MARK) && (flags & AM_WORD_FINDABLE) && s.n > am_utf8_size((uint8_t)s.p[0])) return true;
    }
    return false;
}

am_status am_tokenizer_seal(am_tokenizer *t, const am_str *source, size_t n_source, am_error *err) {
    am_status status = am_words_seal(&t->words, err);
    if (!status && t->kind == AM_MODEL_BPE) status = am_bpe_seal(t, err);
    if (!status && t->kind == AM_MODEL_UNIGRAM) status = am_unigram_seal(t, err);
    for (size_t i = 0; i < t->n_added && !status; i++) status = needle_make(t, &t->added[i], err);
    if (!status && t->n_added) qsort(t->added, t->n_added, sizeof *t->added, added_order);
    if (!status) status = am_matcher_build(t, false, &t->raw, err);
    if (!status) status = am_matcher_build(t, true, &t->normal, err);
    if (!status) specials_spread(t);
    t->join_spaces = t->n_dec == 0;
    if (!status) status = am_pieces_build(t, err);
    if (status) return status;
    t->cut_lines = lines_cut(t);
    t->spells_specials = specials_spelled(t);
    t->longest = longest_token(t);
    am_words_trim(&t->words);
    am_words_trim(&t->pieces);
    am_sum_state *sum = am_sum_begin();
    if (!sum) return am_fail(err, AM_ENOMEM, "no memory for the tokenizer");
    for (size_t i = 0; i < n_source; i++) {
        uint64_t n = source[i].n;
        am_sum_add(sum, &n, sizeof n);
        am_sum_add(sum, source[i].p, source[i].n);
    }
    am_sum digest = am_sum_end(sum);
    memcpy(t->fingerprint, digest.b, sizeof t->fingerprint);
    return AM_OK;
}

/* ---- encoding */

/* The part of the text being encoded, and what of the whole came from outside. */
typedef struct job {
    const am_tokenizer *t;
    am_scratch *s;
    const am_span *input;
    size_t n_input;
    bool ends;
    am_str text; /* the whole, with ends */
} job;

/* Notes where the last token's text ends, when ends are asked for. */
static am_status last_put(const job *j, const am_tokens *out, uint32_t end, am_error *err) {
    am_scratch *s = j->s;
    if (!j->ends || out->n == 0) return AM_OK;
    if (!am_grow(&s->last, &s->last_cap, s->n_last + 1, sizeof *s->last)) return am_fail(err, AM_ENOMEM, "no memory for tokens");
    s->last[s->n_last++] = (struct am_last){out->n - 1, end};
    return AM_OK;
}

/* Behind the character that a piece's last byte came from, when only white space follows before the next piece: that belongs to none.
 * Else (a character made of several, marks that were dropped) where the next piece begins. */
static uint32_t piece_end(const job *j, const am_view *piece) {
    am_str text = j->text;
    uint32_t end = am_view_at(piece, piece->n), from = am_view_at(piece, piece->n - 1), cp;
    if (from < text.n) from += ((uint8_t)text.p[from] & 0xC0) == 0x80 ? 1 : (uint32_t)am_utf8_size((uint8_t)text.p[from]);
    uint32_t i = from;
    while (i < end && am_utf8_get(text.p + i, &cp) && am_is_space(cp)) i += (uint32_t)am_utf8_size((uint8_t)text.p[i]);
    return i < end ? end : from;
}

static am_status ends_fill(const am_scratch *s, am_tokens *out, am_error *err) {
    size_t cap = 0;
    free(out->ends);
    out->ends = NULL;
    if (!am_grow(&out->ends, &cap, out->n + 1, sizeof *out->ends)) return am_fail(err, AM_ENOMEM, "no memory for tokens");
    memcpy(out->ends, out->offsets + 1, out->n * sizeof *out->ends);
    for (size_t i = 0; i < s->n_last; i++)
        if (s->last[i].end < out->ends[s->last[i].token]) out->ends[s->last[i].token] = s->last[i].end;
    return AM_OK;
}

static am_status pieces_encode(const job *j, am_view v, am_tokens *out, am_error *err) {
    const am_tokenizer *t = j->t;
    am_scratch *s = j->s;
    if (v.n == 0) return AM_OK;
    am_status status = am_pre_apply(t, s, &v, err);
    for (size_t i = 0; i < s->pieces.n && !status; i++) {
        am_view piece = am_view_slice(&v, s->pieces.v[i].begin, s->pieces.v[i].end);
        s->guarded = t->spells_specials && am_input_touches(j->input, j->n_input, am_view_at(&piece, 0), am_view_at(&piece, piece.n));
        switch (t->kind) {
        case AM_MODEL_BPE: status = am_bpe_encode(t, s, &piece, out, err); break;
        case AM_MODEL_UNIGRAM: status = am_unigram_encode(t, s, &piece, out, err); break;
        default: status = am_wordpiece_encode(t, s, &piece, out, err); break;
        }
        if (j->ends && !status) status = last_put(j, out, piece_end(j, &piece), err);
    }
    return status;
}

static am_status added_push(const job *j, am_tokens *out, int32_t id, uint32_t begin, uint32_t end, am_error *err) {
    am_status status = am_tokens_push(out, id, begin);
    return status ? am_tokens_fail(out, status, err) : last_put(j, out, end, err);
}

static am_status normalize(const job *j, am_view *v, am_error *err) {
    const am_tokenizer *t = j->t;
    am_status status = AM_OK;
    for (size_t i = 0; i < t->n_norm && !status; i++)
        if (v->n || t->norm[i].kind == AM_NORM_PREPEND) status = am_norm_apply(&t->norm[i], j->s, v, err);
    return status;
}

/* Normalised text, cut again at the added tokens that are looked for there. */
static am_status normal_encode(const job *j, am_view v, am_tokens *out, am_error *err) {
    const am_tokenizer *t = j->t;
    if (!t->normal.any) return pieces_encode(j, v, out, err);
    am_status status = AM_OK;
    size_t done = 0;
    am_match m = {0};
    am_mapped kept = {0}; /* pre-tokenizers write into the buffers that v may lie in */
    if (v.at && t->n_pre) {
        status = am_mapped_copy(&kept, &v, 0, v.n);
        if (!status) status = am_mapped_close(&kept, &v, &v);
        if (status) status = am_fail(err, status, "no memory to encode the text");
    }
    while (!status && am_matcher_next(t, &t->normal, &v, j->input, j->n_input, &m)) {
        status = pieces_encode(j, am_view_slice(&v, done, m.begin < done ? done : m.begin), out, err);
        if (!status) status = added_push(j, out, m.id, am_view_at(&v, m.begin), am_view_at(&v, m.end), err);
        done = m.end;
    }
    if (!status) status = pieces_encode(j, am_view_slice(&v, done, v.n), out, err);
    am_mapped_free(&kept);
    return status;
}

#define MARK "\xE2\x96\x81"

/* Adds a part of the text, normalised, and the symbol behind it as it is (but for its spaces), to what will be one text for the model. */
static am_status joined_put(const job *j, am_view part, am_view symbol, am_error *err) {
    am_mapped *m = &j->s->joined;
    am_status status = normalize(j, &part, err);
    if (status) return status;
    status = am_mapped_copy(m, &part, 0, part.n);
    for (size_t i = 0; i < symbol.n && !status; i++)
        status = symbol.p[i] == ' ' ? am_mapped_put(m, MARK, 3, am_view_at(&symbol, i)) : am_mapped_copy(m, &symbol, i, i + 1);
    return status ? am_fail(err, status, "no memory to encode the text") : AM_OK;
}

static am_status joined_encode(const job *j, am_view end, am_tokens *out, am_error *err) {
    am_mapped *m = &j->s->joined;
    while (j->t->joined_tidy && m->n >= 3 && memcmp(m->p + m->n - 3, MARK, 3) == 0) m->n -= 3;
    am_view v;
    if (am_mapped_close(m, &end, &v)) return am_fail(err, AM_ENOMEM, "no memory to encode the text");
    am_status status = normal_encode(j, v, out, err);
    m->n = 0;
    return status;
}

/* Text between two added tokens that cut it, behind what was joined before it. */
static am_status segment_encode(const job *j, am_view v, am_tokens *out, am_error *err) {
    if (j->s->joined_before) {
        am_status status = joined_put(j, v, (am_view){0}, err);
        return status ? status : joined_encode(j, am_view_slice(&v, v.n, v.n), out, err);
    }
    am_status status = normalize(j, &v, err);
    return status ? status : normal_encode(j, v, out, err);
}

/* Encodes text from byte `from` on, appending to out. */
static am_status text_encode(const job *j, am_str text, size_t from, am_tokens *out, am_error *err) {
    am_view v = {text.p, text.n, NULL, 0};
    am_status status = AM_OK;
    am_match m = {.end = from, .scan = from};
    size_t done = from;
    while (!status && am_matcher_next(j->t, &j->t->raw, &v, j->input, j->n_input, &m)) {
        j->s->joined_after = m.joined;
        am_view part = am_view_slice(&v, done, m.begin < done ? done : m.begin);
        if (m.joined) status = joined_put(j, part, am_view_slice(&v, m.begin, m.end), err);
        else {
            if (part.n || j->s->joined_before) status = segment_encode(j, part, out, err);
            if (!status) status = added_push(j, out, m.id, (uint32_t)m.begin, (uint32_t)m.end, err);
        }
        j->s->joined_before = m.joined;
        done = m.end;
    }
    j->s->joined_after = false;
    if (!status && (done < v.n || j->s->joined_before)) status = segment_encode(j, am_view_slice(&v, done, v.n), out, err);
    if (!status && !tokens_reserve(out, out->n + 1)) status = am_fail(err, AM_ENOMEM, "no memory for tokens");
    if (!status) out->offsets[out->n] = (uint32_t)text.n;
    return status;
}

static am_status request_check(am_str text, const am_span *input, size_t n_input, am_error *err) {
    if (text.n >= UINT32_MAX / 4) return am_fail(err, AM_ELIMIT, "a text of %zu bytes is too long to encode", text.n);
    size_t bad = am_utf8_check(text);
    if (bad < text.n) return am_fail(err, AM_EINVAL, "the text is not valid UTF-8 at byte %zu", bad);
    for (size_t i = 0; i < n_input; i++)
        if (input[i].begin > input[i].end || input[i].end > text.n || (i && input[i].begin < input[i - 1].end))
            return am_fail(err, AM_EINVAL, "input range %zu (%zu..%zu) is out of order or outside the text", i, input[i].begin, input[i].end);
    return AM_OK;
}

static am_status fixed_push(am_tokens *out, const int32_t *ids, size_t n, size_t at, am_error *err) {
    am_status status = AM_OK;
    for (size_t i = 0; i < n && !status; i++) status = am_tokens_push(out, ids[i], (uint32_t)at);
    return status ? am_tokens_fail(out, status, err) : AM_OK;
}

am_status am_tokenizer_encode(const am_tokenizer *t, am_str text, const am_span *input, size_t n_input, unsigned flags,
                              am_tokens *out, am_error *err) {
    out->n = 0;
    am_status status = request_check(text, input, n_input, err);
    if (status) return status;
    bool ends = flags & AM_ENCODE_BOS_EOS;
    am_scratch s = {0};
    job j = {t, &s, input, n_input, flags & AM_ENCODE_ENDS, text};
    if (ends) status = fixed_push(out, t->head, t->n_head, 0, err);
    if (!status) status = text_encode(&j, text, 0, out, err);
    if (!status && ends) {
        status = fixed_push(out, t->tail, t->n_tail, text.n, err);
        if (!status && !tokens_reserve(out, out->n + 1)) status = am_fail(err, AM_ENOMEM, "no memory for tokens");
        if (!status) out->offsets[out->n] = (uint32_t)text.n;
    }
    if (!status && j.ends) status = ends_fill(&s, out, err);
    am_scratch_free(&s);
    return status;
}

/* ---- the seam */

/* The last place, at most at `limit`, where the text may be encoded apart on both sides: behind an added token found in raw text, or,
 * with the known split patterns, between a newline and an ASCII letter outside any added token. 0 when there is none. */
static size_t seam_find(const job *j, am_str text, size_t limit) {
    am_view v = {text.p, text.n, NULL, 0};
    am_match m = {0};
    size_t seam = 0, plain_end = text.n;
    while (am_matcher_next(j->t, &j->t->raw, &v, j->input, j->n_input, &m)) {
        if (m.end > limit) {
            plain_end = m.begin;
            break;
        }
        /* not where the white space behind it might be part of another match, nor inside what SentencePiece reads as one text */
        if (m.scan == m.end && !m.joined) seam = m.end;
    }
    if (!j->t->cut_lines) return seam;
    for (size_t i = plain_end < limit ? plain_end : limit; i > seam + 1; i--)
        if (text.p[i - 1] == '\n' && i < text.n && (text.p[i] | 32) >= 'a' && (text.p[i] | 32) <= 'z') return i;
    return seam;
}

am_status am_tokenizer_extend(const am_tokenizer *t, const am_tokens *known, size_t n_same, am_str text, const am_span *input,
                              size_t n_input, am_tokens *out, am_error *err) {
    am_status status = request_check(text, input, n_input, err);
    if (status) return status;
    if (n_same > text.n) return am_fail(err, AM_EINVAL, "%zu bytes cannot be the same in a text of %zu", n_same, text.n);
    am_scratch s = {0};
    job j = {.t = t, .s = &s, .input = input, .n_input = n_input};
    /* how far a decision before the seam may have looked beyond it: a longer added token and one more character */
    size_t margin = t->raw.longest + 8, seam = n_same > margin ? seam_find(&j, text, n_same - margin) : 0;
    size_t low = 0, high = known->n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (known->offsets[mid] < seam) low = mid + 1;
        else high = mid;
    }
    if (low == known->n || known->offsets[low] != seam) low = seam = 0; /* not tokens of this text */
    if (out != known) {
        if (!tokens_reserve(out, low + 1)) return am_fail(err, AM_ENOMEM, "no memory for tokens");
        if (low) {
            memcpy(out->ids, known->ids, low * sizeof *out->ids);
            memcpy(out->offsets, known->offsets, low * sizeof *out->offsets);
        }
    }
    out->n = low;
    status = text_encode(&j, text, seam, out, err);
    am_scratch_free(&s);
    return status;
}

/* ---- questions */

size_t am_tokenizer_least(const am_tokenizer *t, size_t n_bytes) { return t->longest ? n_bytes / t->longest : 0; }

size_t am_tokenizer_n_vocab(const am_tokenizer *t) { return t->words.n; }
int32_t am_tokenizer_bos(const am_tokenizer *t) { return t->bos; }
int32_t am_tokenizer_eos(const am_tokenizer *t) { return t->eos; }

static bool has_flag(const am_tokenizer *t, int32_t id, uint8_t flag) {
    return id >= 0 && (size_t)id < t->words.n && (t->words.flags[id] & flag);
}
bool am_tokenizer_is_special(const am_tokenizer *t, int32_t id) { return has_flag(t, id, AM_WORD_SPECIAL); }
bool am_tokenizer_is_added(const am_tokenizer *t, int32_t id) { return has_flag(t, id, AM_WORD_ADDED); }

int32_t am_tokenizer_find(const am_tokenizer *t, am_str token) {
    for (size_t i = 0; i < t->n_added; i++)
        if (am_str_eq(t->added[i].content, token)) return t->added[i].id;
    return am_words_find(&t->words, token);
}

const am_added *am_added_of(const am_tokenizer *t, int32_t id) {
    return bsearch(&(am_added){.id = id}, t->added, t->n_added, sizeof *t->added, added_order);
}

am_str am_tokenizer_piece(const am_tokenizer *t, int32_t id) {
    if (has_flag(t, id, AM_WORD_ADDED)) return am_added_of(t, id)->content;
    return am_words_get(t->own_pieces ? &t->pieces : &t->words, id);
}

void am_tokenizer_fingerprint(const am_tokenizer *t, uint8_t out[16]) { memcpy(out, t->fingerprint, 16); }
