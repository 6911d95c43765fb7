/* One request of a pull, from its URL through redirects to an answer that may be used.
 *
 * Redirects are followed here, not by libcurl: only to http and https, never from https down to http, at most ten, and the token goes to the origin
 * (scheme, host, port) it is meant for and to no other: hubs answer with the address of a foreign host. */
#ifndef AM_PULL_CALL_H
#define AM_PULL_CALL_H

#include "base/buf.h"
#include "pull/curl_calls.h"

#include <signal.h>

enum { AM_URL_MAX = 8192, AM_ETAG_MAX = 200 };

/* What all requests of a pull have in common. */
typedef struct am_site {
    const am_curl *curl;
    const char *token;                   /* NULL: none */
    const char *token_url;               /* any URL of the origin that may see it */
    uint32_t silence_ms;                 /* of a server, before its connection is given up */
    const volatile sig_atomic_t *cancel; /* may be NULL */
} am_site;

/* Head of the last answer; linked_*: of any answer on the way there (a hub says what the file is before it sends us elsewhere). */
typedef struct am_answer {
    int status; /* 0: none */
    char location[AM_URL_MAX], etag[AM_ETAG_MAX], range[96], message[300];
    uint64_t length; /* UINT64_MAX: not said */
    double retry_after_s; /* negative: not said */
} am_answer;

typedef struct am_call {
    const am_site *site;
    CURL *easy;
    struct curl_slist *fields;
    char url[AM_URL_MAX];
    uint64_t from, to; /* bytes wanted, to excluded; 0 and 0: all */
    unsigned n_redirects;
    am_answer answer;
    char linked_etag[AM_ETAG_MAX];
    /* Gets the body of an answer with 200 or 206, first of all with n 0 when its head is there. false: stop, reason says why. */
    bool (*sink)(void *arg, const char *p, size_t n);
    void *arg;
    bool enough;     /* the sink has what it wanted: the rest of the body is not */
    am_error reason; /* code AM_OK: none; AM_AGAIN: worth another try */
    double wait_ms;  /* AM_CALL_LATER: at least so long, as the server said; negative: it did not */
} am_call;

typedef enum am_outcome {
    AM_CALL_DONE,
    AM_CALL_AGAIN,  /* redirected: begin once more */
    AM_CALL_LATER,  /* reason says why it failed; worth another try */
    AM_CALL_FAILED, /* reason */
} am_outcome;

am_status am_call_init(am_call *call, const am_site *site, am_error *err);
void am_call_free(am_call *call);
am_status am_call_set(am_call *call, const char *url, uint64_t from, uint64_t to); /* a new one: forgets redirects; AM_ELIMIT: the URL is too long */
am_status am_call_begin(am_call *call); /* call->easy can run now */
am_outcome am_call_outcome(am_call *call, CURLcode code); /* after it ran */

/* Runs a call to its end, with `retries` more tries where that makes sense. The sink must be able to begin anew (n 0). */
am_status am_call_run(am_call *call, unsigned retries, am_error *err);
/* The body of url, at most max bytes (body is initialised here; the caller's). */
am_status am_call_get(const am_site *site, const char *url, unsigned retries, am_buf *body, size_t max, am_error *err);

/* Milliseconds before the nth try (n counts from 1): doubling, with jitter, and what the server asked for (at most five minutes). */
uint64_t am_call_backoff(unsigned n, double asked_ms);

#endif
