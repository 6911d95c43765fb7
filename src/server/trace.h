/* Distributed traces (W3C Trace Context, https://www.w3.org/TR/trace-context/): a request that belongs to a trace says so in `traceparent`, the log has the
 * trace's id in its lines, and the reply says with `traceresponse` which span was made for it. */
#ifndef AM_SERVER_TRACE_H
#define AM_SERVER_TRACE_H

#include "server/http_parse.h"

typedef struct am_trace {
    char id[33];     /* 32 hex digits; empty: the request belongs to none */
    char span[17];   /* ours, new for each request */
    char flags[3];
} am_trace;

/* Reads traceparent: 00-<32 hex digits>-<16>-<2>, in lower case. Anything else counts as none, as the specification wants it: no digits but zeros, version
 * ff, more behind version 00, two headers. Of a later version that begins like this one, this much is read. */
void am_trace_take(const am_http_head *head, am_trace *out);

#endif
