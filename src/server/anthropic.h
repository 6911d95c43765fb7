/* The Anthropic dialect: POST /v1/messages, POST /v1/messages/count_tokens, and GET /v1/models for clients that send anthropic-version.
 *
 *   anthropic_request.c   JSON -> am_completion_request (one table of fields), tools
 *   anthropic_messages.c  system and messages -> what templates expect
 *   anthropic_events.c    what happens -> content blocks, streamed or kept for one reply
 *   anthropic_reply.c     its JSON: messages, events, usage, errors
 *   anthropic_models.c    its list of models */
#ifndef AM_SERVER_ANTHROPIC_H
#define AM_SERVER_ANTHROPIC_H

#include "server/dialect.h"

bool am_anthropic_parse(am_str body, am_completion_request *r, am_api_error *e);
bool am_anthropic_parse_count(am_str body, am_completion_request *r, am_api_error *e); /* max_tokens may be absent */
json_t *am_anthropic_messages(const am_completion_request *r, uint32_t max_messages, am_api_error *e);

/* anthropic_reply.c; all but the last three write an event. */
void am_anthropic_start(am_completion *c);
void am_anthropic_block_start(am_choice *choice, const char *id, am_str name); /* of choice->open_block; id and name: of a call */
void am_anthropic_delta(am_choice *choice, const char *type, const char *member, am_str text);
void am_anthropic_block_stop(am_choice *choice);
void am_anthropic_finish(am_choice *choice);
void am_anthropic_stop(am_completion *c);
void am_anthropic_block(am_choice *choice, am_str text, const char *signature); /* a whole text or thought, into choice->parts */
void am_anthropic_call(am_choice *choice, const char *id, am_str name, am_str input); /* a whole call, into choice->parts; input: a JSON object */
am_status am_anthropic_whole(am_completion *c, am_buf *out);
void am_anthropic_error(const am_exchange *x, const am_api_error *e, am_buf *out);
int am_anthropic_status(const am_api_error *e);

/* anthropic_models.c */
void am_anthropic_models(am_exchange *x);
void am_anthropic_model(am_exchange *x, const am_model_view *view);

#endif
