/* A model's chat format: its template or templates with the special tokens they use, ready to turn messages into text. */
#ifndef AM_TEXT_CHAT_H
#define AM_TEXT_CHAT_H

#include "text/template.h"

typedef struct am_chat am_chat;

/* From a folder: chat_template.jinja (and additional_chat_templates/), else tokenizer_config.json's chat_template, a string
 * or a list of {name, template}. AM_ENOTFOUND when there is none. */
am_status am_chat_load_dir(const char *dir, am_chat **out, am_error *err);
am_status am_chat_load_json(am_str tokenizer_config, am_chat **out, am_error *err);
/* From a bare template (GGUF's tokenizer.chat_template, or an override); tokens: object with bos_token, eos_token ...; may be NULL. */
am_status am_chat_load_source(am_str source, const json_t *tokens, am_chat **out, am_error *err);
/* One more template, for when `default` is not meant: "tool_use", "rag". */
am_status am_chat_add_source(am_chat *chat, const char *name, am_str source, am_error *err);
const json_t *am_chat_tokens(const am_chat *chat); /* object: bos_token, eos_token ... */
void am_chat_free(am_chat *chat);

/* What the template can say, found by rendering probes at load. What it cannot is adapted in am_chat_render (docs/TEMPLATES.md). */
typedef struct am_chat_traits {
    bool system, systems, late_system; /* a system message; several at the beginning; one later */
    bool same_role;                    /* two messages of the user in a row */
    bool tools, tool_results;          /* tools; calls in the history, and their results */
    bool appends, appends_reasoning;   /* the next turn's prompt begins with this turn's and the answer (with a <think> part): the cache depends on it */
    size_t leaves_at;                  /* not appends: the byte where the next prompt parts */
} am_chat_traits;
const am_chat_traits *am_chat_traits_of(const am_chat *chat);

typedef struct am_chat_request {
    const json_t *messages;  /* array, OpenAI's form */
    const json_t *tools;     /* array or NULL; picks `tool_use` where several templates exist */
    const json_t *documents; /* array or NULL; picks `rag` */
    const json_t *kwargs;    /* object or NULL: enable_thinking and other template variables; `messages` and the like cannot be
                                overridden by it, nor `chat_template` */
    bool add_generation_prompt;
    int64_t now_s;
} am_chat_request;
/* Renders with exactly these variables (an object), the special tokens of the chat's own added where it has none of that name. For comparing
 * with other implementations: the caller is trusted, *_token members are no input. */
am_status am_chat_render_context(const am_chat *chat, const json_t *context, int64_t now_s, am_rendered *out, am_error *err);
am_status am_chat_render(const am_chat *chat, const am_chat_request *request, am_rendered *out, am_error *err);

#endif
