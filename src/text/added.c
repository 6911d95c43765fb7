/* Owns added tokens: which are looked for in the raw text, which in normalised text, and the search itself, leftmost and longest,
 * with single_word, lstrip and rstrip as Hugging Face's added vocabulary has them.
 *
 * The rule that keeps control tokens ours lives here: a match none of whose bytes came from outside counts, any other only when its token
 * is plain text; and a shorter one at the same place may still be. Many vocabularies add runs of spaces or newlines that way, and
 * code that a user sends has to meet them. Those that are written like marks (<think>, [INST], <|x|>) count as control, special or not. */
#include "text/tokenizer_int.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

/* As the library numbers them: an entry of the model keeps its id; the file's own id counts where it is free. */
static uint64_t id_for(const am_tokenizer *t, const am_added *token, uint64_t wanted) {
    char raw[1024];
    am_str spelled = token->content;
    bool sayable = true;
    if (t->bpe.byte_level) { /* the vocabulary is kept as bytes */
        size_t n = 0, i = 0;
        for (uint32_t cp; i < spelled.n; raw[n++] = (char)am_char_byte(cp)) {
            size_t k = am_utf8_next(spelled.p + i, spelled.n - i, &cp);
            if (k == 0 || am_char_byte(cp) < 0 || n == sizeof raw) break;
            i += k;
        }
        sayable = i == spelled.n;
        spelled = (am_str){raw, n};
    }
    int32_t known = sayable ? am_words_find(&t->words, spelled) : -1;
    if (known >= 0) return (uint64_t)known;
    for (size_t i = 0; i < t->n_added; i++)
        if (am_str_eq(t->added[i].content, token->content)) return (uint64_t)t->added[i].id;
    bool taken = wanted < t->words.n && (t->words.flags[wanted] & AM_WORD_PRESENT);
    if (taken && am_str_eq(am_words_get(&t->words, (int64_t)wanted), token->content)) return wanted;
    return taken || wanted == UINT64_MAX ? t->words.n : wanted;
}

am_status am_added_put(am_tokenizer *t, const am_added *token, uint64_t wanted, am_error *err) {
    if (token->content.n == 0) return AM_OK;
    uint64_t id = id_for(t, token, wanted);
    if (id > INT32_MAX) return am_fail(err, AM_EFORMAT, "token id %llu is out of range", (unsigned long long)id);
    return am_added_put_at(t, token, (int32_t)id, err);
}

am_status am_added_put_at(am_tokenizer *t, const am_added *token, int32_t at, am_error *err) {
    uint32_t id = (uint32_t)at;
    if (id >= t->words.n || !(t->words.flags[id] & AM_WORD_PRESENT)) {
        am_status status = am_words_add_hidden(&t->words, id, token->content, err); /* the model itself does not know it */
        if (status) return status;
    }
    size_t i = t->words.flags[id] & AM_WORD_ADDED ? 0 : t->n_added;
    while (i < t->n_added && t->added[i].id != (int32_t)id) i++;
    if (i == t->n_added) {
        if (!am_grow(&t->added, &t->added_cap, t->n_added + 1, sizeof *t->added)) return am_fail(err, AM_ENOMEM, "no memory for added tokens");
        t->added[i] = (am_added){.content = am_str_own(token->content)};
        if (!t->added[i].content.p) return am_fail(err, AM_ENOMEM, "no memory for added tokens");
        t->n_added++;
    }
    am_added kept = *token;
    kept.special |= (t->words.flags[id] & AM_WORD_SPECIAL) != 0; /* once and for all */
    kept.joined = (kept.joined || t->added[i].joined) && !kept.special;
    kept.content = t->added[i].content;
    kept.needle = kept.content;
    kept.id = (int32_t)id;
    kept.plain = !kept.special;
    for (size_t k = 0; k < kept.content.n; k++) kept.plain &= !strchr("<>[]{}|", kept.content.p[k]);
    t->added[i] = kept;
    t->words.flags[id] |= AM_WORD_ADDED;
    if (kept.special) t->words.flags[id] |= AM_WORD_SPECIAL;
    if (!kept.plain) t->words.flags[id] |= AM_WORD_MARK;
    return AM_OK;
}

/* In normalised text SentencePiece's BPE cuts at its symbols; Unigram's paths decide about them. */
static bool joined_sought(const am_tokenizer *t, bool normalized) { return !normalized || t->kind == AM_MODEL_BPE; }

