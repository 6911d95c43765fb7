/* Owns adding to metrics and their text (Prometheus exposition format 0.0.4: # HELP, # TYPE, then name{label="value"} number).
 *
 * Relaxed atomics: each number is right by itself; two numbers of one scrape may be a moment apart, which scraping is anyway. A histogram's
 * buckets are kept one by one and added up when written, so that an observation is two additions and +Inf equals the count. */
#include "base/metrics.h"

#include <stdio.h>

static const double bounds[AM_METRIC_N_BOUNDS] = {AM_METRIC_BOUNDS};

static _Atomic uint64_t *cell_of(const am_metric *m, uint32_t series) {
    uint32_t n = m->label ? m->n_values : 1;
    if (series >= n) series = n - 1;
    return &m->cells[(size_t)series * (m->kind == AM_METRIC_HISTOGRAM ? AM_METRIC_HISTOGRAM_CELLS : 1)];
}

void am_metric_add(am_metric *metric, uint32_t series, uint64_t n) {
    atomic_fetch_add_explicit(cell_of(metric, series), n, memory_order_relaxed);
}

void am_metric_set(am_metric *metric, uint32_t series, uint64_t value) {
    atomic_store_explicit(cell_of(metric, series), value, memory_order_relaxed);
}

void am_metric_observe(am_metric *metric, uint32_t series, uint64_t ns) {
    _Atomic uint64_t *cells = cell_of(metric, series);
    double seconds = (double)ns / 1e9;
    size_t i = 0;
    while (i < AM_METRIC_N_BOUNDS && seconds > bounds[i]) i++;
    atomic_fetch_add_explicit(&cells[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&cells[AM_METRIC_N_BOUNDS + 1], ns, memory_order_relaxed);
}

static uint64_t load(const _Atomic uint64_t *cell) { return atomic_load_explicit(cell, memory_order_relaxed); }

uint64_t am_metric_value(const am_metric *metric, uint32_t series) {
    const _Atomic uint64_t *cells = cell_of(metric, series);
    uint64_t n = load(cells);
    for (size_t i = 1; metric->kind == AM_METRIC_HISTOGRAM && i <= AM_METRIC_N_BOUNDS; i++) n += load(&cells[i]);
    return n;
}

am_status am_metric_write_head(const char *name, const char *help, am_metric_kind kind, am_buf *out) {
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    return am_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kinds[kind]);
}

static void write_value(const char *value, am_buf *out) {
    for (; *value; value++) {
        if (*value == '\n') am_buf_add(out, AM_STR("\\n"));
        else if (*value == '"' || *value == '\\') am_buf_printf(out, "\\%c", *value);
        else am_buf_putc(out, *value);
    }
}

am_status am_metric_write_line(const char *name, const char *label, const char *value, double number, am_buf *out) {
    am_buf_add(out, am_str_of(name));
    if (label) {
        am_buf_printf(out, "{%s=\"", label);
        write_value(value, out);
        am_buf_add(out, AM_STR("\"}"));
    }
    return am_buf_printf(out, " %.15g\n", number);
}

static void write_histogram(const am_metric *m, uint32_t series, am_buf *out) {
    const _Atomic uint64_t *cells = cell_of(m, series);
    const char *value = m->label ? m->values[series] : NULL;
    uint64_t n = 0;
    for (size_t i = 0; i <= AM_METRIC_N_BOUNDS; i++) {
        n += load(&cells[i]);
        am_buf_printf(out, "%s_bucket{", m->name);
        if (m->label) {
            am_buf_printf(out, "%s=\"", m->label);
            write_value(value, out);
            am_buf_add(out, AM_STR("\","));
        }
        if (i < AM_METRIC_N_BOUNDS) am_buf_printf(out, "le=\"%g\"} %llu\n", bounds[i], (unsigned long long)n);
        else am_buf_printf(out, "le=\"+Inf\"} %llu\n", (unsigned long long)n);
    }
    char name[128];
    snprintf(name, sizeof name, "%s_sum", m->name);
    am_metric_write_line(name, m->label, value, (double)load(&cells[AM_METRIC_N_BOUNDS + 1]) / 1e9, out);
    snprintf(name, sizeof name, "%s_count", m->name);
    am_metric_write_line(name, m->label, value, (double)n, out);
}

am_status am_metric_write(const am_metric *metric, am_buf *out) {
    am_status status = am_metric_write_head(metric->name, metric->help, metric->kind, out);
    uint32_t n = metric->label ? metric->n_values : 1;
    for (uint32_t i = 0; i < n && !status; i++) {
        if (metric->kind == AM_METRIC_HISTOGRAM) write_histogram(metric, i, out);
        else status = am_metric_write_line(metric->name, metric->label, metric->label ? metric->values[i] : NULL, (double)am_metric_value(metric, i), out);
    }
    return status;
}
