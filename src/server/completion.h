/* A chat completion, in whatever dialect it was asked for.
 *
 *   completion_request.c  what a request can say; fields with their types and ranges
 *   completion.c          it begins: prompt, submission
 *   completion_events.c   it goes on and ends
 *   dialect.h             what is each dialect's own: openai.h, anthropic.h
 *
 * The handler runs on a request thread and ends once the engine has the requests; from then on everything happens in events on the engine
 * thread. */
#ifndef AM_SERVER_COMPLETION_H
#define AM_SERVER_COMPLETION_H

#include "server/internal.h"
#include "text/answer.h"

#include <math.h>
#include <stddef.h>

enum { AM_MAX_CHOICES = 8, AM_MAX_BIAS = 1024, AM_MAX_STOP_BYTES = 1024, AM_MAX_UNFORCED = 8 };

typedef struct am_completion_request {
    json_t *root;          /* the body; views below point into it */
    const json_t *messages, *documents;
    json_t *tools;         /* functions the model may call, as am_chat_tools gives them, our reference; NULL: none */
    json_t *kwargs;        /* template variables, our reference; may be NULL */
    am_buf prediction;     /* text that the answer may equal for the most part; owned */
    am_str model, agent_id, reasoning_effort;
    double temperature, top_p, min_p, typical_p; /* NAN: not said */
    double repetition_penalty, frequency_penalty, presence_penalty;
    int64_t top_k, max_tokens, max_completion_tokens, n, top_logprobs; /* INT64_MIN: not said */
    int64_t seed;
    bool stream, include_usage, logprobs, ignore_eos, skip_special_tokens, cache_prompt, has_seed;
    bool has_thinking, enable_thinking, plain_reasoning, add_generation_prompt, continue_final_message;
    const char *unforced[AM_MAX_UNFORCED]; /* static: fields that ask for what is not enforced */
    uint32_t n_unforced;
    am_str stops[AM_MAX_STOPS];
    uint32_t n_stops;
    int32_t stop_tokens[AM_MAX_STOP_TOKENS];
    uint32_t n_stop_tokens;
    am_logit_bias *bias; /* owned */
    uint32_t n_bias;
} am_completion_request;
#define AM_COMPLETION_REQUEST                                                                                                                        \
    ((am_completion_request){.temperature = NAN, .top_p = NAN, .min_p = NAN, .typical_p = NAN, .repetition_penalty = NAN, .frequency_penalty = NAN,      \
                             .presence_penalty = NAN, .top_k = INT64_MIN, .max_tokens = INT64_MIN, .max_completion_tokens = INT64_MIN, .n = 1,           \
                             .seed = INT64_MIN, .skip_special_tokens = true, .cache_prompt = true, .add_generation_prompt = true})

/* A field that means something, its type and range. */
typedef enum am_field_kind { AM_FIELD_NUMBER, AM_FIELD_INTEGER, AM_FIELD_BOOLEAN, AM_FIELD_STRING, AM_FIELD_CUSTOM } am_field_kind;
typedef bool am_field_fn(am_completion_request *r, const json_t *v, am_api_error *e);
typedef struct am_field {
    const char *name;
    am_field_kind kind;
    size_t offset;   /* in am_completion_request: double, int64_t, bool, am_str */
    double min, max; /* of numbers and integers */
    am_field_fn *custom;
} am_field;
/* a field whose member has its name, with its range; one without; one with a function */
#define AM_FIELD_RANGED(name, kind, min, max) {#name, AM_FIELD_##kind, offsetof(am_completion_request, name), min, max, NULL}
#define AM_FIELD_PLAIN(name, kind) {#name, AM_FIELD_##kind, offsetof(am_completion_request, name), 0, 0, NULL}
#define AM_FIELD_WITH(name, fn) {#name, AM_FIELD_CUSTOM, 0, 0, 0, fn}

/* Reads the body and those of its members that stand in the table, in the table's order, into r as it is; null is "not said". false: *e. Free r in
 * either case. */
bool am_completion_request_parse(am_str body, const am_field *fields, size_t n_fields, am_completion_request *r, am_api_error *e);
bool am_completion_request_fits(const am_completion_request *r, uint32_t n_vocab, am_api_error *e); /* its token ids are the model's */
void am_completion_request_unforced(am_completion_request *r, const char *field); /* field: static */
void am_completion_request_free(am_completion_request *r);
/* The request's wishes over the model's own defaults. Views point into r. */
am_sampling am_completion_sampling(const am_completion_request *r, const am_model_info *info);
/* What fields of several dialects are: a string or a list of stop strings; the list of messages. */
bool am_completion_request_stops(am_completion_request *r, const char *field, const json_t *v, am_api_error *e);
am_field_fn am_completion_request_messages;
bool am_field_wrong_type(am_api_error *e, const char *name, const char *wanted, const json_t *v); /* false */
bool am_completion_no_memory(am_api_error *e);                                                    /* false */
bool am_tools_offer(const json_t *tools, const char *name);

typedef struct am_completion am_completion;

typedef enum am_block_kind { AM_BLOCK_NONE, AM_BLOCK_TEXT, AM_BLOCK_THINKING, AM_BLOCK_CALL } am_block_kind;

typedef struct am_choice {
    am_completion *completion;
    uint32_t index;
    am_answer answer;
    am_buf text, reasoning; /* whole replies */
    am_buf parts;    /* whole replies: the elements of the dialect's array of calls, or of blocks */
    am_buf logprobs; /* the elements of the array not sent yet */
    bool begun;      /* the dialect was told that its info is known */
    am_block_kind open_block; /* where answers are blocks: the one at hand, its place, and where it begins in text */
    uint32_t n_blocks;
    size_t block_at;
    am_finish finish;
    am_buf stop; /* the stop string that ended it; empty: none did */
    uint32_t n_generated, n_drafted, n_accepted, n_thought; /* tokens */
    bool ended;
} am_choice;

/* One request being answered. Its choices end one after the other; all members from `lock` on are under it. */
struct am_completion {
    am_exchange *x; /* the exchange this is the state of */
    const am_dialect *dialect;
    const am_model *model;       /* of x->instance, as the next two: until the last choice ended */
    const am_model_info *about;
    am_engine *engine;
    bool stream, include_usage, logprobs;
    bool bounded;     /* by its context, not by what was asked for */
    bool unkept;      /* its agent stays as it was */
    bool not_durable; /* the turn of choice 0 could not be written */
    const char *unforced[AM_MAX_UNFORCED];
    uint32_t n_unforced;
    char id[40];
    long long created_s;
    uint32_t n_choices;
    uint64_t engine_ids[AM_MAX_CHOICES]; /* under x->lock, with n_submitted */
    uint32_t n_submitted;
    pthread_mutex_t lock;
    am_choice choices[AM_MAX_CHOICES];
    uint32_t n_ended;
    am_turn_info info; /* of choice 0 */
    am_api_error error; /* status 0: none; the first that happened */
    am_buf line;        /* scratch: one chunk */
};

/* completion_events.c */
void am_random_id(const char *prefix, char *out, size_t cap);
am_event_fn am_choice_on_event;
void am_completion_out_of_memory(am_completion *c); /* its error, unless it has one */
void am_choice_ended(am_choice *choice, const am_api_error *error); /* it will get no more events; under the completion's lock */
void am_completion_memory_json(const am_completion *c, am_buf *out); /* "agent_memory":{...}, the same in every dialect */

#endif
