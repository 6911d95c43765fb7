/* Owns the format of a log line.
 *
 * Text:  2026-01-02T03:04:05.678Z INFO  agent_restored agent=alice tokens=4096 ms=3.1
 * JSON:  {"time":"2026-01-02T03:04:05.678Z","level":"info","event":"agent_restored","agent":"alice",...}
 *
 * A line is built in a bounded buffer on the stack and leaves in one write, so lines of several threads never mix and a
 * full pipe can only block the writer, never tear a line. Bytes that are not printable ASCII are escaped in both forms. */
#include "base/log.h"

#include "base/clock.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static _Atomic int log_threshold = AM_LOG_INFO;
static atomic_bool log_json;

static const char *const level_name[] = {"debug", "info", "warn", "error", "off"};
static const char *const level_label[] = {"DEBUG", "INFO ", "WARN ", "ERROR", "OFF  "};

void am_log_setup(am_log_level threshold, bool json) {
    atomic_store(&log_threshold, (int)threshold);
    atomic_store(&log_json, json);
}

am_log_level am_log_threshold(void) { return (am_log_level)atomic_load_explicit(&log_threshold, memory_order_relaxed); }

am_status am_log_level_parse(const char *name, am_log_level *level) {
    for (int i = 0; i <= AM_LOG_OFF; i++)
        if (strcmp(name, level_name[i]) == 0) {
            *level = (am_log_level)i;
            return AM_OK;
        }
    return AM_EINVAL;
}

typedef struct line {
    char p[4096];
    size_t n;
} line;

static void put(line *l, const char *s, size_t n) {
    size_t room = sizeof l->p - 2 - l->n; /* the newline and a closing brace always fit */
    if (n > room) n = room;
    memcpy(l->p + l->n, s, n);
    l->n += n;
}

static void put_text(line *l, const char *s) { put(l, s, strlen(s)); }

static void put_escaped(line *l, am_str s) {
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        char code[8];
        if (c == '"' || c == '\\') {
            snprintf(code, sizeof code, "\\%c", c);
        } else if (c < 0x20 || c >= 0x7f) {
            snprintf(code, sizeof code, "\\u%04x", c);
        } else {
            code[0] = (char)c;
            code[1] = 0;
        }
        put_text(l, code);
    }
}

static bool needs_quotes(am_str s) {
    if (s.n == 0) return true;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= ' ' || (unsigned char)s.p[i] >= 0x7f || strchr("\"\\=", s.p[i])) return true;
    return false;
}

static void put_value(line *l, const am_log_field *field, bool json) {
    char number[40];
    switch (field->kind) {
    case AM_LOG_STR:
        if (json || needs_quotes(field->s)) {
            put_text(l, "\"");
            put_escaped(l, field->s);
            put_text(l, "\"");
        } else {
            put(l, field->s.p, field->s.n);
        }
        return;
    case AM_LOG_INT: snprintf(number, sizeof number, "%lld", field->i); break;
    case AM_LOG_UINT: snprintf(number, sizeof number, "%llu", field->u); break;
    case AM_LOG_FLOAT: snprintf(number, sizeof number, json && !isfinite(field->f) ? "null" : "%.6g", field->f); break;
    }
    put_text(l, number);
}

static void put_time(line *l) {
    uint64_t now = am_wall_ns();
    time_t seconds = (time_t)(now / 1000000000u);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    char stamp[48];
    size_t n = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(stamp + n, sizeof stamp - n, ".%03uZ", (unsigned)(now / 1000000u % 1000u));
    put_text(l, stamp);
}

void am_log_write(am_log_level level, const char *event, const am_log_field *fields, size_t n_fields) {
    bool json = atomic_load_explicit(&log_json, memory_order_relaxed);
    line l = {.n = 0};
    put_text(&l, json ? "{\"time\":\"" : "");
    put_time(&l);
    put_text(&l, json ? "\",\"level\":\"" : " ");
    put_text(&l, json ? level_name[level] : level_label[level]);
    put_text(&l, json ? "\",\"event\":\"" : " ");
    put_text(&l, event);
    put_text(&l, json ? "\"" : "");
    for (size_t i = 0; i < n_fields; i++) {
        put_text(&l, json ? ",\"" : " ");
        put_text(&l, fields[i].name);
        put_text(&l, json ? "\":" : "=");
        put_value(&l, &fields[i], json);
    }
    if (json) l.p[l.n++] = '}';
    l.p[l.n++] = '\n';
    ssize_t written = write(STDERR_FILENO, l.p, l.n);
    (void)written; /* a log that cannot be written has nowhere to complain */
}
