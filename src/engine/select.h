/* Work over a whole vocabulary of logits: the largest, sums, and the first of an order by count or by mass, without sorting. The room's own. */
#ifndef AM_ENGINE_SELECT_H
#define AM_ENGINE_SELECT_H

#include "base/buf.h"

/* Arrays that these functions write have room for am_select_room(n) elements. */
static inline size_t am_select_room(size_t n) { return (n + 63) / 64 * 64; }

/* Tokens that may still be drawn, by ascending id. */
typedef struct am_candidates {
    float *x;    /* [n] logits with bias and penalties, none of them NaN */
    float *w;    /* [n] probabilities up to a factor */
    int32_t *id; /* [n]; not filled in while all are there (token i is i) */
    uint32_t n;
    bool all;
} am_candidates;

/* Where an order is cut: elements with a larger key, and those with this key up to this index, are in. */
typedef struct am_cut {
    float key;
    uint32_t at;
} am_cut;

typedef struct am_select am_select; /* scratch; one thread at a time */
am_status am_select_create(uint32_t n_most, am_select **out, am_error *err);
void am_select_free(am_select *select);

void am_select_copy(float *dst, const float *src, uint32_t n); /* NaN becomes minus infinity */
float am_select_most(const float *x, uint32_t n);              /* NaN is passed over; nothing else: minus infinity */
uint32_t am_select_find(const float *x, uint32_t n, float value); /* the first that equals value; 0 when none does */
void am_select_subtract(float *x, uint32_t n, float value);
double am_select_sum(const float *w, uint32_t n);
double am_select_weigh(const float *x, const float *w, uint32_t n);  /* sum of w x, over w > 0 */
float am_select_least(const float *x, const float *w, uint32_t n);   /* where w > 0; nothing: infinity */
void am_select_distance(float *dst, const float *x, uint32_t n, float scale, float mean); /* -|scale x - mean| */

/* The shortest beginning of the order by descending key (ties: by index) whose weights reach mass; at least one element. w NULL: each weighs 1. No
 * element with a key below `floor` is needed, or all are. No key is NaN. */
am_cut am_select_cut(am_select *select, const float *key, const float *w, uint32_t n, double mass, float floor);
/* Keeps what is in. key may be x or w of the candidates themselves. */
void am_select_keep(am_candidates *c, const float *key, am_cut cut);
/* Index of the element in which the running sum of w passes target; the last with a weight when none does. */
uint32_t am_select_at(const float *w, uint32_t n, double target);

#endif
