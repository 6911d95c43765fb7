/* Owns the Anthropic dialect's table: what happens to a completion becomes content blocks, one open at a time: thoughts, text and calls in the order in
 * which the model writes them. A stream sends them piece by piece; else they are gathered in the choice's parts. */
#include "server/anthropic.h"

#include "base/hash.h"

/* Says that the thought came from here whole: anybody can compute it, and nothing depends on it. */
static void sign(const am_buf *thought, char signature[65]) {
    const am_hash_part part = {thought->n ? thought->p : "", thought->n};
    am_hash hash = am_hash_parts(NULL, &part, 1);
    am_hash_hex(&hash, signature);
}

static void close_block(am_choice *choice) {
    am_completion *c = choice->completion;
    char signature[65] = "";
    if (choice->open_block == AM_BLOCK_NONE) return;
    if (choice->open_block == AM_BLOCK_THINKING) sign(&choice->reasoning, signature);
    if (c->stream) {
        if (signature[0]) am_anthropic_delta(choice, "signature_delta", "signature", am_str_of(signature));
        am_anthropic_block_stop(choice);
    } else if (choice->open_block == AM_BLOCK_THINKING) {
        am_anthropic_block(choice, am_buf_str(&choice->reasoning), signature);
    } else if (choice->open_block == AM_BLOCK_TEXT) {
        am_anthropic_block(choice, (am_str){choice->text.p + choice->block_at, choice->text.n - choice->block_at}, signature);
    }
    am_buf_clear(&choice->reasoning);
    choice->block_at = choice->text.n;
    choice->open_block = AM_BLOCK_NONE;
    choice->n_blocks++;
}

static void open_block(am_choice *choice, am_block_kind kind) {
    if (choice->open_block == kind) return;
    close_block(choice);
    choice->open_block = kind;
    if (choice->completion->stream) am_anthropic_block_start(choice, NULL, (am_str){0});
}

static void on_text(void *arg, am_str text) {
    am_choice *choice = arg;
    open_block(choice, AM_BLOCK_TEXT);
    if (choice->completion->stream) am_anthropic_delta(choice, "text_delta", "text", text);
    else if (am_buf_add(&choice->text, text)) am_completion_out_of_memory(choice->completion);
}

static void on_reasoning(void *arg, am_str text) {
    am_choice *choice = arg;
    open_block(choice, AM_BLOCK_THINKING);
    if (am_buf_add(&choice->reasoning, text)) am_completion_out_of_memory(choice->completion);
    if (choice->completion->stream) am_anthropic_delta(choice, "thinking_delta", "thinking", text);
}

/* Models may write arguments as a text that is no object; an input is always one. What it is then is the caller's to free. */
static am_str input_of(am_str arguments, am_buf *made) {
    json_t *v = NULL;
    bool object = am_json_parse(arguments, false, &v, NULL) == AM_OK && json_is_object(v);
    json_decref(v);
    if (object) return arguments;
    if (arguments.n == 0) return AM_STR("{}");
    am_buf_printf(made, "{\"arguments\":");
    am_json_quote(arguments, made);
    return am_buf_putc(made, '}') ? AM_STR("{}") : am_buf_str(made);
}

static void on_call(void *arg, uint32_t index, am_str name, am_str arguments) {
    am_choice *choice = arg;
    char id[40];
    am_buf made;
    (void)index;
    am_buf_init(&made, SIZE_MAX / 2);
    am_str input = input_of(arguments, &made);
    if (made.failed) am_completion_out_of_memory(choice->completion);
    close_block(choice);
    am_random_id("toolu_", id, sizeof id);
    choice->open_block = AM_BLOCK_CALL;
    if (choice->completion->stream) {
        am_anthropic_block_start(choice, id, name);
        am_anthropic_delta(choice, "input_json_delta", "partial_json", input);
    } else {
        am_anthropic_call(choice, id, name, input);
    }
    close_block(choice);
    am_buf_free(&made);
}

static void begin(am_choice *choice) {
    if (choice->completion->stream) am_anthropic_start(choice->completion);
}

static void finish(am_choice *choice, bool last) {
    (void)last;
    close_block(choice);
    if (choice->completion->stream) am_anthropic_finish(choice);
}

/* In the words that its clients look for when they shorten a conversation. */
static bool too_long(uint32_t n_ctx, size_t n_prompt, bool cut, am_api_error *e) {
    return am_api_fail(e, 400, "context_length_exceeded", "messages", "prompt is too long: %s%zu tokens > %u maximum", cut ? "more than " : "", n_prompt, n_ctx - 1);
}

static const char ping[] = "event: ping\ndata: {\"type\":\"ping\"}\n\n", before_error[] = "event: error\ndata: ";

const am_dialect am_dialect_anthropic = {
    .keep_alive = {ping, sizeof ping - 1},
    .error_event = {before_error, sizeof before_error - 1},
    .id_header = "request-id",
    .error = am_anthropic_error,
    .status = am_anthropic_status,
    .parse = am_anthropic_parse,
    .parse_count = am_anthropic_parse_count,
    .messages = am_anthropic_messages,
    .too_long = too_long,
    .id_prefix = "msg_",
    .begin = begin,
    .sink = {on_text, on_reasoning, on_call, NULL},
    .finish = finish,
    .end = am_anthropic_stop,
    .whole = am_anthropic_whole,
};
