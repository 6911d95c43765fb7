/* The dialects that this server speaks: what differs between them, in one table of functions each. What they share exists once (completion.h,
 * reply.c, stream.c); a dialect turns JSON into a request, and what happens to it into JSON. */
#ifndef AM_SERVER_DIALECT_H
#define AM_SERVER_DIALECT_H

#include "server/completion.h"

typedef bool am_parse_fn(am_str body, am_completion_request *r, am_api_error *e);

struct am_dialect {
    /* Any reply. */
    am_str keep_alive;                                 /* what a silent stream is kept open with */
    am_str error_event;                                /* what stands before an error in a stream */
    const char *id_header;                             /* a further header with the request's id; NULL: none */
    void (*error)(const am_exchange *x, const am_api_error *e, am_buf *out);
    int (*status)(const am_api_error *e);              /* as the dialect says it; NULL: as it is */

    /* A request: its fields; its messages, as am_chat_messages gives them (a new reference; NULL: *e); that it is longer than a context. */
    am_parse_fn *parse, *parse_count; /* parse_count: NULL where tokens are not counted */
    json_t *(*messages)(const am_completion_request *r, uint32_t max_messages, am_api_error *e);
    bool (*too_long)(uint32_t n_ctx, size_t n_prompt, bool cut, am_api_error *e); /* false */

    /* A completion, on the engine thread under its lock, streamed or kept for one reply (completion->stream). */
    const char *id_prefix;
    void (*begin)(am_choice *choice); /* its info is known */
    void (*token)(am_choice *choice, const am_event *event);    /* before what it says; NULL: nothing to do */
    void (*token_done)(am_choice *choice);                      /* after it; NULL */
    am_answer_sink sink;              /* text, reasoning, calls; arg is the choice's */
    void (*finish)(am_choice *choice, bool last);
    void (*end)(am_completion *c);    /* of a stream: after the last choice's finish */
    am_status (*whole)(am_completion *c, am_buf *out);
};
extern const am_dialect am_dialect_openai, am_dialect_anthropic;

#endif
