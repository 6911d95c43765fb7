/* What templates cannot say: found by probing, and said in another way without losing a word. The templates here are written for the purpose, each
 * refusing or dropping what real ones do. */
#include "base/fault.h"
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
#define TOOLS_SHOWN "{% for t in tools or [] %}<{{ t.function | tojson }}>{% endfor %}"
#define FULL                                                                                                           \
    TOOLS_SHOWN "{% for m in messages %}[{{ m.role }}]{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}{{ m.content or '' }}" \
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}{% endfor %}[assistant]"
/* Takes the reasoning of earlier answers out. */
#define FORGETS "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] | trim }}{% endfor %}[assistant]"
#define REWRITES "{{ messages | length }} messages" PLAIN
/* As Llama 3.1: one call at a time, and no text beside it. */
#define SINGLE                                                                                                         \
    TOOLS_SHOWN "{% for m in messages %}[{{ m.role }}]{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('one call only') }}{% endif %}" \
    "{{ m.tool_calls[0].function | tojson }}{% else %}{{ m.content }}{% endif %}{% endfor %}[assistant]"
/* As gpt-oss: of several calls only the first is shown, reasoning is called thinking, and does not go beside a text and calls. */
#define FIRST_ONLY                                                                                                     \
    TOOLS_SHOWN "{% for m in messages %}[{{ m.role }}]{% if m.tool_calls and m.content and m.thinking %}{{ raise_exception('not both') }}{% endif %}" \
    "{% if m.thinking %}({{ m.thinking }}){% endif %}{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}{% endif %}{% endfor %}[assistant]"
/* As Mistral: ids of nine letters and digits, strict turns of user and assistant. */
#define NINE                                                                                                           \
    TOOLS_SHOWN "{% for m in messages %}[{{ m.role }}]{% if m.tool_calls %}{% for c in m.tool_calls %}{% if c.id is not defined or c.id | length != 9 %}" \
    "{{ raise_exception('9!') }}{% endif %}{{ c.id }}={{ c.function | tojson }}{% endfor %}{% elif m.role == 'tool' %}"  \
    "{% if m.tool_call_id is not defined or m.tool_call_id | length != 9 %}{{ raise_exception('9!') }}{% endif %}{{ m.tool_call_id }}={{ m.content }}" \
    "{% else %}{{ m.content }}{% endif %}{% endfor %}[assistant]"
/* As DeepSeek: calls where there is no content at all, and arguments as text. */
#define NULLS                                                                                                          \
    TOOLS_SHOWN "{% for m in messages %}[{{ m.role }}]{% if m.content is none %}{% for c in m.tool_calls %}{{ c.function.name + ' ' + c.function.arguments }}{% endfor %}" \
    "{% else %}{{ m.content }}{% endif %}{% endfor %}[assistant]"
/* Contents as parts only. */
#define PARTS "{% for m in messages %}[{{ m.role }}]{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}[assistant]"
/* Drops the system's text beside tools, earlier calls, and wants a question. */
#define LOSES                                                                                                          \
    "{% if not messages | selectattr('role', 'equalto', 'user') | list %}{{ raise_exception('no question') }}{% endif %}" TOOLS_SHOWN \
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}" \
    "{% for m in messages %}{% if not (m.role == 'system' and tools) %}[{{ m.role }}]{% if loop.index0 > ns.last or m.role != 'tool' %}{{ m.content }}{% endif %}" \
    "{% if loop.index0 > ns.last %}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}{% endif %}{% endif %}{% endfor %}[assistant]"

static am_chat *load(const char *source) {
    am_chat *chat;
    am_error err = {0};
    if (am_chat_load_source(am_str_of(source), NULL, &chat, &err)) fail_msg("%s", err.message);
    return chat;
}

