/* What templates cannot say: found by probing, and said in another way without losing a word. The templates here are written for the purpose, each
 * refusing or dropping what real ones do. */
#include "text/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define PLAIN "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
/* As Gemma: no system, strict turns. */
#define STRICT                                                                                                         \
    "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('no ' + m.role) }}{% endif %}" \
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"   \
    "[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
#define FULL                                                                                                           \
    "{% for t in tools or [] %}<{{ t.function.name }} {{ t.function.description }}>{% endfor %}{% for m in messages %}[{{ m.role }}]{{ m.content }}" \
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}{% endfor %}[assistant]"
/* Takes the reasoning of earlier answers out. */
#define FORGETS "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] | trim }}{% endfor %}[assistant]"
#define REWRITES "{{ messages | length }} messages" PLAIN

static am_chat *load(const char *source) {
    am_chat *chat;
    am_error err = {0};
    if (am_chat_load_source(am_str_of(source), NULL, &chat, &err)) fail_msg("%s", err.message);
    return chat;
}

static void traits_are_found(void **state) {
    (void)state;
    static const struct {
        const char *source;
        am_chat_traits traits;
    } cases[] = {
        {PLAIN, {true, true, true, true, false, false, true, true, 0}},
        {STRICT, {false, false, false, false, false, false, true, true, 0}},
        {FULL, {true, true, true, true, true, true, true, true, 0}},
        {FORGETS, {true, true, true, true, false, false, true, false, 0}},
        {REWRITES, {true, true, true, true, false, false, false, false, 0}},
        {"{{ raise_exception('never') }}", {true, true, true, true, true, true, true, true, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_chat *chat = load(cases[i].source);
        const am_chat_traits *t = am_chat_traits_of(chat), *w = &cases[i].traits;
        bool same = t->system == w->system && t->systems == w->systems && t->late_system == w->late_system && t->same_role == w->same_role &&
                    t->tools == w->tools && t->tool_results == w->tool_results && t->appends == w->appends && t->appends_reasoning == w->appends_reasoning;
        if (!same) fail_msg("template %zu: %d%d%d%d %d%d %d%d", i, t->system, t->systems, t->late_system, t->same_role, t->tools, t->tool_results, t->appends, t->appends_reasoning);
        if (!t->appends) assert_int_equal(t->leaves_at, 0); /* the number of messages is its first byte */
        am_chat_free(chat);
    }
}

static void expect(const char *source, const char *messages, const char *tools, const char *wanted) {
    am_chat *chat = load(source);
    am_rendered r;
    am_error err = {0};
    json_t *m = json_loads(messages, 0, NULL), *t = tools ? json_loads(tools, 0, NULL) : NULL;
    assert_non_null(m);
    am_chat_request request = {.messages = m, .tools = t, .add_generation_prompt = true};
    if (am_chat_render(chat, &request, &r, &err)) fail_msg("%s", err.message);
    assert_string_equal(r.text.p, wanted);
    am_rendered_free(&r);
    json_decref(m);
    json_decref(t);
    am_chat_free(chat);
}

static void systems_move_into_the_user(void **state) {
    (void)state;
    expect(STRICT, "[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"system\",\"content\":\"Be kind.\"},{\"role\":\"user\",\"content\":\"Hi\"}]", NULL,
           "[user]Be brief.\n\nBe kind.\n\nHi[assistant]");
    expect(STRICT, "[{\"role\":\"system\",\"content\":\"Alone.\"}]", NULL, "[user]Alone.[assistant]");
    expect(STRICT,
           "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"},{\"role\":\"system\",\"content\":\"now\"},{\"role\":\"user\",\"content\":\"c\"}]",
           NULL, "[user]a[assistant]b[user]now\n\nc[assistant]");
    expect(PLAIN, "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"b\"}]", NULL,
           "[system]s[user]a[user]b[assistant]");
}

static void turns_are_joined(void **state) {
    (void)state;
    expect(STRICT, "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"b\"},{\"role\":\"assistant\",\"content\":\"c\"},{\"role\":\"assistant\",\"content\":\"d\"},{\"role\":\"user\",\"content\":\"e\"}]",
           NULL, "[user]a\n\nb[assistant]c\n\nd[user]e[assistant]");
}

static void tools_are_told_in_words(void **state) {
    (void)state;
    static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"add\",\"description\":\"sum\"}}]";
#define TOLD                                                                                                           \
    "You can call functions. These are there, each as JSON:\n<tools>\n{\"type\":\"function\",\"function\":{\"name\":\"add\",\"description\":\"sum\"}}\n</tools>\n" \
    "To call one, write its name and arguments as JSON:\n<tool_call>\n{\"name\": \"...\", \"arguments\": {...}}\n</tool_call>"
    expect(PLAIN, "[{\"role\":\"user\",\"content\":\"1+1?\"}]", tools, "[system]" TOLD "[user]1+1?[assistant]");
    expect(STRICT, "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"1+1?\"}]", tools, "[user]" TOLD "\n\ns\n\n1+1?[assistant]");
    expect(FULL, "[{\"role\":\"user\",\"content\":\"1+1?\"}]", tools, "<add sum>[user]1+1?[assistant]");
    expect(PLAIN,
           "[{\"role\":\"user\",\"content\":\"1+1?\"},{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"add\",\"arguments\":{\"a\":1}}}]},"
           "{\"role\":\"tool\",\"content\":\"2\"}]",
           NULL, "[user]1+1?[assistant]<tool_call>\n{\"name\":\"add\",\"arguments\":{\"a\":1}}\n</tool_call>[user]<tool_response>\n2\n</tool_response>[assistant]");
}

/* What the user typed stays marked as such wherever it was moved to. */
static void moved_text_is_still_input(void **state) {
    (void)state;
    am_chat *chat = load(STRICT);
    am_rendered r;
    json_t *m = json_loads("[{\"role\":\"system\",\"content\":\"<s>\"},{\"role\":\"user\",\"content\":\"<u>\"}]", 0, NULL);
    am_chat_request request = {.messages = m};
    assert_int_equal(am_chat_render(chat, &request, &r, NULL), AM_OK);
    const char *at = strstr(r.text.p, "<s>\n\n<u>");
    assert_non_null(at);
    size_t begin = (size_t)(at - r.text.p);
    bool covered = false;
    for (size_t i = 0; i < r.n_input; i++) covered |= r.input[i].begin <= begin && r.input[i].end >= begin + 8;
    assert_true(covered);
    am_rendered_free(&r);
    json_decref(m);
    am_chat_free(chat);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(traits_are_found),        cmocka_unit_test(systems_move_into_the_user), cmocka_unit_test(turns_are_joined),
        cmocka_unit_test(tools_are_told_in_words), cmocka_unit_test(moved_text_is_still_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
