/* Owns the texts of the status codes and the one way an am_error is filled. Messages longer than the array are cut. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *am_status_text(am_status code) {
    static const char *const text[AM_N_STATUS] = {
#define AM_STATUS_TEXT(code, text) [code] = text,
        AM_STATUS_LIST(AM_STATUS_TEXT)
#undef AM_STATUS_TEXT
    };
    return (unsigned)code < AM_N_STATUS ? text[code] : "unknown status";
}

am_status am_fail(am_error *err, am_status code, const char *format, ...) {
    if (!err) return code;
    va_list args;
    va_start(args, format);
    err->code = code;
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return code;
}

am_status am_error_prefix(am_error *err, const char *format, ...) {
    if (!err) return AM_OK;
    char rest[sizeof err->message];
    memcpy(rest, err->message, sizeof rest);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    size_t at = n < 0 ? 0 : (size_t)n < sizeof rest - 3 ? (size_t)n : sizeof rest - 3;
    memcpy(err->message + at, ": ", 2);
    memcpy(err->message + at + 2, rest, sizeof rest - at - 2);
    err->message[sizeof rest - 1] = 0;
    return err->code;
}
