/* One line per event, as text or JSON, to standard error: time, level, event name, then named fields.
 *
 *     am_log(AM_LOG_INFO, "agent_restored", AM_LS("agent", name), AM_LU("tokens", n), AM_LF("ms", ms));
 *
 * Thread-safe; each line is written with one write(2). Values are escaped; message content never goes in here. */
#ifndef AM_BASE_LOG_H
#define AM_BASE_LOG_H

#include "base/buf.h"

typedef enum am_log_level { AM_LOG_DEBUG, AM_LOG_INFO, AM_LOG_WARN, AM_LOG_ERROR, AM_LOG_OFF } am_log_level;

typedef struct am_log_field {
    const char *name;
    enum { AM_LOG_STR, AM_LOG_INT, AM_LOG_UINT, AM_LOG_FLOAT } kind;
    union {
        am_str s;
        long long i;
        unsigned long long u;
        double f;
    };
} am_log_field;

#define AM_LS(field, value) ((am_log_field){.name = (field), .kind = AM_LOG_STR, .s = am_str_of(value)})
#define AM_LV(field, view) ((am_log_field){.name = (field), .kind = AM_LOG_STR, .s = (view)})
#define AM_LI(field, value) ((am_log_field){.name = (field), .kind = AM_LOG_INT, .i = (long long)(value)})
#define AM_LU(field, value) ((am_log_field){.name = (field), .kind = AM_LOG_UINT, .u = (unsigned long long)(value)})
#define AM_LF(field, value) ((am_log_field){.name = (field), .kind = AM_LOG_FLOAT, .f = (double)(value)})

#define AM_LOG_FIELDS(...) ((const am_log_field[]){{0}, ##__VA_ARGS__})
#define am_log(level, event, ...)                                                                                      \
    ((level) >= am_log_threshold() ? am_log_write((level), (event), AM_LOG_FIELDS(__VA_ARGS__) + 1,                    \
                                                  sizeof AM_LOG_FIELDS(__VA_ARGS__) / sizeof(am_log_field) - 1)        \
                                   : (void)0)

void am_log_setup(am_log_level threshold, bool json);
am_log_level am_log_threshold(void);
am_status am_log_level_parse(const char *name, am_log_level *level); /* debug info warn error off */
void am_log_write(am_log_level level, const char *event, const am_log_field *fields, size_t n_fields);

#endif
