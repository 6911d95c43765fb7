/* Owns the OpenAI dialect's table: what happens to a completion becomes chunks, or is kept for one reply. */
#include "server/openai.h"

static void on_text(void *arg, am_str text) {
    am_choice *choice = arg;
    am_completion *c = choice->completion;
    if (c->stream) am_openai_text_chunk(c, choice, "content", text);
    else if (am_buf_add(&choice->text, text)) am_completion_out_of_memory(c);
}

static void on_reasoning(void *arg, am_str text) {
    am_choice *choice = arg;
    am_completion *c = choice->completion;
    if (c->stream) am_openai_text_chunk(c, choice, "reasoning_content", text);
    else if (am_buf_add(&choice->reasoning, text)) am_completion_out_of_memory(c);
}

static void on_call(void *arg, uint32_t index, am_str name, am_str arguments) {
    am_choice *choice = arg;
    am_completion *c = choice->completion;
    char id[40];
    am_random_id("call_", id, sizeof id);
    if (c->stream) {
        am_openai_tool_chunk(c, choice->index, index, id, name, arguments);
        return;
    }
    am_buf_printf(&choice->parts, "%s{", index ? "," : "");
    am_openai_tool_call(id, name, arguments, &choice->parts);
    if (am_buf_printf(&choice->parts, "}")) am_completion_out_of_memory(c);
}

static void begin(am_choice *choice) {
    if (choice->completion->stream) am_openai_role_chunk(choice->completion, choice->index);
}

static void on_token(am_choice *choice, const am_event *event) {
    if (choice->completion->logprobs && event->token >= 0) am_openai_logprob(choice->completion, event, &choice->logprobs);
}

/* The token's text may still be held back. */
static void token_done(am_choice *choice) {
    if (choice->completion->stream && choice->logprobs.n) am_openai_text_chunk(choice->completion, choice, "content", AM_STR(""));
}

static void finish(am_choice *choice, bool last) {
    if (choice->completion->stream) am_openai_finish_chunk(choice->completion, choice, last);
}

static void end(am_completion *c) {
    if (c->include_usage) am_openai_usage_chunk(c);
    am_stream_write(c->x, AM_STR("data: [DONE]\n\n"));
}

static bool too_long(uint32_t n_ctx, size_t n_prompt, bool cut, am_api_error *e) {
    return am_api_fail(e, 400, "context_length_exceeded", "messages", "This model's maximum context length is %u tokens. However, your messages resulted in %s%zu tokens.",
                       n_ctx, cut ? "more than " : "", n_prompt);
}

static const char comment[] = ": keep-alive\n\n", before_error[] = "data: ";

const am_dialect am_dialect_openai = {
    .keep_alive = {comment, sizeof comment - 1},
    .error_event = {before_error, sizeof before_error - 1},
    .error = am_openai_error,
    .parse = am_openai_parse,
    .messages = am_openai_messages,
    .too_long = too_long,
    .id_prefix = "chatcmpl-",
    .begin = begin,
    .token = on_token,
    .token_done = token_done,
    .sink = {on_text, on_reasoning, on_call, NULL},
    .finish = finish,
    .end = end,
    .whole = am_openai_whole,
};
