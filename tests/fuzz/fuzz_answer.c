/* What a model wrote, read for text, reasoning and calls. The first byte names a form (past the last: a template that the form is found from, up to a NUL),
 * the second how long the pieces are, the third whether there are tools and whether a thought is open. In pieces and at once the same is read, calls are
 * of listed tools with JSON for arguments, and without tools nothing is lost but marks of thoughts and blanks. */
#include "fuzz.h"
#include "text/chat.h"

#include <string.h>

static const am_answer_form forms[] = {
    {.open = "<tool_call>", .close = "</tool_call>", .think = "<think>", .think_end = "</think>"},
    {.bare = true, .open = "<|python_tag|>", .think = "<think>", .think_end = "</think>"},
    {.kind = AM_CALL_NAMED, .section = "<s>", .section_end = "</s>", .open = "<c>", .close = "</c>", .after_name = ":", .args = "<a>", .think = "[THINK]", .think_end = "[/THINK]"},
    {.kind = AM_CALL_TAGGED, .open = "<tool_call>\n<function=", .close = "</function>\n</tool_call>", .after_name = ">", .param = "<parameter=", .value = ">\n",
     .param_end = "\n</parameter>\n", .think = "<think>", .think_end = "</think>"},
    {.kind = AM_CALL_TAGGED, .section = "<d>", .section_end = "</d>", .open = "<i n=\"", .close = "</i>", .after_name = "\">", .param = "<p n=\"", .value = "\" s=\"true\">",
     .json_value = "\" s=\"false\">", .param_end = "</p>\n", .think = "<think>", .think_end = "</think>"},
    {.kind = AM_CALL_RELAXED, .open = "<|tool_call>call:", .close = "<tool_call|>", .value = "<|\"|>", .think = "<think>", .think_end = "</think>"},
    {.kind = AM_CALL_HARMONY},
    {.kind = AM_CALL_PYTHON, .bare = true},
    {.kind = AM_CALL_PYTHON, .open = "<calls>", .close = "</calls>", .think = "<think>", .think_end = "</think>"},
    {.told = true, .open = "<tool_call>", .close = "</tool_call>", .think = "<think>", .think_end = "</think>"},
};
enum { N_FORMS = sizeof forms / sizeof *forms };
static const char tools_json[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"a\":{\"type\":\"string\"},\"b\":{\"type\":\"integer\"}}}}},"
                                 "{\"type\":\"function\",\"function\":{\"name\":\"f2\"}}]";

typedef struct heard {
    am_buf text, thought, calls;
} heard;

static void on_text(void *arg, am_str s) { fuzz_check(s.n && am_buf_add(&((heard *)arg)->text, s) == AM_OK); }
static void on_thought(void *arg, am_str s) { fuzz_check(s.n && am_buf_add(&((heard *)arg)->thought, s) == AM_OK); }
static void on_call(void *arg, uint32_t index, am_str name, am_str arguments) {
    am_buf *calls = &((heard *)arg)->calls;
    fuzz_check(am_str_eq(name, AM_STR("f")) || am_str_eq(name, AM_STR("f2")));
    fuzz_check(!am_buf_printf(calls, "%u %.*s ", index, (int)name.n, name.p) && !am_buf_add(calls, arguments) && !am_buf_putc(calls, '\n'));
}

static void read_all(heard *h, const am_answer_form *form, json_t *tools, am_str prompt, am_str text, size_t step) {
    am_answer_sink sink = {on_text, on_thought, on_call, h};
    am_answer a;
    am_buf_init(&h->text, 1 << 24);
    am_buf_init(&h->thought, 1 << 24);
    am_buf_init(&h->calls, 1 << 24);
    am_answer_init(&a, form, tools, prompt);
    for (size_t at = 0; at < text.n; at += step) am_answer_push(&a, (am_str){text.p + at, text.n - at < step ? text.n - at : step}, &sink);
    am_answer_finish(&a, &sink);
    fuzz_check(a.held.n == 0 && a.blanks.n == 0);
    am_answer_free(&a);
}

static bool same(const am_buf *a, const am_buf *b) { return a->n == b->n && (a->n == 0 || memcmp(a->p, b->p, a->n) == 0); }
static void heard_free(heard *h) {
    am_buf_free(&h->text);
    am_buf_free(&h->thought);
    am_buf_free(&h->calls);
}

/* The form that a template gives; data moves behind it. */
static bool form_of(const uint8_t **data, size_t *size, am_answer_form *form) {
    const uint8_t *end = memchr(*data, 0, *size);
    am_chat *chat = NULL;
    size_t n = end ? (size_t)(end - *data) : *size;
    if (am_chat_load_source((am_str){(const char *)*data, n}, NULL, &chat, NULL)) return false;
    *form = am_chat_traits_of(chat)->form;
    am_chat_free(chat);
    *data += n;
    *size -= n;
    return true;
}

FUZZ_TARGET(answer) {
    static json_t *tools;
    if (!tools) tools = json_loads(tools_json, 0, NULL);
    if (size < 3) return 0;
    am_answer_form form;
    uint8_t which = data[0] % (N_FORMS + 1), flags = data[2];
    size_t step = data[1] ? data[1] : 1;
    data += 3, size -= 3;
    if (which < N_FORMS) form = forms[which];
    else if (!form_of(&data, &size, &form)) return 0;
    am_str text = {(const char *)data, size};
    am_str prompt = flags & 2 ? am_str_of(form.think) : AM_STR("");
    heard whole, parts;
    read_all(&whole, &form, flags & 1 ? tools : NULL, prompt, text, size ? size : 1);
    read_all(&parts, &form, flags & 1 ? tools : NULL, prompt, text, step);
    fuzz_check(same(&whole.text, &parts.text) && same(&whole.thought, &parts.thought) && same(&whole.calls, &parts.calls));
    fuzz_check((flags & 1) || whole.calls.n == 0);
    heard_free(&whole);
    heard_free(&parts);
    return 0;
}
