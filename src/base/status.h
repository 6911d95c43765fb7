/* Status codes and the human-readable reason that goes with them.
 *
 * Every fallible function returns am_status. Where a person must read why, an `am_error *` comes last: it is set once,
 * where the reason is known, and passed up untouched. `err` may be NULL. AM_AGAIN is a value, not a failure. */
#ifndef AM_BASE_STATUS_H
#define AM_BASE_STATUS_H

#define AM_STATUS_LIST(X)                                                                                              \
    X(AM_OK, "ok")                                                                                                     \
    X(AM_AGAIN, "not ready, come back later")                                                                          \
    X(AM_EINVAL, "invalid argument or request")                                                                        \
    X(AM_ENOMEM, "out of memory")                                                                                      \
    X(AM_EIO, "input or output failed")                                                                                \
    X(AM_EFORMAT, "malformed file")                                                                                    \
    X(AM_ECORRUPT, "checksum does not match")                                                                          \
    X(AM_EUNSUPPORTED, "not supported")                                                                                \
    X(AM_ENOTFOUND, "not found")                                                                                       \
    X(AM_EEXIST, "exists already")                                                                                     \
    X(AM_ELIMIT, "over a limit")                                                                                       \
    X(AM_EBUSY, "in use")                                                                                              \
    X(AM_ECANCELED, "cancelled")                                                                                       \
    X(AM_EPERM, "not permitted")                                                                                       \
    X(AM_ESHUTDOWN, "shutting down")

typedef enum am_status {
#define AM_STATUS_ENUM(code, text) code,
    AM_STATUS_LIST(AM_STATUS_ENUM)
#undef AM_STATUS_ENUM
        AM_N_STATUS
} am_status;

typedef struct am_error {
    am_status code;
    char message[512];
} am_error;

/* The list's text for a code ("ok", "out of memory"); never NULL. */
const char *am_status_text(am_status code);

/* Sets *err (when not NULL) to code and the formatted message and returns code: `return am_fail(err, AM_EFORMAT, ...)`. */
am_status am_fail(am_error *err, am_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the message already in *err; for callers that know which file it was. Returns err's code. */
am_status am_error_prefix(am_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
