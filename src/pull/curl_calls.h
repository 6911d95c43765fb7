/* libcurl, loaded when the first model is pulled. Linked in the usual way it would bring some thirty libraries into every start of the program and every
 * running server (docs/DESIGN.md, Libraries), for a command that runs now and then. */
#ifndef AM_PULL_CURL_CALLS_H
#define AM_PULL_CURL_CALLS_H

#include "base/status.h"

#include <stdbool.h>

#include <curl/curl.h>

#define AM_CURL_CALLS(X)                                                                                               \
    X(global_init)                                                                                                     \
    X(easy_init)                                                                                                       \
    X(easy_cleanup)                                                                                                    \
    X(easy_reset)                                                                                                      \
    X(easy_setopt)                                                                                                     \
    X(easy_perform)                                                                                                    \
    X(easy_getinfo)                                                                                                    \
    X(easy_strerror)                                                                                                   \
    X(multi_init)                                                                                                      \
    X(multi_cleanup)                                                                                                   \
    X(multi_add_handle)                                                                                                \
    X(multi_remove_handle)                                                                                             \
    X(multi_perform)                                                                                                   \
    X(multi_poll)                                                                                                      \
    X(multi_info_read)                                                                                                 \
    X(slist_append)                                                                                                    \
    X(slist_free_all)                                                                                                  \
    X(url)                                                                                                             \
    X(url_cleanup)                                                                                                     \
    X(url_set)                                                                                                         \
    X(url_get)                                                                                                         \
    X(getdate)                                                                                                         \
    X(free)

/* The typecheck macros of curl.h stand for functions here, not for calls. */
#undef curl_easy_setopt
#undef curl_easy_getinfo

typedef struct am_curl {
#define AM_CURL_MEMBER(name) __typeof__(curl_##name) *name;
    AM_CURL_CALLS(AM_CURL_MEMBER)
#undef AM_CURL_MEMBER
} am_curl;

/* Stays loaded. AM_EUNSUPPORTED: there is none. Not thread-safe the first time. */
am_status am_curl_open(const am_curl **out, am_error *err);

#endif