/* The names of what a template lacks, of how it wants reasoning, and of the histories that do not grow. */
static void traits_text(const am_chat_traits *t, char out[600]) {
#define LACKS(name)                                                                                                    \
    if (!t->name) strcat(out, #name " ");
#define HISTORY(name)                                                                                                  \
    if (!t->history[AM_HISTORY_##name].appends) strcat(out, " " #name);
    out[0] = 0;
    AM_CHAT_TRAITS(LACKS)
    strcat(out, "| ");
    strcat(out, am_chat_reasoning_name(t->reasoning));
    strcat(out, " |");
    AM_CHAT_HISTORIES(HISTORY)
}

#define NO_CALLS "past_calls open_calls parallel_calls calls_in_turns call_content text_then_calls "

static void traits_are_found(void **state) {
    (void)state;
    static const struct {
        const char *source, *traits;
    } cases[] = {
        {PLAIN, "tools documents tool_results " NO_CALLS "| text |"},
        {STRICT, "system systems late_system same_role assistant_first tools documents tool_results results " NO_CALLS "| text |"},
        {FULL, "documents | reasoning_content |"},
        {FORGETS, "tools documents tool_results " NO_CALLS "| nowhere | reasoning"},
        {REWRITES, "tools documents tool_results " NO_CALLS "| text | plain system tools calls reasoning"},
        {SINGLE, "documents parallel_calls call_content | text |"},
        {FIRST_ONLY, "documents parallel_calls | thinking |"},
        {NINE, "documents any_id no_id call_content | text |"},
        {NULLS, "documents object_arguments empty_content call_content | text |"},
        {PARTS, "strings tools documents tool_results " NO_CALLS "| text |"},
        {LOSES, "system_tools no_user documents results past_calls | text | calls"},
        {"{{ raise_exception('never') }}", "| reasoning_content |"},
        {"{% for m in messages %}{{ bos_token + m.content }}{% endfor %}", "tools documents tool_results " NO_CALLS "| text |"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_chat *chat = load(cases[i].source);
        char text[600];
        traits_text(am_chat_traits_of(chat), text);
        if (strcmp(text, cases[i].traits)) fail_msg("template %zu: '%s' instead of '%s'", i, text, cases[i].traits);
        am_chat_free(chat);
    }
    am_chat *chat = load(REWRITES); /* the number of messages is its first byte */
    const am_chat_history *h = &am_chat_traits_of(chat)->history[AM_HISTORY_plain];
    assert_int_equal(h->leaves_at, 0);
    assert_memory_equal(h->had, "1 messages", 10);
    assert_memory_equal(h->has, "3 messages", 10);
    am_chat_free(chat);
}

/* As a server's request: the client's messages in normal form, then adapted. */
static void expect(const char *source, const char *messages, const char *tools, const char *wanted) {
    am_chat *chat = load(source);
    am_rendered r;
    am_error err = {0};
    char param[AM_CHAT_PARAM_BYTES];
    json_t *given = json_loads(messages, 0, NULL), *t = tools ? json_loads(tools, 0, NULL) : NULL, *m;
    assert_non_null(given);
    if (am_chat_messages(given, &m, param, &err)) fail_msg("%s", err.message);
    json_t *before = json_deep_copy(m);
    am_chat_request request = {.messages = m, .tools = t, .add_generation_prompt = true};
    if (am_chat_render(chat, &request, &r, &err)) fail_msg("%s", err.message);
    assert_string_equal(r.text.p, wanted);
    assert_true(json_equal(before, m)); /* the request's own messages stay as they were */
    am_rendered_free(&r);
    json_decref(given);
    json_decref(before);
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
    "You can call functions. These are there, each as JSON:\n<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"add\", \"description\": \"sum\"}}\n</tools>\n" \
    "To call one, write its name and arguments as JSON:\n<tool_call>\n{\"name\": \"...\", \"arguments\": {...}}\n</tool_call>"
    expect(PLAIN, "[{\"role\":\"user\",\"content\":\"1+1?\"}]", tools, "[system]" TOLD "[user]1+1?[assistant]");
    expect(STRICT, "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"1+1?\"}]", tools, "[user]" TOLD "\n\ns\n\n1+1?[assistant]");
    expect(FULL, "[{\"role\":\"user\",\"content\":\"1+1?\"}]", tools, "<{\"name\": \"add\", \"description\": \"sum\"}>[user]1+1?[assistant]");
    expect(PLAIN,
           "[{\"role\":\"user\",\"content\":\"1+1?\"},{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"add\",\"arguments\":{\"a\":1}}}]},"
           "{\"role\":\"tool\",\"content\":\"2\"}]",
           NULL, "[user]1+1?[assistant]<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>[tool]2[assistant]");
}

#define USER "{\"role\":\"user\",\"content\":\"u\"}"
#define CALL(id, name, arguments) "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"arguments\":\"" arguments "\"}}"
#define CALLS(content, more, calls) "{\"role\":\"assistant\",\"content\":" content more ",\"tool_calls\":[" calls "]}"
#define RESULT(id, content) "{\"role\":\"tool\",\"tool_call_id\":\"" id "\",\"content\":\"" content "\"}"
#define A CALL("call_1", "a", "{\\\"x\\\":1}")
#define B CALL("call_2", "b", "")
#define SAID_A "{\"name\": \"a\", \"arguments\": {\"x\": 1}}"
#define SAID_B "{\"name\": \"b\", \"arguments\": {}}"

/* Documents go to a template that shows them, and into a system text where none does. */
static void documents_are_shown(void **state) {
    (void)state;
    static const char *const sources[] = {PLAIN, "{% for d in documents or [] %}({{ d.title }}:{{ d.text }}){% endfor %}" PLAIN, STRICT};
    static const char *const wanted[] = {
        "[system]These documents are there, each as JSON:\n<documents>\n{\"title\": \"T\", \"text\": \"body\"}\n</documents>[user]hi[assistant]",
        "(T:body)[user]hi[assistant]",
        "[user]These documents are there, each as JSON:\n<documents>\n{\"title\": \"T\", \"text\": \"body\"}\n</documents>\n\nhi[assistant]"};
    json_t *messages = json_loads("[{\"role\":\"user\",\"content\":\"hi\"}]", 0, NULL), *documents = json_loads("[{\"title\":\"T\",\"text\":\"body\"}]", 0, NULL);
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        am_chat *chat = load(sources[i]);
        am_chat_request request = {.messages = messages, .documents = documents, .add_generation_prompt = true};
        am_rendered r;
        assert_int_equal(am_chat_render(chat, &request, &r, NULL), AM_OK);
        assert_string_equal(r.text.p, wanted[i]);
        am_rendered_free(&r);
        am_chat_free(chat);
    }
    json_decref(messages);
    json_decref(documents);
}

/* Schemas made of unsigned types have them, and ids of 20 digits. */
static void wide_integers_keep_their_digits(void **state) {
    (void)state;
    static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"n\":{\"maximum\":18446744073709551615}}}}}]";
    static const char *const sources[] = {FULL, PLAIN, "{% for t in tools %}{% set m = t.function.parameters.properties.n %}{{ m }}{{ m.maximum is number }}{{ m.maximum is string }}{{ m.maximum }}{% endfor %}" PLAIN};
    static const char *const shown[] = {"{\"maximum\": 18446744073709551615}", "{\"maximum\": 18446744073709551615}", "{'maximum': 18446744073709551615}TrueFalse18446744073709551615"};
    json_t *messages = json_loads("[{\"role\":\"user\",\"content\":\"hi\"}]", 0, NULL), *given, *taken;
    char param[AM_CHAT_PARAM_BYTES];
    assert_int_equal(am_json_parse_exact(am_str_of(tools), &given, NULL), AM_OK);
    assert_int_equal(am_chat_tools(given, &taken, param, NULL), AM_OK);
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        am_chat *chat = load(sources[i]);
        am_chat_request request = {.messages = messages, .tools = taken, .add_generation_prompt = true};
        am_rendered r;
        assert_int_equal(am_chat_render(chat, &request, &r, NULL), AM_OK);
        if (!strstr(r.text.p, shown[i])) fail_msg("%s", r.text.p);
        am_rendered_free(&r);
        am_chat_free(chat);
    }
    json_decref(messages);
    json_decref(given);
    json_decref(taken);
}

static void calls_keep_all_they_say(void **state) {
    (void)state;
    /* as they are, but results stand in the order of their calls */
    expect(FULL, "[" USER "," CALLS("\"t\"", ",\"reasoning\":\"r\"", A "," B) "," RESULT("call_2", "rb") "," RESULT("call_1", "ra") "]", NULL,
           "[user]u[assistant](r)t" SAID_A SAID_B "[tool]ra[tool]rb[assistant]");
    /* text beside calls becomes a message before them, calls take turns */
    expect(SINGLE, "[" USER "," CALLS("\"t\"", "", A "," B) "," RESULT("call_1", "ra") "," RESULT("call_2", "rb") "]", NULL,
           "[user]u[assistant]t[assistant]" SAID_A "[tool]ra[assistant]" SAID_B "[tool]rb[assistant]");
    expect(SINGLE, "[" USER "," CALLS("null", ",\"reasoning\":\"r\"", A) "," RESULT("call_1", "ra") "]", NULL,
           "[user]u[assistant]<think>\nr\n</think>[assistant]" SAID_A "[tool]ra[assistant]");
    expect(FIRST_ONLY, "[" USER "," CALLS("\"t\"", "", A "," B) "," RESULT("call_1", "ra") "," RESULT("call_2", "rb") "]", NULL,
           "[user]u[assistant]t" SAID_A "[tool]ra[assistant]" SAID_B "[tool]rb[assistant]");
    expect(NULLS, "[" USER "," CALLS("\"\"", "", A) "," RESULT("call_1", "ra") "]", NULL, "[user]u[assistant]a {\"x\": 1}[tool]ra[assistant]");
    /* in words, with names where order alone would tell */
    expect(STRICT, "[" USER "," CALLS("\"t\"", "", A) "," RESULT("call_1", "ra") "]", NULL,
           "[user]u[assistant]t\n<tool_call>\n" SAID_A "\n</tool_call>[user]<tool_response>\nra\n</tool_response>[assistant]");
    expect(STRICT, "[" USER "," CALLS("\"\"", "", A "," B) "," RESULT("call_2", "rb") "," RESULT("call_1", "ra") "," USER "]", NULL,
           "[user]u[assistant]<tool_call>\n" SAID_A "\n</tool_call>\n<tool_call>\n" SAID_B "\n</tool_call>[user]<tool_response>\na:\nra\n</tool_response>\n\n"
           "<tool_response>\nb:\nrb\n</tool_response>\n\nu[assistant]");
    /* refused though no probe foresaw it: in words too */
    expect(FIRST_ONLY, "[" USER "," CALLS("\"t\"", ",\"reasoning_content\":\"r\"", A) "," RESULT("call_1", "ra") "]", NULL,
           "[user]u[assistant](r)t\n<tool_call>\n" SAID_A "\n</tool_call>[user]<tool_response>\nra\n</tool_response>[assistant]");
    /* arguments that are no JSON */
    expect(FULL, "[" USER "," CALLS("null", "", CALL("call_1", "a", "{x")) "," RESULT("call_1", "ra") "]", NULL,
           "[user]u[assistant]<tool_call>\n{\"name\": \"a\", \"arguments\": \"{x\"}\n</tool_call>[tool]ra[assistant]");
    /* results of no call, and calls without results, stay */
    expect(FULL, "[" USER "," CALLS("\"\"", "", A) "," RESULT("call_1", "ra") "," RESULT("call_1", "rc") "," RESULT("zz", "rd") "]", NULL,
           "[user]u[assistant]" SAID_A "[tool]ra[tool]rc[tool]rd[assistant]");
    expect(SINGLE, "[" USER "," CALLS("\"\"", "", A "," B) "," RESULT("call_2", "rb") "]", NULL, "[user]u[assistant]" SAID_A "[assistant]" SAID_B "[tool]rb[assistant]");
    /* earlier calls, which LOSES drops, are told in words, and its system text goes to the user where there are tools */
    expect(LOSES, "[" USER "," CALLS("\"\"", "", A) "," RESULT("call_1", "ra") "," USER "]", NULL,
           "[user]u[assistant]<tool_call>\n" SAID_A "\n</tool_call>[user]<tool_response>\nra\n</tool_response>[user]u[assistant]");
    expect(LOSES, "[{\"role\":\"system\",\"content\":\"s\"}," USER "]", "[{\"function\":{\"name\":\"a\"}}]", "<{\"name\": \"a\"}>[user]s\n\nu[assistant]");
}

/* The same nine letters for a call and its result, whatever else the conversation holds; ids of nine are left alone. */
static void ids_of_nine(void **state) {
    (void)state;
#define NINE_OF_CALL_1 "COAmd84Y4"
    expect(NINE, "[" USER "," CALLS("null", "", A) "," RESULT("call_1", "ra") "]", NULL,
           "[user]u[assistant]" NINE_OF_CALL_1 "=" SAID_A "[tool]" NINE_OF_CALL_1 "=ra[assistant]");
    expect(NINE, "[" USER "," CALLS("null", "", A) "," RESULT("call_1", "ra") ",{\"role\":\"assistant\",\"content\":\"x\"}," USER "]", NULL,
           "[user]u[assistant]" NINE_OF_CALL_1 "=" SAID_A "[tool]" NINE_OF_CALL_1 "=ra[assistant]x[user]u[assistant]");
    expect(NINE, "[" USER "," CALLS("null", "", CALL("abcDEF123", "b", "")) "," RESULT("abcDEF123", "rb") "]", NULL,
           "[user]u[assistant]abcDEF123=" SAID_B "[tool]abcDEF123=rb[assistant]");
    /* without ids, the older form */
    expect(NINE, "[" USER ",{\"role\":\"assistant\",\"content\":null,\"function_call\":{\"name\":\"b\",\"arguments\":\"\"}},{\"role\":\"function\",\"name\":\"b\",\"content\":\"rb\"}]",
           NULL, "[user]u[assistant]TTh0kBuVr=" SAID_B "[tool]TTh0kBuVr=rb[assistant]");
}

static void reasoning_goes_where_it_is_read(void **state) {
    (void)state;
#define THINKS "{\"role\":\"assistant\",\"content\":\"x\",\"reasoning\":\"r\"}"
    expect(FULL, "[" USER "," THINKS "," USER "]", NULL, "[user]u[assistant](r)x[user]u[assistant]");
    expect(FIRST_ONLY, "[" USER "," THINKS "," USER "]", NULL, "[user]u[assistant](r)x[user]u[assistant]");
    expect(PLAIN, "[" USER "," THINKS "," USER "]", NULL, "[user]u[assistant]<think>\nr\n</think>\n\nx[user]u[assistant]");
    expect(STRICT, "[" USER "," THINKS "," THINKS "," USER "]", NULL,
           "[user]u[assistant]<think>\nr\n</think>\n\nx\n\n<think>\nr\n</think>\n\nx[user]u[assistant]");
    expect(PLAIN, "[" USER ",{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"r\"},{\"type\":\"text\",\"text\":\"x\"}]}," USER "]", NULL,
           "[user]u[assistant]<think>\nr\n</think>\n\nx[user]u[assistant]");
}

static void who_begins(void **state) {
    (void)state;
    expect(STRICT, "[{\"role\":\"assistant\",\"content\":\"hello\"}," USER "]", NULL, "[user][assistant]hello[user]u[assistant]");
    expect(STRICT, "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"assistant\",\"content\":\"hello\"}," USER "]", NULL, "[user]s[assistant]hello[user]u[assistant]");
    expect(PLAIN, "[{\"role\":\"assistant\",\"content\":\"hello\"}," USER "]", NULL, "[assistant]hello[user]u[assistant]");
    expect(LOSES, "[{\"role\":\"system\",\"content\":\"s\"}]", NULL, "[system]s[user][assistant]");
    expect(PARTS, "[{\"role\":\"system\",\"content\":\"s\"}," USER "]", NULL, "[system]s[user]u[assistant]");
}

/* A text that goes on ends where it ends, also where the template trims it; marks go no further than the text. */
static void final_message_goes_on(void **state) {
    (void)state;
    static const struct {
        const char *source, *content, *wanted;
    } cases[] = {
        {"{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}", "so be ", "[user]u</s>[assistant]so be "},
        {"{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}</s>{% endfor %}", "so be ", "[user]u</s>[assistant]so be"},
        {"{% for m in messages %}[{{ m.role }}]{{ m.content if m.role == 'user' }}</s>{% endfor %}", "so be ", NULL},
        {PLAIN, "", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_chat *chat = load(cases[i].source);
        am_rendered r;
        am_error err = {0};
        json_t *m = json_pack("[{s:s, s:s}, {s:s, s:s}]", "role", "user", "content", "u", "role", "assistant", "content", cases[i].content);
        am_chat_request request = {.messages = m, .add_generation_prompt = true, .continue_final = true};
        am_status status = am_chat_render(chat, &request, &r, &err);
        assert_int_equal(status, cases[i].wanted ? AM_OK : AM_EINVAL);
        if (cases[i].wanted) {
            assert_string_equal(r.text.p, cases[i].wanted);
            assert_int_equal(r.n_input, 2);
            assert_int_equal(r.input[1].end, r.text.n);
        }
        am_rendered_free(&r);
        json_decref(m);
        am_chat_free(chat);
    }
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

static void *faulty_malloc(size_t n) { return am_fault_alloc() ? NULL : malloc(n); }

/* Each allocation fails in turn, from the client's messages to the prompt: an error that says so, or the very prompt. Then jansson's too: its copies
 * may leave out members and say nothing, so there only survival is asked for. */
static void every_failed_allocation_is_survived(void **state) {
    (void)state;
    static const char *const sources[] = {STRICT, SINGLE, NINE, NULLS, FULL};
    json_t *given = json_loads("[" USER "," CALLS("\"t\"", ",\"reasoning\":\"r\"", A "," B) "," RESULT("call_2", "rb") "," RESULT("call_1", "ra") "," USER "]", 0, NULL);
    assert_non_null(given);
    size_t n_failed = 0;
    for (size_t i = 0; i < 2 * sizeof sources / sizeof *sources; i++) {
        bool strict = i % 2 == 0;
        json_set_alloc_funcs(strict ? malloc : faulty_malloc, free);
        char *prompt = NULL;
        long n = 0;
        for (int n_whole = 0; n_whole < 50; n++) { /* whole: nothing was left to fail */
            am_chat *chat = NULL;
            json_t *m = NULL;
            am_rendered r = {0};
            am_error err = {0};
            char param[AM_CHAT_PARAM_BYTES];
            am_fault_alloc_at(n); /* at 0 none fails: the prompt to compare with */
            am_status status = am_chat_load_source(am_str_of(sources[i / 2]), NULL, &chat, &err);
            if (!status) status = am_chat_messages(given, &m, param, &err);
            am_chat_request request = {.messages = m, .add_generation_prompt = true};
            if (!status) status = am_chat_render(chat, &request, &r, &err);
            am_fault_alloc_at(0);
            if (status && ((strict && status != AM_ENOMEM) || !err.message[0])) fail_msg("template %zu, allocation %ld: %d %s", i, n, status, err.message);
            if (n == 0) prompt = strdup(r.text.p);
            if (!status && strict) assert_string_equal(r.text.p, prompt);
            n_failed += status != AM_OK;
            n_whole = status || n == 0 ? 0 : n_whole + 1;
            am_rendered_free(&r);
            json_decref(m);
            am_chat_free(chat);
        }
        free(prompt);
    }
    json_set_alloc_funcs(malloc, free);
    printf("%zu allocations failed in turn\n", n_failed);
    assert_true(n_failed > 100);
    json_decref(given);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(traits_are_found),        cmocka_unit_test(systems_move_into_the_user), cmocka_unit_test(turns_are_joined),
        cmocka_unit_test(tools_are_told_in_words), cmocka_unit_test(documents_are_shown), cmocka_unit_test(wide_integers_keep_their_digits), cmocka_unit_test(calls_keep_all_they_say),    cmocka_unit_test(ids_of_nine),
        cmocka_unit_test(reasoning_goes_where_it_is_read), cmocka_unit_test(who_begins), cmocka_unit_test(final_message_goes_on),
        cmocka_unit_test(moved_text_is_still_input), cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
