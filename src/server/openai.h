/* The OpenAI dialect: POST /v1/chat/completions.
 *
 *   openai_request.c   JSON -> am_completion_request (one table of fields)
 *   openai_messages.c  messages -> what templates expect
 *   openai_events.c    what happens -> chunks, or what is kept for one reply
 *   openai_reply.c     its JSON: completion, chunks, usage, logprobs, errors */
#ifndef AM_SERVER_OPENAI_H
#define AM_SERVER_OPENAI_H

#include "server/dialect.h"

bool am_openai_parse(am_str body, am_completion_request *r, am_api_error *e);
json_t *am_openai_messages(const am_completion_request *r, uint32_t max_messages, am_api_error *e);

/* openai_reply.c; all append to an am_buf. */
void am_openai_logprob(const am_completion *c, const am_event *event, am_buf *out);
void am_openai_role_chunk(am_completion *c, uint32_t index);
void am_openai_text_chunk(am_completion *c, am_choice *choice, const char *member, am_str text); /* "content" or "reasoning_content" */
void am_openai_tool_chunk(am_completion *c, uint32_t index, uint32_t call, const char *id, am_str name, am_str arguments);
void am_openai_finish_chunk(am_completion *c, const am_choice *choice, bool last);
void am_openai_usage_chunk(am_completion *c);
am_status am_openai_whole(am_completion *c, am_buf *out);
void am_openai_tool_call(const char *id, am_str name, am_str arguments, am_buf *out); /* {"id":...,"function":{...}} */
void am_openai_error(const am_exchange *x, const am_api_error *e, am_buf *out);       /* {"error":{...}} */

#endif
