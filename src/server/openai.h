/* The OpenAI dialect: POST /v1/chat/completions.
 *
 *   openai_request.c   JSON -> am_openai_request (one table of fields)
 *   openai_messages.c  messages -> what templates expect
 *   openai_chat.c      a completion begins: prompt, submission
 *   openai_events.c    it goes on and ends: text, calls, errors
 *   openai_reply.c     its JSON: completion, chunks, usage, logprobs */
#ifndef AM_SERVER_OPENAI_H
#define AM_SERVER_OPENAI_H

#include "server/internal.h"
#include "text/answer.h"

enum { AM_MAX_CHOICES = 8, AM_MAX_BIAS = 1024, AM_MAX_STOP_BYTES = 1024 };

typedef struct am_openai_request {
    json_t *root;          /* the body; views below point into it */
    const json_t *messages, *documents;
    json_t *tools;         /* functions the model may call, our reference; NULL: none */
    json_t *kwargs;        /* template variables, our reference; may be NULL */
    am_buf prediction;     /* text that the answer may equal for the most part; owned */
    am_str model, agent_id, reasoning_effort;
    double temperature, top_p, min_p, typical_p; /* NAN: not said */
    double repetition_penalty, frequency_penalty, presence_penalty;
    int64_t top_k, max_tokens, max_completion_tokens, n, top_logprobs; /* INT64_MIN: not said */
    int64_t seed;
    bool stream, include_usage, logprobs, ignore_eos, skip_special_tokens, cache_prompt, has_seed;
    bool has_thinking, enable_thinking, plain_reasoning, add_generation_prompt, continue_final_message;
    bool choice_unforced, format_unforced; /* tool_choice or response_format asks for what is not enforced */
    am_str stops[AM_MAX_STOPS];
    uint32_t n_stops;
    int32_t stop_tokens[AM_MAX_STOP_TOKENS];
    uint32_t n_stop_tokens;
    am_logit_bias *bias; /* owned */
    uint32_t n_bias;
} am_openai_request;

/* false: *e. Free it in either case. n_vocab: for logit_bias. */
bool am_openai_request_parse(am_str body, uint32_t n_vocab, am_openai_request *r, am_api_error *e);
enum { AM_ANY_VOCAB = INT32_MAX }; /* while the model is not known */
/* Its token ids are the model's; false: *e. */
bool am_openai_request_fits(const am_openai_request *r, uint32_t n_vocab, am_api_error *e);
void am_openai_request_free(am_openai_request *r);
/* The request's wishes over the model's own defaults. Views point into r. */
am_sampling am_openai_sampling(const am_openai_request *r, const am_model_info *info);

/* A new array: roles and contents as templates know them. NULL: *e. */
json_t *am_openai_messages(const json_t *messages, uint32_t max_messages, am_api_error *e);

typedef struct am_completion am_completion;

typedef struct am_choice {
    am_completion *completion;
    uint32_t index;
    am_answer answer;
    am_buf text, reasoning; /* whole replies */
    am_buf tool_calls; /* whole replies: the elements of the array */
    am_buf logprobs;   /* the elements of the array not sent yet */
    am_finish finish;
    uint32_t n_generated, n_drafted, n_accepted, n_thought; /* tokens */
    bool ended;
} am_choice;

/* One request being answered. Its choices end one after the other; all members from `lock` on are under it. */
struct am_completion {
    am_exchange *x; /* the exchange this is the state of */
    const am_model *model;       /* of x->instance, as the next two: until the last choice ended */
    const am_model_info *about;
    am_engine *engine;
    bool stream, include_usage, logprobs, choice_unforced, format_unforced;
    bool not_durable; /* the turn of choice 0 could not be written */
    char id[40];
    long long created_s;
    uint32_t n_choices;
    uint64_t engine_ids[AM_MAX_CHOICES]; /* under x->lock, with n_submitted */
    uint32_t n_submitted;
    pthread_mutex_t lock;
    am_choice choices[AM_MAX_CHOICES];
    uint32_t n_ended;
    am_turn_info info; /* of choice 0 */
    bool has_info;
    am_api_error error; /* status 0: none; the first that happened */
    am_buf line;        /* scratch: one chunk */
};

/* openai_events.c */
void am_openai_random_id(const char *prefix, char *out, size_t cap);
am_event_fn am_choice_on_event;
void am_completion_out_of_memory(am_completion *c); /* its error, unless it has one */
void am_choice_ended(am_choice *choice, const am_api_error *error); /* it will get no more events; under the completion's lock */

/* openai_reply.c; all append to an am_buf. */
void am_openai_logprob(const am_completion *c, const am_event *event, am_buf *out);
void am_openai_role_chunk(am_completion *c, uint32_t index);
void am_openai_text_chunk(am_completion *c, am_choice *choice, const char *member, am_str text); /* "content" or "reasoning_content" */
void am_openai_tool_chunk(am_completion *c, uint32_t index, uint32_t call, const char *id, am_str name, am_str arguments);
void am_openai_finish_chunk(am_completion *c, const am_choice *choice, bool last);
void am_openai_usage_chunk(am_completion *c);
am_status am_openai_whole(const am_completion *c, am_buf *out);
void am_openai_tool_call(const char *id, am_str name, am_str arguments, am_buf *out); /* {"id":...,"function":{...}} */

#endif
