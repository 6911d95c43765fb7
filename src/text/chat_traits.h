/* What a chat template can and cannot say, found by rendering small conversations at load, and how a request is put so that nothing of it is
 * lost where the template cannot (docs/TEMPLATES.md). */
#ifndef AM_TEXT_CHAT_TRAITS_H
#define AM_TEXT_CHAT_TRAITS_H

#include "text/chat.h"

/* Fills *out; false: no memory. A template that cannot even render one user message has every trait: requests then go to it as they are. */
bool am_chat_traits_probe(const am_chat *chat, am_chat_traits *out);

/* The request's messages and tools as the template can say them. *messages is a new reference; *tools is request->tools, or NULL when they are
 * told in words. AM_ENOMEM. */
am_status am_chat_adapt(const am_chat_traits *traits, const am_chat_request *request, json_t **messages, const json_t **tools, am_error *err);

/* The same with less asked of the template, for requests that it refuses nevertheless: level 1 tells calls and results in words, level 2 all that can be. */
enum { AM_CHAT_LEVELS = 3 };
am_chat_traits am_chat_traits_lowered(const am_chat_traits *traits, int level);

/* chat_form.c: the form of answers. render: messages and tools as JSON; false: the template refuses them, or shows nothing. */
typedef bool am_chat_probe_fn(void *arg, const char *messages, const char *tools, bool prompt, am_rendered *out);
void am_chat_form_probe(am_chat_probe_fn *render, void *arg, am_answer_form *out);

/* Steps of it. Nonzero: no memory.
 * chat_calls.c: calls beside their results, as the template takes them, or in words. Appends to `to` messages that may be changed. */
int am_chat_say_calls(const am_chat_traits *traits, const json_t *messages, json_t *to);
/* chat_put.c: ids, arguments, reasoning and contents in the form that the template reads, in place. */
int am_chat_put(const am_chat_traits *traits, json_t *messages);

/* What these share. */
const char *am_chat_role(const json_t *message); /* never NULL */
bool am_chat_is(const json_t *message, const char *role);
am_str am_chat_content(const json_t *message);
bool am_chat_has_calls(const json_t *message);
json_t *am_chat_joined(am_str first, const char *between, am_str second);           /* a string; `between` only between two that are not empty */

/* am_chat_render without adaptation. */
am_status am_chat_render_as_is(const am_chat *chat, const am_chat_request *request, const am_template_limits *limits, am_rendered *out,
                               am_error *err);

#endif
