/* Finds calls of functions in what a model writes: <tool_call>{"name": ..., "arguments": {...}}</tool_call>, piece by piece. */
#ifndef AM_SERVER_TOOLCALL_H
#define AM_SERVER_TOOLCALL_H

#include "base/json.h"

typedef struct am_tool_sink {
    void (*text)(void *arg, am_str text);
    void (*call)(void *arg, uint32_t index, am_str name, am_str arguments);
    void *arg;
} am_tool_sink;

typedef struct am_tool_parser {
    json_t *tools; /* the request's list, a reference; NULL: everything is text */
    am_buf held;   /* what may still become a tag or a call */
    bool inside;   /* held begins after a <tool_call> */
    bool after_call; /* blanks between calls are no answer */
    uint32_t n_calls;
} am_tool_parser;

void am_tool_parser_init(am_tool_parser *parser, json_t *tools); /* takes its own reference; tools may be NULL */
void am_tool_parser_free(am_tool_parser *parser);
void am_tool_parser_push(am_tool_parser *parser, am_str text, const am_tool_sink *sink);
void am_tool_parser_finish(am_tool_parser *parser, const am_tool_sink *sink); /* the model stopped */

#endif
