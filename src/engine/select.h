/* Work over a whole vocabulary of logits: the largest, sums, and the first of an order by count or by mass, without sorting. The room's own.
 *
 * Elements are looked at in runs of AM_SELECT_RUN. Arrays that these functions write have room for whole runs (am_select_room), and what is behind the last
 * element of `x` is minus infinity. The largest of each run, its peak, says which runs need no look. */
#ifndef AM_ENGINE_SELECT_H
#define AM_ENGINE_SELECT_H

#include "base/buf.h"

enum { AM_SELECT_RUN = 64 };
static inline uint32_t am_select_runs(uint32_t n) { return (n + AM_SELECT_RUN - 1) / AM_SELECT_RUN; }
static inline size_t am_select_room(uint32_t n) { return (size_t)am_select_runs(n) * AM_SELECT_RUN; }

/* Tokens that may still be drawn, by ascending id. */
typedef struct am_candidates {
    float *x;    /* [n] logits with bias and penalties, none of them NaN */
    float *w;    /* [n] probabilities up to a factor */
    int32_t *id; /* [n]; not filled in while all are there (token i is i) */
    float *peak; /* [runs] of x */
    uint32_t n;
    bool all;
} am_candidates;

/* Keys in descending order, equal ones by index. No key is NaN. */
typedef struct am_order {
    const float *key;
    const float *w;    /* what each weighs; NULL: 1 */
    const float *peak; /* [runs] of key */
    uint32_t n;
} am_order;

/* Where an order is cut: elements with a larger key, and those with this key up to this index, are in. */
typedef struct am_cut {
    float key;
    uint32_t at;
} am_cut;

typedef struct am_select am_select; /* scratch; one thread at a time */
am_status am_select_create(uint32_t n_most, am_select **out, am_error *err);
void am_select_free(am_select *select);

float am_select_most(const float *x, uint32_t n);                 /* NaN is passed over; nothing else: minus infinity */
uint32_t am_select_find(const float *x, uint32_t n, float value); /* the first that equals value; 0 when none does */
double am_select_sum(const float *w, uint32_t n);
double am_select_weigh(const float *x, const float *w, uint32_t n); /* sum of w x, over w > 0 */
/* Index of the element in which the running sum of w passes target; the last with a weight when none does. */
uint32_t am_select_at(const float *w, uint32_t n, double target);

/* All n candidates: x is src with minus infinity for NaN. */
void am_select_all(am_candidates *c, const float *src, uint32_t n);
void am_select_peak(am_candidates *c, uint32_t run); /* x of that run was changed */
void am_select_center(am_candidates *c, float value); /* takes value off x, and makes w a copy of it */
/* key = -|scale x - mean|, with its peaks. Returns the least where w > 0; nothing: infinity. */
float am_select_distance(const am_candidates *c, float scale, float mean, float *key, float *peak);

/* The shortest beginning of the order whose weights reach mass; at least one element. No element with a key below `floor` is needed, or all are. */
am_cut am_select_cut(am_select *select, const am_order *order, double mass, float floor);
/* The same where each weighs 1, without a floor known. */
am_cut am_select_first(am_select *select, const am_order *order, uint32_t count);
/* Keeps what is in. key, with its peaks, may be what the candidates have themselves; peak NULL: not known. */
void am_select_keep(am_candidates *c, const float *key, const float *peak, am_cut cut);

#endif
