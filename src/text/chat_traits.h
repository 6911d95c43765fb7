/* What a chat template can and cannot say, found by rendering small conversations at load, and how a request is put so that nothing of it is
 * lost where the template cannot (docs/TEMPLATES.md). */
#ifndef AM_TEXT_CHAT_TRAITS_H
#define AM_TEXT_CHAT_TRAITS_H

#include "text/chat.h"

/* Fills *out. A template that cannot even render one user message has every trait: requests then go to it as they are. */
void am_chat_traits_probe(const am_chat *chat, am_chat_traits *out);

/* The request's messages and tools as the template can say them. *messages is a new reference; *tools is request->tools, or NULL when they are
 * told in words. AM_ENOMEM. */
am_status am_chat_adapt(const am_chat_traits *traits, const am_chat_request *request, json_t **messages, const json_t **tools, am_error *err);

/* am_chat_render without adaptation. */
am_status am_chat_render_as_is(const am_chat *chat, const am_chat_request *request, const am_template_limits *limits, am_rendered *out,
                               am_error *err);

#endif
