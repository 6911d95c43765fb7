/* Owns the model of what a pass costs: a level times a piecewise linear shape, both moved by each pass towards what it took.
 *
 * A pass alone that took long says nothing of the next one (the machine was away), two in a row do: of what the last three passes were off by the middle
 * one is believed. */
#include "engine/pace.h"

#include <stdbool.h>

static const uint32_t knot[AM_PACE_KNOTS] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256};
static const double first_slope = 0.15; /* what a row more is believed to cost before more than one was seen */
static const double level_gain = 0.3, shape_gain = 0.1, most_off = 2;

/* The knot at or below n_rows, and how far n_rows is on the way to the next. */
static uint32_t place(uint32_t n_rows, double *part) {
    uint32_t i = 0;
    while (i + 2 < AM_PACE_KNOTS && knot[i + 1] <= n_rows) i++;
    *part = ((double)n_rows - knot[i]) / (knot[i + 1] - knot[i]);
    return i;
}

static double shape_at(const am_pace *p, uint32_t n_rows) {
    double part;
    uint32_t i = place(n_rows, &part);
    return p->shape[i] + part * (p->shape[i + 1] - p->shape[i]);
}

/* Knots that were never seen lie on the line through their neighbours, and behind the last that was seen on the line it ends. */
static void fill_gaps(am_pace *p) {
    uint32_t last = 0;
    double slope = first_slope;
    for (uint32_t i = 1; i < AM_PACE_KNOTS; i++) {
        if (!p->n_seen[i]) continue;
        slope = (p->shape[i] - p->shape[last]) / (knot[i] - knot[last]);
        if (slope < 0) slope = 0;
        for (uint32_t j = last + 1; j < i; j++) p->shape[j] = p->shape[last] + slope * (knot[j] - knot[last]);
        last = i;
    }
    for (uint32_t j = last + 1; j < AM_PACE_KNOTS; j++) p->shape[j] = p->shape[last] + slope * (knot[j] - knot[last]);
}

static void move_knot(am_pace *p, uint32_t i, double off) {
    if (i == 0) return;
    double gain = 1.0 / ++p->n_seen[i];
    p->shape[i] += (gain > shape_gain ? gain : shape_gain) * off;
    if (p->shape[i] < 1e-3) p->shape[i] = 1e-3;
}

static double middle(double a, double b, double c) {
    double low = a < b ? a : b, high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

/* What a pass of a number of rows that was seen before counts as. */
static double believed(am_pace *p, double off) {
    double usual = middle(p->off[0], p->off[1], off);
    p->off[0] = p->off[1];
    p->off[1] = off;
    return usual < most_off ? usual : most_off;
}

void am_pace_saw(am_pace *p, uint32_t n_rows, double ns) {
    double part;
    uint32_t i = place(n_rows, &part), near = part > 0.5 ? i + 1 : i;
    if (p->level == 0) {
        p->shape[0] = 1;
        fill_gaps(p);
        p->level = ns / shape_at(p, n_rows);
        p->off[0] = p->off[1] = 1;
        p->n_seen[near]++;
        return;
    }
    double expected = p->level * shape_at(p, n_rows);
    bool known = near == 0 || p->n_seen[near] > 0;
    if (known) ns = believed(p, ns / expected) * expected;
    if (known) p->level += level_gain * (ns - expected) / shape_at(p, n_rows);
    double off = ns / p->level - shape_at(p, n_rows);
    move_knot(p, i, off * (1 - part));
    if (part > 0) move_knot(p, i + 1, off * part);
    fill_gaps(p);
}

double am_pace_ns(const am_pace *p, uint32_t n_rows) { return p->level == 0 ? 0 : p->level * shape_at(p, n_rows); }
