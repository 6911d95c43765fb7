/* Lookup decoding: what may come next, read off places where the sequence has said the same before. The room's own.
 *
 * An am_lookup holds the tokens of one sequence (a prediction that the client sent, the prompt, what was generated) with an index of where each run of
 * four and of two tokens came before. It follows one place in them: where the next token would be copied from. Whether that guess is right
 * is counted for every token, drafted or not, by how long the agreement had been: so the odds of a draft are measured before one is made, and cost nothing.
 *
 * A guess never changes what is generated (DESIGN.md, "Drafts"). Everything is taken when the sequence is admitted: adding and drafting allocate
 * nothing, and take a bounded time a token. */
#ifndef AM_ENGINE_LOOKUP_H
#define AM_ENGINE_LOOKUP_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { AM_MAX_DRAFT = 31, AM_LOOKUP_CLASSES = 8 };

/* How often guesses were right, by the length of agreement before them; old ones fade. */
typedef struct am_lookup_odds {
    float right[AM_LOOKUP_CLASSES], seen[AM_LOOKUP_CLASSES];
} am_lookup_odds;
void am_lookup_odds_init(am_lookup_odds *odds); /* what is believed before anything was seen */

typedef struct am_lookup {
    int32_t *tokens;      /* [cap] */
    uint32_t n, cap;
    uint32_t *before[2];  /* [cap + 1] by position behind a run: the position behind the same run's hash before it; 0: none */
    uint32_t *last[2];    /* [mask + 1] by hash: the last such position; 0: none */
    uint32_t mask;
    uint32_t at;          /* the guess: the next token is tokens[at]; n: there is none */
    uint32_t n_agree;     /* tokens before `at` that agree with the last ones; counted up to a bound */
    uint32_t n_lost;      /* guesses in a row that were wrong while no other place was found */
    am_lookup_odds odds;  /* of this sequence */
} am_lookup;

/* Room for cap tokens. AM_ENOMEM. Zeroed: every function does nothing. */
am_status am_lookup_init(am_lookup *lookup, uint32_t cap, am_error *err);
void am_lookup_free(am_lookup *lookup);

/* Tokens that are there before the answer begins: a prediction (first, at most once), then the prompt. */
void am_lookup_fill(am_lookup *lookup, const int32_t *tokens, uint32_t n);
/* The answer begins; predicted: with what was filled in first, if the client is right. */
void am_lookup_begin(am_lookup *lookup, bool predicted);
/* The next token is known. Counts the guess, in the sequence's odds and in `all`, which sequences share; finds the next. */
void am_lookup_add(am_lookup *lookup, int32_t token, am_lookup_odds *all);
/* Up to `most` (<= AM_MAX_DRAFT) tokens that may follow; odds[i]: that draft[0] to draft[i] are all right. Returns how many. */
uint32_t am_lookup_draft(const am_lookup *lookup, const am_lookup_odds *all, uint32_t most, int32_t *draft, float *odds);

#endif