am_status am_matcher_build(am_tokenizer *t, bool normalized, am_matcher *m, am_error *err) {
    am_trie_entry *entries = am_calloc(t->n_added, sizeof *entries);
    if (!entries) return am_fail(err, AM_ENOMEM, "no memory for added tokens");
    size_t n = 0;
    for (size_t i = 0; i < t->n_added; i++) {
        const am_added *a = &t->added[i];
        if (a->needle.n == 0 || (a->joined ? !joined_sought(t, normalized) : a->normalized != normalized)) continue;
        entries[n++] = (am_trie_entry){a->needle, (int32_t)i};
        m->first[(uint8_t)a->needle.p[0]] = true;
        if (a->needle.n > m->longest) m->longest = a->needle.n;
    }
    m->any = n > 0;
    am_status status = am_trie_build(&m->trie, entries, n, err);
    free(entries);
    return status;
}

bool am_input_touches(const am_span *input, size_t n, size_t b, size_t e) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (input[mid].end <= b) low = mid + 1;
        else high = mid;
    }
    return low < n && input[low].begin < e && input[low].begin < input[low].end;
}

static bool word_before(am_str text, size_t i) {
    if (i == 0) return false;
    size_t b = i - 1;
    while (b > 0 && ((uint8_t)text.p[b] & 0xC0) == 0x80) b--;
    uint32_t cp;
    return am_utf8_get(text.p + b, &cp) && am_is_word(cp);
}

static bool word_after(am_str text, size_t i) {
    uint32_t cp;
    return i < text.n && am_utf8_get(text.p + i, &cp) && am_is_word(cp);
}

static size_t spaces_before(am_str text, size_t i, size_t from) {
    while (i > from) {
        size_t b = i - 1;
        while (b > from && ((uint8_t)text.p[b] & 0xC0) == 0x80) b--;
        uint32_t cp;
        if (!am_utf8_get(text.p + b, &cp) || !am_is_space(cp)) break;
        i = b;
    }
    return i;
}

static size_t spaces_after(am_str text, size_t i) {
    for (uint32_t cp; i < text.n;) {
        size_t k = am_utf8_get(text.p + i, &cp);
        if (!am_is_space(cp)) break;
        i += k;
    }
    return i;
}

/* The longest needle at i that touches no input, or is plain; its index or -1. */
static int32_t longest_at(const am_tokenizer *t, const am_matcher *m, const am_view *v, size_t i, const am_span *input, size_t n_input, size_t *end) {
    int32_t best = -1;
    uint32_t node = 0;
    size_t clear = SIZE_MAX; /* from where on a match would touch input */
    for (size_t k = i; k < v->n; k++) {
        node = am_trie_step(&m->trie, node, (uint8_t)v->p[k]);
        if (node == 0) break;
        if (m->trie.value[node] < 0) continue;
        if (n_input && clear == SIZE_MAX && am_input_touches(input, n_input, am_view_at(v, i), am_view_at(v, k + 1))) clear = k;
        if (k >= clear && !t->added[m->trie.value[node]].plain) continue;
        best = m->trie.value[node];
        *end = k + 1;
    }
    return best;
}

bool am_matcher_next(const am_tokenizer *t, const am_matcher *m, const am_view *v, const am_span *input, size_t n_input, am_match *out) {
    size_t from = out->scan, done = out->end;
    if (!m->any) return false;
    am_str text = {v->p, v->n};
    for (size_t i = from; i < v->n;) {
        if (!m->first[(uint8_t)v->p[i]]) {
            i++;
            continue;
        }
        size_t end = i;
        int32_t index = longest_at(t, m, v, i, input, n_input, &end);
        if (index < 0) {
            i++;
            continue;
        }
        const am_added *a = &t->added[index];
        if (a->single_word && (word_before(text, i) || word_after(text, end))) {
            i = end;
            continue;
        }
        out->begin = a->lstrip ? spaces_before(text, i, 0) : i;
        out->begin = a->lstrip && out->begin < done ? done : out->begin;
        out->end = a->rstrip ? spaces_after(text, end) : end;
        out->scan = end;
        if (out->begin >= out->end) { /* the match before took all of it */
            done = out->end;
            i = end;
            continue;
        }
        out->id = a->id;
        out->joined = a->joined;
        return true;
    }
    return false;
}
