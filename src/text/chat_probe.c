/* Owns the probes: conversations of marker words, each rendered once. A trait is there when the template renders without an error and every
 * marker is in the text. What a template drops without a word is found the same way as what it refuses. */
#include "text/chat_traits.h"

#include <string.h>

#define SYSTEM "{\"role\":\"system\",\"content\":\"zsystemz\"}"
#define SYSTEM2 "{\"role\":\"system\",\"content\":\"zsecondz\"}"
#define USER "{\"role\":\"user\",\"content\":\"zuserz\"}"
#define USER2 "{\"role\":\"user\",\"content\":\"zotherz\"}"
#define ANSWER "{\"role\":\"assistant\",\"content\":\"zanswerz\"}"
#define CALL                                                                                                           \
    "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"abcdef123\",\"type\":\"function\",\"function\":" \
    "{\"name\":\"zcallz\",\"arguments\":{\"a\":\"zargumentz\"}}}]}"
#define RESULT "{\"role\":\"tool\",\"name\":\"zcallz\",\"tool_call_id\":\"abcdef123\",\"content\":\"zresultz\"}"
#define TOOLS                                                                                                          \
    "[{\"type\":\"function\",\"function\":{\"name\":\"ztoolz\",\"description\":\"zwhatz\",\"parameters\":"            \
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"description\":\"b\"}},\"required\":[\"a\"]}}}]"

enum { MAX_MARKERS = 4 };

/* Small, so that a hostile template costs little at load. */
static const am_template_limits limits = {1000 * 1000, 128, 1 << 20, 16 << 20};

static bool render(const am_chat *chat, const char *messages, const char *tools, am_rendered *out) {
    am_chat_request request = {.add_generation_prompt = true};
    json_t *m = json_loads(messages, 0, NULL), *t = tools ? json_loads(tools, 0, NULL) : NULL;
    request.messages = m;
    request.tools = t;
    am_status status = m && (t || !tools) ? am_chat_render_as_is(chat, &request, &limits, out, NULL) : AM_ENOMEM;
    if (status) *out = (am_rendered){0};
    json_decref(m);
    json_decref(t);
    return status == AM_OK;
}

static bool shows(const am_chat *chat, const char *messages, const char *tools, const char *const markers[MAX_MARKERS]) {
    am_rendered r;
    bool ok = render(chat, messages, tools, &r);
    for (size_t i = 0; ok && i < MAX_MARKERS && markers[i]; i++) ok = r.text.n && memmem(r.text.p, r.text.n, markers[i], strlen(markers[i]));
    am_rendered_free(&r);
    return ok;
}

/* Whether the prompt after `first` and `answer` begins with the prompt of `first` and the answer's text; *at: where not. */
static bool appends(const am_chat *chat, const char *first, const char *then, const char *answer, size_t *at) {
    am_rendered a, b;
    bool ok = render(chat, first, NULL, &a);
    ok = render(chat, then, NULL, &b) && ok;
    *at = 0;
    if (ok) {
        am_buf_add(&a.text, am_str_of(answer));
        while (*at < a.text.n && *at < b.text.n && a.text.p[*at] == b.text.p[*at]) ++*at;
        ok = *at == a.text.n;
    }
    am_rendered_free(&a);
    am_rendered_free(&b);
    return ok;
}

#define SHOWS(messages, tools, ...) shows(chat, "[" messages "]", tools, (const char *const[MAX_MARKERS]){__VA_ARGS__})

void am_chat_traits_probe(const am_chat *chat, am_chat_traits *out) {
    size_t at;
    *out = (am_chat_traits){true, true, true, true, true, true, .appends = true, .appends_reasoning = true};
    if (!SHOWS(USER, NULL, "zuserz")) return;
    out->system = SHOWS(SYSTEM "," USER, NULL, "zsystemz", "zuserz");
    out->systems = out->system && SHOWS(SYSTEM "," SYSTEM2 "," USER, NULL, "zsystemz", "zsecondz", "zuserz");
    out->late_system = SHOWS(USER "," ANSWER "," SYSTEM2 "," USER2, NULL, "zuserz", "zanswerz", "zsecondz", "zotherz");
    out->same_role = SHOWS(USER "," USER2, NULL, "zuserz", "zotherz");
    out->tools = SHOWS(USER, TOOLS, "zuserz", "ztoolz", "zwhatz");
    out->tool_results = SHOWS(USER "," CALL "," RESULT, TOOLS, "zuserz", "zcallz", "zargumentz", "zresultz");
    out->appends = appends(chat, "[" USER "]", "[" USER "," ANSWER "," USER2 "]", "zanswerz", &out->leaves_at);
    out->appends_reasoning =
        appends(chat, "[" USER "]", "[" USER ",{\"role\":\"assistant\",\"content\":\"<think>\\nzthoughtz\\n</think>\\n\\nzanswerz\"}," USER2 "]",
                "<think>\nzthoughtz\n</think>\n\nzanswerz", &at);
}
