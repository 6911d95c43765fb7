/* Owns one HTTP request: its options, what is read of the answer's head, which answers are worth another try, and redirects. */
#include "pull/call.h"

#include "base/clock.h"
#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { MAX_REDIRECTS = 10, CONNECT_MS = 30000, FIRST_WAIT_MS = 500, MAX_WAIT_MS = 30000, MAX_ASKED_MS = 300000 };

static bool is_cancelled(const am_site *site) { return site->cancel && *site->cancel; }

am_status am_call_init(am_call *call, const am_site *site, am_error *err) {
    *call = (am_call){.site = site, .easy = site->curl->easy_init()};
    return call->easy ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for a request");
}

void am_call_free(am_call *call) {
    if (call->easy) call->site->curl->easy_cleanup(call->easy);
    if (call->fields) call->site->curl->slist_free_all(call->fields);
    *call = (am_call){0};
}

am_status am_call_set(am_call *call, const char *url, uint64_t from, uint64_t to) {
    if (strlen(url) >= sizeof call->url) return AM_ELIMIT;
    memmove(call->url, url, strlen(url) + 1);
    call->from = from;
    call->to = to;
    call->n_redirects = 0;
    call->linked_etag[0] = 0;
    return AM_OK;
}

/* Part of a URL; empty where it has none. */
static void part_of(const am_curl *c, const char *url, CURLUPart part, char out[256]) {
    CURLU *u = c->url();
    char *text = NULL;
    out[0] = 0;
    if (u && !c->url_set(u, CURLUPART_URL, url, 0) && !c->url_get(u, part, &text, CURLU_DEFAULT_PORT)) snprintf(out, 256, "%s", text);
    c->free(text);
    c->url_cleanup(u);
}

static bool same_origin(const am_curl *c, const char *a, const char *b) {
    static const CURLUPart parts[] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
    char x[256], y[256];
    for (size_t i = 0; i < 3; i++) {
        part_of(c, a, parts[i], x);
        part_of(c, b, parts[i], y);
        if (!*x || strcasecmp(x, y) != 0) return false;
    }
    return true;
}

/* In the open a token would be everybody's; on this machine there is nobody in between. */
static bool is_private(const am_curl *c, const char *url) {
    char scheme[256], host[256];
    part_of(c, url, CURLUPART_SCHEME, scheme);
    part_of(c, url, CURLUPART_HOST, host);
    return strcmp(scheme, "https") == 0 || strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 || strcmp(host, "[::1]") == 0;
}

