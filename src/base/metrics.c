/* Owns adding to metrics and their text (Prometheus exposition format 0.0.4: # HELP, # TYPE, then name{label="value"} number).
 *
 * Relaxed atomics: each number is right by itself; two numbers of one scrape may be a moment apart, which scraping is anyway. A histogram's
 * buckets are kept one by one and added up when written, so that an observation is two additions and +Inf equals the count. */
#include "base/metrics.h"

#include <stdio.h>

static const double bounds[AM_METRIC_N_BOUNDS] = {AM_METRIC_BOUNDS};

static size_t cell_at(const am_metric *m, uint32_t series) {
    uint32_t n = m->label ? m->n_values : 1;
    if (series >= n) series = n - 1;
    return (m->cells ? 0 : m->at) + (size_t)series * (m->kind == AM_METRIC_HISTOGRAM ? AM_METRIC_HISTOGRAM_CELLS : 1);
}

void am_metric_add_in(const am_metric *m, _Atomic uint64_t *block, uint32_t series, uint64_t n) {
    atomic_fetch_add_explicit(&block[cell_at(m, series)], n, memory_order_relaxed);
}

void am_metric_add(am_metric *metric, uint32_t series, uint64_t n) { am_metric_add_in(metric, metric->cells, series, n); }

void am_metric_set(am_metric *metric, uint32_t series, uint64_t value) {
    atomic_store_explicit(&metric->cells[cell_at(metric, series)], value, memory_order_relaxed);
}

void am_metric_observe_in(const am_metric *m, _Atomic uint64_t *block, uint32_t series, uint64_t ns) {
    _Atomic uint64_t *cells = &block[cell_at(m, series)];
    double seconds = (double)ns / 1e9;
    size_t i = 0;
    while (i < AM_METRIC_N_BOUNDS && seconds > bounds[i]) i++;
    atomic_fetch_add_explicit(&cells[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&cells[AM_METRIC_N_BOUNDS + 1], ns, memory_order_relaxed);
}

void am_metric_observe(am_metric *metric, uint32_t series, uint64_t ns) { am_metric_observe_in(metric, metric->cells, series, ns); }

static uint64_t load(const _Atomic uint64_t *cell) { return atomic_load_explicit(cell, memory_order_relaxed); }

uint64_t am_metric_value_in(const am_metric *m, const _Atomic uint64_t *block, uint32_t series) {
    const _Atomic uint64_t *cells = &block[cell_at(m, series)];
    uint64_t n = load(cells);
    for (size_t i = 1; m->kind == AM_METRIC_HISTOGRAM && i <= AM_METRIC_N_BOUNDS; i++) n += load(&cells[i]);
    return n;
}

uint64_t am_metric_value(const am_metric *metric, uint32_t series) { return am_metric_value_in(metric, metric->cells, series); }

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

am_status am_metric_write_line(const char *name, const am_metric_label *labels, size_t n_labels, double number, am_buf *out) {
    bool any = false;
    am_buf_add(out, am_str_of(name));
    for (size_t i = 0; i < n_labels; i++) {
        if (!labels[i].name) continue;
        am_buf_printf(out, "%c%s=\"", any ? ',' : '{', labels[i].name);
        write_value(labels[i].value, out);
        am_buf_putc(out, '"');
        any = true;
    }
    return am_buf_printf(out, "%s %.15g\n", any ? "}" : "", number);
}

/* labels: the owner's, the metric's own, and a place for le. */
static am_status write_histogram(const am_metric *m, const _Atomic uint64_t *cells, am_metric_label labels[3], am_buf *out) {
    char name[128], le[32];
    uint64_t n = 0;
    snprintf(name, sizeof name, "%s_bucket", m->name);
    for (size_t i = 0; i <= AM_METRIC_N_BOUNDS; i++) {
        n += load(&cells[i]);
        if (i < AM_METRIC_N_BOUNDS) snprintf(le, sizeof le, "%g", bounds[i]);
        else snprintf(le, sizeof le, "+Inf");
        labels[2] = (am_metric_label){"le", le};
        am_metric_write_line(name, labels, 3, (double)n, out);
    }
    snprintf(name, sizeof name, "%s_sum", m->name);
    am_metric_write_line(name, labels, 2, (double)load(&cells[AM_METRIC_N_BOUNDS + 1]) / 1e9, out);
    snprintf(name, sizeof name, "%s_count", m->name);
    return am_metric_write_line(name, labels, 2, (double)n, out);
}

am_status am_metric_write_block(const am_metric *m, const _Atomic uint64_t *block, am_metric_label owner, am_buf *out) {
    am_status status = AM_OK;
    uint32_t n = m->label ? m->n_values : 1;
    for (uint32_t i = 0; i < n && !status; i++) {
        am_metric_label labels[3] = {owner, {m->label, m->label ? m->values[i] : ""}};
        if (m->kind == AM_METRIC_HISTOGRAM) status = write_histogram(m, &block[cell_at(m, i)], labels, out);
        else status = am_metric_write_line(m->name, labels, 2, (double)am_metric_value_in(m, block, i), out);
    }
    return status;
}

am_status am_metric_write(const am_metric *metric, am_buf *out) {
    am_status status = am_metric_write_head(metric->name, metric->help, metric->kind, out);
    return status ? status : am_metric_write_block(metric, metric->cells, (am_metric_label){0}, out);
}
