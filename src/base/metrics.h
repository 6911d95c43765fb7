/* Numbers for the operator: counters, gauges and histograms that any thread adds to without a lock, and their text as Prometheus reads it.
 *
 *     static const char *const results[] = {"ok", "failed"};
 *     static _Atomic uint64_t cells[2];
 *     am_metric am_metric_loads = {.name = "agent_memory_loads_total", .help = "...", .kind = AM_METRIC_COUNTER, .label = "result",
 *                                  .values = results, .n_values = 2, .cells = cells};
 *     am_metric_add(&am_metric_loads, 1, 1);
 *
 * A metric is static, has at most one label, and the label's values are known when it is written: no name that a client chose can become a
 * series. Whoever shows them (the server) lists them; there is no registry.
 *
 * Where a process has several things of a kind that count the same (a model's engine each), a metric has no cells of its own: each of them has a block
 * of cells for all its metrics, and the one who shows them says whose block it is, as a label in front of the metric's own. */
#ifndef AM_BASE_METRICS_H
#define AM_BASE_METRICS_H

#include "base/buf.h"

#include <stdatomic.h>

typedef enum am_metric_kind { AM_METRIC_COUNTER, AM_METRIC_GAUGE, AM_METRIC_HISTOGRAM } am_metric_kind;

/* Upper bounds of the buckets, in seconds. */
#define AM_METRIC_BOUNDS 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300
enum { AM_METRIC_N_BOUNDS = 16, AM_METRIC_HISTOGRAM_CELLS = AM_METRIC_N_BOUNDS + 2 };

typedef struct am_metric {
    const char *name, *help;
    am_metric_kind kind;
    const char *label;         /* NULL: one series */
    const char *const *values; /* of the label */
    uint32_t n_values;
    _Atomic uint64_t *cells;   /* one a series; histograms AM_METRIC_HISTOGRAM_CELLS: buckets, those above all bounds, then the sum in ns */
    size_t at;                 /* cells NULL: where its cells begin in the block of whoever counts */
} am_metric;

void am_metric_add(am_metric *metric, uint32_t series, uint64_t n);
void am_metric_set(am_metric *metric, uint32_t series, uint64_t value);
void am_metric_observe(am_metric *metric, uint32_t series, uint64_t ns); /* histograms: a duration */
uint64_t am_metric_value(const am_metric *metric, uint32_t series);      /* histograms: how many were observed */
/* The same for metrics without cells of their own. */
void am_metric_add_in(const am_metric *metric, _Atomic uint64_t *block, uint32_t series, uint64_t n);
void am_metric_observe_in(const am_metric *metric, _Atomic uint64_t *block, uint32_t series, uint64_t ns);
uint64_t am_metric_value_in(const am_metric *metric, const _Atomic uint64_t *block, uint32_t series);

typedef struct am_metric_label {
    const char *name, *value; /* the value is escaped when it is written */
} am_metric_label;

/* Appends HELP, TYPE and every series. */
am_status am_metric_write(const am_metric *metric, am_buf *out);
/* The two comment lines, for those whose values are not kept here. */
am_status am_metric_write_head(const char *name, const char *help, am_metric_kind kind, am_buf *out);
/* The series of one block, with its owner's label in front; the head was written. */
am_status am_metric_write_block(const am_metric *metric, const _Atomic uint64_t *block, am_metric_label owner, am_buf *out);
/* name{label="value",...} number; labels whose name is NULL are left out. */
am_status am_metric_write_line(const char *name, const am_metric_label *labels, size_t n_labels, double number, am_buf *out);

#endif