static bool field_is(const char *line, size_t n, const char *name, char *out, size_t cap) {
    size_t len = strlen(name);
    if (n <= len || line[len] != ':' || strncasecmp(line, name, len) != 0) return false;
    const char *p = line + len + 1, *end = line + n;
    while (p < end && (*p == ' ' || *p == '\t')) p++;
    while (end > p && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ')) end--;
    snprintf(out, cap, "%.*s", (int)(end - p), p);
    return true;
}

static double retry_after(const am_curl *c, const char *text) {
    char *end;
    double seconds = strtod(text, &end);
    if (end != text && *end == 0) return seconds >= 0 ? seconds : -1;
    time_t when = c->getdate(text, NULL);
    return when == -1 ? -1 : when > time(NULL) ? (double)(when - time(NULL)) : 0;
}

static size_t on_head(char *line, size_t one, size_t n, void *arg) {
    am_call *call = arg;
    am_answer *a = &call->answer;
    char text[AM_URL_MAX];
    (void)one;
    if (n > 9 && strncmp(line, "HTTP/", 5) == 0) {
        const char *space = memchr(line, ' ', n);
        *a = (am_answer){.status = space ? atoi(space + 1) : 0, .length = UINT64_MAX, .retry_after_s = -1};
    } else if (field_is(line, n, "location", a->location, sizeof a->location) || field_is(line, n, "etag", a->etag, sizeof a->etag) ||
               field_is(line, n, "content-range", a->range, sizeof a->range) || field_is(line, n, "x-error-message", a->message, sizeof a->message) ||
               field_is(line, n, "x-linked-etag", call->linked_etag, sizeof call->linked_etag)) {
    } else if (!a->etag[0] && field_is(line, n, "last-modified", a->etag, sizeof a->etag)) { /* better than nothing; a later ETag takes its place */
    } else if (field_is(line, n, "content-length", text, sizeof text)) {
        a->length = strtoull(text, NULL, 10);
    } else if (field_is(line, n, "retry-after", text, sizeof text)) {
        a->retry_after_s = retry_after(call->site->curl, text);
    } else if (n <= 2 && (a->status == 200 || a->status == 206) && !call->sink(call->arg, NULL, 0)) {
        return 0; /* the head is complete, and not what was wanted */
    }
    return n;
}

static size_t on_body(char *p, size_t one, size_t n, void *arg) {
    am_call *call = arg;
    (void)one;
    if (call->answer.status != 200 && call->answer.status != 206) return n; /* of an error or redirect */
    return call->sink(call->arg, p, n) ? n : 0;
}

static int on_tick(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    const am_call *call = arg;
    (void)a, (void)b, (void)c, (void)d;
    return is_cancelled(call->site);
}

/* As the curl program does it. */
static void set_authorities(const am_call *call) {
    const am_curl *c = call->site->curl;
    const char *bundle = getenv("CURL_CA_BUNDLE"), *file = getenv("SSL_CERT_FILE"), *dir = getenv("SSL_CERT_DIR");
    if (bundle && *bundle) c->easy_setopt(call->easy, CURLOPT_CAINFO, bundle);
    else if (file && *file) c->easy_setopt(call->easy, CURLOPT_CAINFO, file);
    if (dir && *dir) c->easy_setopt(call->easy, CURLOPT_CAPATH, dir);
}

static am_status set_fields(am_call *call) {
    const am_site *site = call->site;
    const am_curl *c = site->curl;
    char line[1024];
    if (call->fields) c->slist_free_all(call->fields);
    call->fields = NULL;
    if (!site->token || !same_origin(c, call->url, site->token_url) || !is_private(c, call->url)) return AM_OK;
    if (snprintf(line, sizeof line, "Authorization: Bearer %s", site->token) >= (int)sizeof line)
        return am_fail(&call->reason, AM_EINVAL, "the token is too long to be one");
    call->fields = c->slist_append(NULL, line);
    return call->fields ? AM_OK : am_fail(&call->reason, AM_ENOMEM, "no memory for a request");
}

am_status am_call_begin(am_call *call) {
    const am_curl *c = call->site->curl;
    CURL *e = call->easy;
    char range[64];
    call->answer = (am_answer){.length = UINT64_MAX, .retry_after_s = -1};
    call->reason = (am_error){0};
    call->enough = false;
    call->wait_ms = -1;
    c->easy_reset(e);
    am_status status = set_fields(call);
    if (status) return status;
    c->easy_setopt(e, CURLOPT_URL, call->url);
    c->easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    c->easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1); /* several streams of one connection share its window */
    c->easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    c->easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    c->easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    c->easy_setopt(e, CURLOPT_USERAGENT, "agent-memory/" AM_VERSION);
    c->easy_setopt(e, CURLOPT_HTTPHEADER, call->fields);
    c->easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)(call->site->silence_ms < CONNECT_MS ? call->site->silence_ms : CONNECT_MS));
    c->easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
    c->easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)((call->site->silence_ms + 999) / 1000));
    c->easy_setopt(e, CURLOPT_HEADERFUNCTION, on_head);
    c->easy_setopt(e, CURLOPT_HEADERDATA, call);
    c->easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    c->easy_setopt(e, CURLOPT_WRITEDATA, call);
    c->easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_tick);
    c->easy_setopt(e, CURLOPT_XFERINFODATA, call);
    c->easy_setopt(e, CURLOPT_NOPROGRESS, 0L);
    c->easy_setopt(e, CURLOPT_PRIVATE, call);
    set_authorities(call);
    if (call->to) {
        snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)call->from, (unsigned long long)call->to - 1);
        c->easy_setopt(e, CURLOPT_RANGE, range);
    }
    return AM_OK;
}

/* The host alone: the rest of a signed URL is a secret. */
static am_outcome say(am_call *call, am_outcome outcome, am_status status, const char *what) {
    char host[256];
    part_of(call->site->curl, call->url, CURLUPART_HOST, host);
    am_fail(&call->reason, status, "%s: %s", *host ? host : "?", what);
    return outcome;
}

static am_outcome redirect(am_call *call) {
    const am_curl *c = call->site->curl;
    char before[256], after[256], *whole = NULL;
    if (++call->n_redirects > MAX_REDIRECTS) return say(call, AM_CALL_FAILED, AM_EFORMAT, "redirects without end");
    CURLU *u = c->url();
    bool good = u && !c->url_set(u, CURLUPART_URL, call->url, 0) && !c->url_set(u, CURLUPART_URL, call->answer.location, CURLU_NON_SUPPORT_SCHEME) &&
                !c->url_get(u, CURLUPART_URL, &whole, 0) && strlen(whole) < sizeof call->url;
    part_of(c, call->url, CURLUPART_SCHEME, before);
    after[0] = 0;
    if (good) {
        char *scheme = NULL;
        if (!c->url_get(u, CURLUPART_SCHEME, &scheme, 0)) snprintf(after, sizeof after, "%s", scheme);
        c->free(scheme);
    }
    bool web = strcmp(after, "http") == 0 || strcmp(after, "https") == 0, down = strcmp(before, "https") == 0 && strcmp(after, "https") != 0;
    am_outcome outcome = AM_CALL_AGAIN;
    if (!good || !web) outcome = say(call, AM_CALL_FAILED, AM_EPERM, "redirects to what is no address of the web");
    else if (down) outcome = say(call, AM_CALL_FAILED, AM_EPERM, "redirects from https to http, which is refused");
    else memcpy(call->url, whole, strlen(whole) + 1);
    c->free(whole);
    c->url_cleanup(u);
    return outcome;
}

