/* A model's chat format: its template or templates with the special tokens they use, ready to turn messages into text. */
#ifndef AM_TEXT_CHAT_H
#define AM_TEXT_CHAT_H

#include "text/answer.h"
#include "text/template.h"

typedef struct am_chat am_chat;

/* From a folder (chat.c says where its templates lie), or the text of a tokenizer_config.json. AM_ENOTFOUND when there is no template. */
am_status am_chat_load_dir(const char *dir, am_chat **out, am_error *err);
am_status am_chat_load_json(am_str tokenizer_config, am_chat **out, am_error *err);
/* From bare templates (GGUF's, or an override); `default`, `tool_use` and `rag` are names with a meaning. tokens: object with bos_token,
 * eos_token ...; may be NULL. */
typedef struct am_chat_source {
    am_str name, text;
} am_chat_source;
am_status am_chat_load_sources(const am_chat_source *list, size_t n, const json_t *tokens, am_chat **out, am_error *err);
am_status am_chat_load_source(am_str source, const json_t *tokens, am_chat **out, am_error *err);
/* Gives each template of a folder to fn, uncompiled; AM_ENOTFOUND when there is none. */
typedef am_status am_chat_source_fn(void *arg, am_str name, am_str source, am_error *err);
am_status am_chat_sources_of_dir(const char *dir, am_chat_source_fn *fn, void *arg, am_error *err);
const json_t *am_chat_tokens(const am_chat *chat); /* object: bos_token, eos_token ... */
void am_chat_free(am_chat *chat);

/* What the template can say, found by rendering probes at load; what it cannot is adapted in am_chat_render (docs/TEMPLATES.md). Each is a bool
 * of am_chat_traits, true when the template can. */
#define AM_CHAT_TRAITS(X)                                                                                              \
    X(strings)          /* content as a string; if not: as a list of parts */                                          \
    X(system)           /* a system message at the beginning */                                                        \
    X(systems)          /* several of them */                                                                          \
    X(late_system)      /* one after the conversation began */                                                         \
    X(system_tools)     /* a system message beside tools */                                                            \
    X(system_results)   /* one in a conversation that does not end with the user */                                    \
    X(same_role)        /* two messages of the user in a row, or of the assistant */                                   \
    X(assistant_first)  /* an assistant's message before any of the user */                                            \
    X(no_user)          /* no message of the user at all */                                                            \
    X(tools)                                                                                                           \
    X(tool_results)     /* a call in the history and its result */                                                     \
    X(results)          /* a result behind an answer without calls */                                                  \
    X(past_calls)       /* calls and results before the user's last message */                                         \
    X(object_arguments) /* arguments as an object; if not: as JSON text */                                             \
    X(empty_content)    /* calls beside an empty text; if not: beside null */                                          \
    X(open_calls)       /* a call without its result at the end */                                                     \
    X(any_id)           /* ids of calls in any form; if not: of nine letters and digits */                             \
    X(no_id)            /* calls without an id */                                                                      \
    X(parallel_calls)   /* several calls in one message */                                                             \
    X(calls_in_turns)   /* one call after the result of another */                                                     \
    X(call_content)     /* text beside calls */                                                                        \
    X(text_then_calls)  /* text in a message of its own before calls */

/* Where a template wants an assistant's reasoning. */
typedef enum am_chat_reasoning { AM_REASONING_CONTENT, AM_REASONING_THINKING, AM_REASONING_PLAIN, AM_REASONING_TEXT, AM_REASONING_NOWHERE } am_chat_reasoning;
const char *am_chat_reasoning_name(am_chat_reasoning reasoning);

/* The kinds of history for which it is known whether the next turn's prompt begins with this turn's and the answer; the cache depends on it. */
#define AM_CHAT_HISTORIES(X) X(plain) X(system) X(tools) X(calls) X(reasoning)
#define AM_CHAT_HISTORY(name) AM_HISTORY_##name,
typedef enum am_chat_history_kind { AM_CHAT_HISTORIES(AM_CHAT_HISTORY) AM_N_HISTORIES } am_chat_history_kind;
#undef AM_CHAT_HISTORY
typedef struct am_chat_history {
    bool appends;
    size_t leaves_at;      /* not appends: the byte where the next prompt parts, */
    char had[40], has[40]; /* what stood there, and what stands there now */
} am_chat_history;

typedef struct am_chat_traits {
#define AM_CHAT_TRAIT(name) bool name;
    AM_CHAT_TRAITS(AM_CHAT_TRAIT)
#undef AM_CHAT_TRAIT
    am_chat_reasoning reasoning;
    am_chat_history history[AM_N_HISTORIES];
    am_answer_form form; /* of what the model writes */
} am_chat_traits;
const am_chat_traits *am_chat_traits_of(const am_chat *chat);

/* A client's messages (OpenAI's form) as templates were written for: role names they know, content as one string, the arguments of calls as objects,
 * reasoning as `reasoning_content`. Only members that templates read are carried over, so that what clients add cannot change a prompt. *out: a new
 * array. AM_EINVAL: param says which member ("messages[2].content"). */
enum { AM_CHAT_PARAM_BYTES = 64 };
am_status am_chat_messages(const json_t *messages, json_t **out, char param[AM_CHAT_PARAM_BYTES], am_error *err);
/* A client's tools. Other kinds than functions (web search and the like) are what services run themselves: AM_EINVAL names the first. */
am_status am_chat_tools(const json_t *tools, json_t **out, char param[AM_CHAT_PARAM_BYTES], am_error *err);

typedef struct am_chat_request {
    const json_t *messages;  /* array, as am_chat_messages makes it */
    const json_t *tools;     /* array or NULL; picks `tool_use` where several templates exist */
    const json_t *documents; /* array or NULL; picks `rag` */
    const json_t *kwargs;    /* object or NULL: enable_thinking and other template variables; `messages` and the like cannot be
                                overridden by it, nor `chat_template` */
    bool add_generation_prompt;
    bool continue_final; /* the last message is an answer that goes on: the text ends where it ends, without a generation prompt */
    int64_t now_s;
} am_chat_request;
/* Renders with exactly these variables (an object), the special tokens of the chat's own added where it has none of that name. For comparing
 * with other implementations: the caller is trusted, *_token members are no input. */
am_status am_chat_render_context(const am_chat *chat, const json_t *context, int64_t now_s, am_rendered *out, am_error *err);
am_status am_chat_render(const am_chat *chat, const am_chat_request *request, am_rendered *out, am_error *err);

#endif
