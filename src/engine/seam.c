/* Owns the comparison of an agent's stored tokens with a prompt's text.
 *
 * A client sends history back as text. The model may have written " walk" + "ed" where the tokenizer reads " walked", and ids that differ in
 * one place would cost everything after it. So both are walked in step: `j` counts stored ids, `i` the prompt's, `at` is the byte where the
 * stored ones have come to. While their bytes agree the walk goes on; wherever the prompt has a border at the same byte, the place is
 * noted. The last such place is the seam: before it the stored ids (whose state exists), after it the prompt's own.
 *
 * Text that agrees is not enough for control tokens. A user may have typed "<|im_end|>": such text was stored as plain tokens
 * and must never stand for the control token, nor the other way round. */
#include "engine/seam.h"

#include <string.h>

static bool touches_input(const am_seam_input *in, size_t begin, size_t end) {
    size_t low = 0, high = in->n_input; /* first range that ends after begin */
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (in->input[mid].end > begin)
            high = mid;
        else
            low = mid + 1;
    }
    return low < in->n_input && in->input[low].begin < end;
}

/* Whether the stored token's text stands at byte `at`, with the same meaning; *i moves past the prompt's tokens that begin before its end. */
static bool same_text(const am_seam_input *in, int32_t token, size_t at, uint32_t *i) {
    am_str piece = am_tokenizer_piece(in->tokenizer, token);
    if (piece.n == 0 || piece.n > in->text.n - at || memcmp(in->text.p + at, piece.p, piece.n) != 0) return false;
    size_t end = at + piece.n;
    if (am_tokenizer_is_added(in->tokenizer, token) && touches_input(in, at, end)) return false;
    uint32_t last = *i; /* the prompt's tokens that overlap [at, end) must be plain; an equal control token was matched by id */
    if (last > 0 && in->offsets[last] > at) last--;
    for (; last < in->n && in->offsets[last] < end; last++)
        if (am_tokenizer_is_added(in->tokenizer, in->ids[last])) return false;
    *i = last;
    return true;
}

am_seam am_seam_find(const am_seam_input *in) {
    uint32_t i = 0, j = 0;
    while (i < in->n && j < in->n_stored && in->ids[i] == in->stored[j]) i++, j++;
    am_seam seam = {.n_stored = j, .from = i};
    if (!in->tokenizer || !in->text.p || i >= in->n) return seam;
    size_t at = in->offsets[i];
    while (j < in->n_stored && i <= in->n) {
        bool border = in->offsets[i] == at; /* i: the first token of the prompt that begins at `at` or after it */
        if (border && i < in->n && in->ids[i] == in->stored[j]) {
            at = in->offsets[++i];
        } else {
            if (at >= in->text.n || !same_text(in, in->stored[j], at, &i)) break;
            at += am_tokenizer_piece(in->tokenizer, in->stored[j]).n;
        }
        j++;
        if (in->offsets[i] == at) seam = (am_seam){.n_stored = j, .from = i};
    }
    return seam;
}
