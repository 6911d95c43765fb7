/* Owns the reading of tool calls out of a model's text. What turns out to be no valid call (bad JSON, no such function) is given out as the text
 * it was: nothing the model wrote is lost. A call that ends with the answer instead of its closing tag counts. */
#include "server/toolcall.h"

#include <string.h>

static const am_str tag_open = {"<tool_call>", 11}, tag_close = {"</tool_call>", 12};
enum { MAX_HELD = 16 << 20 };

void am_tool_parser_init(am_tool_parser *parser, json_t *tools) {
    *parser = (am_tool_parser){.tools = json_incref(tools)};
    am_buf_init(&parser->held, MAX_HELD);
}

void am_tool_parser_free(am_tool_parser *parser) {
    json_decref(parser->tools);
    am_buf_free(&parser->held);
}

static bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

static void give_text(am_tool_parser *parser, am_str text, const am_tool_sink *sink) {
    if (parser->after_call)
        while (text.n && is_blank(text.p[0])) text.p++, text.n--;
    if (text.n == 0) return;
    parser->after_call = false;
    sink->text(sink->arg, text);
}

/* How many bytes at the end of text could be the beginning of tag. */
static size_t partial_tag(am_str text, am_str tag) {
    size_t n = text.n < tag.n - 1 ? text.n : tag.n - 1;
    while (n && memcmp(text.p + text.n - n, tag.p, n)) n--;
    return n;
}

static void drop_front(am_buf *buf, size_t n) {
    buf->n -= n;
    memmove(buf->p, buf->p + n, buf->n + 1);
}

static bool is_listed(const json_t *tools, const char *name) {
    size_t i;
    const json_t *tool;
    json_array_foreach(tools, i, tool) {
        const char *listed = json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
        if (listed && strcmp(listed, name) == 0) return true;
    }
    return false;
}

static bool try_call(am_tool_parser *parser, am_str text, const am_tool_sink *sink) {
    json_t *call = NULL;
    if (am_json_parse(text, false, &call, NULL)) return false;
    const char *name = json_string_value(json_object_get(call, "name"));
    const json_t *arguments = json_object_get(call, "arguments");
    if (!arguments) arguments = json_object_get(call, "parameters");
    bool ok = name && is_listed(parser->tools, name) && (!arguments || json_is_object(arguments) || json_is_string(arguments));
    am_buf dumped;
    am_buf_init(&dumped, MAX_HELD);
    if (ok && !arguments) ok = am_buf_add(&dumped, AM_STR("{}")) == AM_OK;
    else if (ok && json_is_object(arguments)) ok = am_json_dump(arguments, &dumped) == AM_OK;
    else if (ok) ok = am_buf_append(&dumped, json_string_value(arguments), json_string_length(arguments)) == AM_OK;
    if (ok) sink->call(sink->arg, parser->n_calls++, am_str_of(name), am_buf_str(&dumped));
    am_buf_free(&dumped);
    json_decref(call);
    return ok;
}

/* held[0..n) is the inside of a call whose end is known; n_close: bytes of the closing tag after it. */
static void end_call(am_tool_parser *parser, size_t n, size_t n_close, const am_tool_sink *sink) {
    parser->inside = false;
    if (try_call(parser, (am_str){parser->held.p, n}, sink)) {
        parser->after_call = true;
    } else {
        give_text(parser, tag_open, sink);
        give_text(parser, (am_str){parser->held.p, n + n_close}, sink);
    }
    drop_front(&parser->held, n + n_close);
}

/* Decides on the front of held. false: more must come. */
static bool advance(am_tool_parser *parser, const am_tool_sink *sink) {
    am_str held = am_buf_str(&parser->held);
    if (held.n == 0) return false;
    am_str tag = parser->inside ? tag_close : tag_open;
    const char *at = memmem(held.p, held.n, tag.p, tag.n);
    if (parser->inside) {
        if (!at) return false;
        end_call(parser, (size_t)(at - held.p), tag.n, sink);
        return true;
    }
    size_t n = at ? (size_t)(at - held.p) : held.n - partial_tag(held, tag);
    give_text(parser, (am_str){held.p, n}, sink);
    drop_front(&parser->held, n + (at ? tag.n : 0));
    parser->inside = at != NULL;
    return at != NULL;
}

void am_tool_parser_push(am_tool_parser *parser, am_str text, const am_tool_sink *sink) {
    if (!parser->tools || am_buf_add(&parser->held, text)) {
        am_tool_parser_finish(parser, sink); /* out of room: what was held is text, and so is this */
        give_text(parser, text, sink);
        return;
    }
    while (advance(parser, sink)) {}
}

void am_tool_parser_finish(am_tool_parser *parser, const am_tool_sink *sink) {
    if (parser->inside) end_call(parser, parser->held.n, 0, sink);
    else if (parser->held.n) {
        give_text(parser, am_buf_str(&parser->held), sink);
        am_buf_clear(&parser->held);
    }
}
