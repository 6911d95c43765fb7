/* What a model writes, taken apart as it streams: text, reasoning, and calls of functions in the form that the model's own template writes them in.
 *
 * The form is found when a chat template is loaded, by rendering calls of marker words and looking at what stands around them (chat_form.c). Beside
 * it, <tool_call>{"name": ..., "arguments": ...}</tool_call> is always read, the form in which functions are told to templates without any. */
#ifndef AM_TEXT_ANSWER_H
#define AM_TEXT_ANSWER_H

#include "base/json.h"

typedef enum am_call_kind {
    AM_CALL_JSON,    /* open {"name": ..., "arguments": ...} close, or a list of these */
    AM_CALL_NAMED,   /* open name after_name ... args {arguments} close */
    AM_CALL_TAGGED,  /* open name after_name (param key value VALUE param_end)* close */
    AM_CALL_RELAXED, /* open name {key:value, ...} close, strings between `value`s and keys bare (Gemma) */
    AM_CALL_PYTHON,  /* open [name(key=value, ...), ...] close */
    AM_CALL_HARMONY  /* messages with a channel and a recipient (gpt-oss) */
} am_call_kind;

/* Marks: blanks in them match any blanks or none. Empty: there is none. */
typedef char am_mark[64];
typedef struct am_answer_form {
    am_call_kind kind;
    am_mark section, section_end; /* around all calls */
    am_mark open, close;          /* around each */
    am_mark after_name, args, param, value, json_value, param_end; /* json_value: before values that are no strings, where these differ */
    bool bare;                    /* a call may also be the whole answer, without a mark */
    bool told;                    /* the template shows no calls: this is the form that it is told */
    am_mark think, think_end;
} am_answer_form;
#define AM_ANSWER_MARKS(X) X(section) X(section_end) X(open) X(close) X(after_name) X(args) X(param) X(value) X(json_value) X(param_end) X(think) X(think_end)
void am_answer_form_default(am_answer_form *form);
const char *am_call_kind_name(am_call_kind kind);

typedef struct am_answer_sink {
    void (*text)(void *arg, am_str text);
    void (*reasoning)(void *arg, am_str text);
    void (*call)(void *arg, uint32_t index, am_str name, am_str arguments);
    void *arg;
} am_answer_sink;

typedef struct am_answer {
    am_answer_form form;
    json_t *tools;  /* the request's list, a reference; NULL: nothing is a call */
    am_buf held;    /* what may still become a mark or a call */
    am_buf blanks;  /* at the end of the text so far: given out with what follows, dropped before a call */
    am_buf scratch;
    bool plain;     /* reasoning is text */
    bool started;   /* there has been text that is not blank */
    bool thinking;
    bool after_call, after_thought; /* blanks here are no answer */
    bool pending;   /* held begins with a call that is not whole */
    size_t tried;   /* bytes of held at the last try of it */
    int body;       /* AM_CALL_HARMONY: what the message at hand is */
    am_mark recipient;
    uint32_t n_calls;
} am_answer;

/* prompt: what the model goes on from; one that ends with the beginning of a thought is within it. tools may be NULL; a reference of its own. */
void am_answer_init(am_answer *answer, const am_answer_form *form, json_t *tools, am_str prompt);
void am_answer_free(am_answer *answer);
void am_answer_push(am_answer *answer, am_str text, const am_answer_sink *sink);
void am_answer_finish(am_answer *answer, const am_answer_sink *sink); /* the model stopped; what is not whole is text, but for a call that lacks only its end */

/* All marks that a tokenizer may have as control tokens, which must then be shown, one after the other; with_calls: those of calls too. */
am_status am_answer_marks(const am_answer_form *form, bool with_calls, am_buf *out);

#endif
