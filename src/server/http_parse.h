/* HTTP/1.x request heads and chunked bodies, read strictly: what two readers could understand differently is refused.
 *
 * Pure functions over bytes; no socket, no clock. Limits are part of the grammar: a head of at most 16 KiB and 64 fields. */
#ifndef AM_SERVER_HTTP_PARSE_H
#define AM_SERVER_HTTP_PARSE_H

#include "base/buf.h"

enum { AM_HTTP_MAX_HEAD = 16384, AM_HTTP_MAX_TARGET = 8192, AM_HTTP_MAX_FIELDS = 64, AM_HTTP_MAX_TRAILER = 4096 };

/* Looks for the end of a head, byte by byte, so that where the network cut the bytes changes nothing. Zero-initialise. */
typedef struct am_http_scan {
    size_t n;      /* bytes looked at */
    size_t skip;   /* empty lines before the request line */
    unsigned line; /* bytes in the current line */
    bool cr;
} am_http_scan;

typedef struct am_http_refusal {
    int status;      /* 400, 408, 413, 414, 417, 431, 501, 505 */
    const char *why; /* static */
} am_http_refusal;
am_status am_http_refuse(am_http_refusal *refusal, int status, const char *why); /* sets it; AM_EFORMAT */

/* p[0..n): all bytes of the head that are there so far (the same ones as in the call before, and more). AM_AGAIN: not complete;
 * AM_OK: the head is p[scan->skip..scan->n); AM_EFORMAT: *refusal. */
am_status am_http_scan_head(am_http_scan *scan, const char *p, size_t n, am_http_refusal *refusal);

typedef struct am_http_field {
    am_str name, value; /* value without surrounding blanks */
} am_http_field;

typedef struct am_http_head {
    am_str method, target; /* as they stood there */
    am_str path, query;    /* of the target; not decoded */
    am_str host;
    am_http_field fields[AM_HTTP_MAX_FIELDS];
    size_t n_fields;
    int64_t content_length; /* -1: none */
    bool http_1_0, chunked, keep_alive, expect_continue;
} am_http_head;

/* Parses a complete head (with its empty line). Views point into p. AM_EFORMAT: *refusal. */
am_status am_http_parse_head(am_str p, am_http_head *head, am_http_refusal *refusal);

/* A field's value by its name in lower case; p is NULL when it is not there. The first when there are several. */
am_str am_http_field_of(const am_http_head *head, const char *name);
bool am_http_name_is(am_str a, const char *lower); /* ASCII case-insensitive */
int am_http_hex(char c);                           /* a hexadecimal digit's value, else -1 */

/* Body with transfer-encoding chunked. Zero-initialise. */
typedef struct am_http_chunked {
    int state;
    uint64_t left;      /* of the current chunk */
    unsigned n_digits, n_extension, n_trailer;
    bool line_has_colon, line_empty;
} am_http_chunked;
/* Decodes from p; *used bytes were taken, the body's bytes appended to out. AM_AGAIN: more must come; AM_OK: the body ended (bytes after
 * *used belong to the next request); AM_EFORMAT: *refusal (413 when out is full); AM_ENOMEM. */
am_status am_http_chunked_feed(am_http_chunked *chunked, am_str p, size_t *used, am_buf *out, am_http_refusal *refusal);

/* Undoes %XX in place of a copy: AM_EFORMAT for a cut or bad escape. NUL and other control characters are kept: who uses the name checks it. */
am_status am_http_unescape(am_str s, am_buf *out);

#endif
