/* A small blocking HTTP client for tests of the server: raw bytes out, one reply in. */
#ifndef AM_TESTS_HTTP_CLIENT_H
#define AM_TESTS_HTTP_CLIENT_H

#include "base/json.h"

#include <stdint.h>

typedef struct http_reply {
    int status;     /* 0: the connection ended before a head */
    char head[8192];
    am_buf body;    /* chunks undone */
    bool whole;     /* the body ended as its framing says */
    json_t *json;   /* the body, when it is JSON */
} http_reply;

int http_connect(uint16_t port);
void http_send(int fd, const char *bytes, size_t n); /* ignores a closed connection */
void http_text(int fd, const char *text);
/* Reads one reply (timeout 20 s); the one before in *reply is freed, as by http_reply_free. */
void http_read(int fd, http_reply *reply);
void http_reply_free(http_reply *reply);
/* Value of a header line, NULL when absent; valid until the next read. */
const char *http_header(const http_reply *reply, const char *lower_name);
/* A request on a connection of its own. body may be NULL; headers: further lines, each with CRLF. */
void http_ask(uint16_t port, const char *method, const char *path, const char *headers, const char *body, http_reply *reply);

#endif