static am_outcome failed_transport(am_call *call, CURLcode code) {
    const char *text = call->site->curl->easy_strerror(code);
    switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_OUT_OF_MEMORY: return say(call, AM_CALL_FAILED, AM_EIO, text);
    case CURLE_COULDNT_RESOLVE_HOST: return say(call, AM_CALL_LATER, AM_EIO, "no such host is known");
    case CURLE_OPERATION_TIMEDOUT: return say(call, AM_CALL_LATER, AM_EIO, "silent for too long");
    case CURLE_PARTIAL_FILE: return say(call, AM_CALL_LATER, AM_EIO, "broke off in the middle");
    default: return say(call, AM_CALL_LATER, AM_EIO, text);
    }
}

static am_outcome failed_status(am_call *call) {
    char text[400];
    int s = call->answer.status;
    const char *hint = s == 401 ? " (a token is wanted, or another one: HF_TOKEN)" : s == 403 ? " (this token may not read it; its terms may have to be accepted on the hub's page)" : "";
    snprintf(text, sizeof text, "answered %d%s%s%s", s, call->answer.message[0] ? ": " : "", call->answer.message, hint);
    bool busy = s == 408 || s == 425 || s == 429 || s >= 500;
    if (busy) call->wait_ms = call->answer.retry_after_s < 0 ? -1 : call->answer.retry_after_s * 1000;
    bool expired = call->n_redirects && (s == 401 || s == 403 || s == 404 || s == 410); /* signed addresses are good for an hour */
    return say(call, busy || expired ? AM_CALL_LATER : AM_CALL_FAILED, s == 404 || s == 410 ? AM_ENOTFOUND : s == 401 || s == 403 ? AM_EPERM : AM_EIO, text);
}

am_outcome am_call_outcome(am_call *call, CURLcode code) {
    if (is_cancelled(call->site)) {
        am_fail(&call->reason, AM_ECANCELED, "interrupted");
        return AM_CALL_FAILED;
    }
    if (call->enough) return AM_CALL_DONE;
    if (call->reason.code) return call->reason.code == AM_AGAIN ? AM_CALL_LATER : AM_CALL_FAILED;
    if (code) return failed_transport(call, code);
    int s = call->answer.status;
    if (s == 200 || s == 206) return AM_CALL_DONE;
    if ((s == 301 || s == 302 || s == 303 || s == 307 || s == 308) && call->answer.location[0]) return redirect(call);
    return failed_status(call);
}

uint64_t am_call_backoff(unsigned n, double asked_ms) {
    uint32_t random;
    am_random_bytes(&random, sizeof random);
    double ms = FIRST_WAIT_MS * (double)(1u << (n > 10 ? 10 : n - 1));
    if (ms > MAX_WAIT_MS) ms = MAX_WAIT_MS;
    ms *= 0.5 + 0.5 * (double)random / 4294967295.0;
    if (asked_ms > ms) ms = asked_ms < MAX_ASKED_MS ? asked_ms : MAX_ASKED_MS;
    return (uint64_t)ms;
}

static bool sleep_ms(const am_site *site, uint64_t ms) {
    uint64_t start = am_now_ns();
    while (am_ms_since(start) < (double)ms && !is_cancelled(site)) nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    return !is_cancelled(site);
}

am_status am_call_run(am_call *call, unsigned retries, am_error *err) {
    char url[AM_URL_MAX];
    memcpy(url, call->url, strlen(call->url) + 1);
    for (unsigned n_failed = 0;;) {
        am_outcome outcome = AM_CALL_FAILED;
        if (!am_call_begin(call)) outcome = am_call_outcome(call, call->site->curl->easy_perform(call->easy));
        if (outcome == AM_CALL_DONE) return AM_OK;
        if (outcome == AM_CALL_AGAIN) continue;
        if (outcome == AM_CALL_LATER && n_failed++ < retries && sleep_ms(call->site, am_call_backoff(n_failed, call->wait_ms))) {
            am_call_set(call, url, call->from, call->to);
            continue;
        }
        if (err) *err = call->reason;
        return is_cancelled(call->site) ? am_fail(err, AM_ECANCELED, "interrupted") : call->reason.code;
    }
}

typedef struct body_sink {
    am_call *call;
    am_buf *body;
} body_sink;

static bool add_to_body(void *arg, const char *p, size_t n) {
    body_sink *s = arg;
    if (!p) am_buf_clear(s->body);
    else if (am_buf_append(s->body, p, n)) return am_fail(&s->call->reason, AM_ELIMIT, "the answer is too long to be one") == AM_OK;
    return true;
}

am_status am_call_get(const am_site *site, const char *url, unsigned retries, am_buf *body, size_t max, am_error *err) {
    am_call call;
    body_sink sink = {&call, body};
    am_buf_init(body, max);
    am_status status = am_call_init(&call, site, err);
    if (status) return status;
    call.sink = add_to_body;
    call.arg = &sink;
    status = am_call_set(&call, url, 0, 0) ? am_fail(err, AM_ELIMIT, "an address of more than %d bytes", AM_URL_MAX) : am_call_run(&call, retries, err);
    am_call_free(&call);
    return status;
}
