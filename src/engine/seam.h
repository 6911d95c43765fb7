/* The text-level seam: history that tokenises differently from what the model itself wrote still matches the agent's stored tokens. */
#ifndef AM_ENGINE_SEAM_H
#define AM_ENGINE_SEAM_H

#include "text/tokenizer.h"

typedef struct am_seam_input {
    const am_tokenizer *tokenizer;
    const int32_t *stored; /* the agent's token ids */
    uint32_t n_stored;
    const int32_t *ids;        /* [n] the prompt's ids */
    const uint32_t *offsets;   /* [n + 1] where each begins in text */
    uint32_t n;
    am_str text;
    const am_span *input; /* ranges of text that came from outside, ascending and disjoint */
    size_t n_input;
} am_seam_input;

typedef struct am_seam {
    uint32_t n_stored; /* take so many of the stored ids ... */
    uint32_t from;     /* ... then the prompt's own from this index */
} am_seam;

/* The furthest place where stored ids and prompt have a token border at the same byte with equal text before it. Stored control tokens match
 * only the same control token of the prompt, or text that no input range touches; a control token of the prompt matches nothing but
 * itself. */
am_seam am_seam_find(const am_seam_input *in);

#endif
