/* Owns whole replies, and errors as facts; their shape is the dialect's. */
#include "server/dialect.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int status;
    const char *text;
} statuses[] = {{0, "Error"}, {200, "OK"}, {201, "Created"}, {202, "Accepted"}, {204, "No Content"}, {400, "Bad Request"}, {401, "Unauthorized"},
                {403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"}, {408, "Request Timeout"}, {409, "Conflict"},
                {413, "Content Too Large"}, {414, "URI Too Long"}, {415, "Unsupported Media Type"}, {417, "Expectation Failed"},
                {422, "Unprocessable Content"}, {429, "Too Many Requests"}, {431, "Request Header Fields Too Large"},
                {500, "Internal Server Error"}, {501, "Not Implemented"}, {503, "Service Unavailable"}, {505, "HTTP Version Not Supported"},
                {507, "Insufficient Storage"}, {529, "Overloaded"}};
_Static_assert(sizeof statuses / sizeof *statuses == AM_HTTP_N_STATUS, "counts of requests have a place for each");

size_t am_http_status_index(int status) {
    size_t i = AM_HTTP_N_STATUS - 1;
    while (i && statuses[i].status != status) i--;
    return i;
}

int am_http_status_at(size_t index) { return statuses[index].status; }
const char *am_http_reason(int status) { return statuses[am_http_status_index(status)].text; }

int am_status_http(am_status status) {
    switch (status) {
    case AM_OK: return 200;
    case AM_EINVAL: case AM_EFORMAT: case AM_EUNSUPPORTED: return 400;
    case AM_ENOTFOUND: return 404;
    case AM_EEXIST: case AM_EBUSY: return 409;
    case AM_ELIMIT: return 429;
    case AM_EPERM: return 403;
    case AM_ESHUTDOWN: case AM_ENOMEM: case AM_AGAIN: case AM_ECANCELED: return 503;
    default: return 500;
    }
}

bool am_api_fail(am_api_error *e, int status, const char *code, const char *param, const char *format, ...) {
    *e = (am_api_error){.status = status, .code = code};
    if (param) snprintf(e->param, sizeof e->param, "%s", param);
    va_list args;
    va_start(args, format);
    vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
    return false;
}

void am_reply_header(am_exchange *x, const char *name, const char *value) {
    pthread_mutex_lock(&x->lock);
    am_buf_printf(&x->headers, "%s: %s\r\n", name, value);
    pthread_mutex_unlock(&x->lock);
}

void am_reply_send(am_exchange *x, int status, const char *content_type, am_str body) {
    pthread_mutex_lock(&x->lock);
    if (am_buf_add(&x->out, body)) status = 500; /* out of memory: an empty 500 is all that is left to say */
    x->mode = AM_REPLY_WHOLE;
    if (!x->begun) x->status = status;
    x->content_type = content_type;
    x->finished = true;
    x->on_gone = NULL;
    pthread_mutex_unlock(&x->lock);
    am_exchange_post(x);
}

void am_reply_json(am_exchange *x, int status, json_t *value) {
    am_buf body;
    am_buf_init(&body, SIZE_MAX / 2);
    if (!value || am_json_dump(value, &body) || am_buf_putc(&body, '\n')) {
        am_reply_refuse(x, 500, NULL, "out of memory");
    } else {
        am_reply_send(x, status, "application/json", am_buf_str(&body));
    }
    am_buf_free(&body);
    json_decref(value);
}

void am_reply_error(am_exchange *x, const am_api_error *e) {
    am_buf body;
    char seconds[16];
    am_buf_init(&body, 8192);
    x->dialect->error(x, e, &body);
    am_buf_putc(&body, '\n');
    unsigned retry = e->retry_after_s ? e->retry_after_s : e->status == 429 || e->status == 503 ? 1 : 0;
    if (retry) {
        snprintf(seconds, sizeof seconds, "%u", retry);
        am_reply_header(x, "retry-after", seconds);
    }
    am_reply_send(x, x->dialect->status ? x->dialect->status(e) : e->status, "application/json", am_buf_str(&body));
    am_buf_free(&body);
}

void am_reply_refuse(am_exchange *x, int status, const char *code, const char *message) {
    am_api_error e;
    am_api_fail(&e, status, code, NULL, "%s", message);
    am_reply_error(x, &e);
}
