/* No request loses a word: every marker word (z...z) of a client's request is in the prompt of every real chat template of the reference data, whatever
 * the template can say. Reasoning is left to templates that know it, since these leave out earlier thoughts on purpose. AM_CHAT_TEMPLATES names a
 * folder with more templates. */
#include "text_truth.h"

#include "text/chat.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SAYS(role, content) "{\"role\":\"" role "\",\"content\":\"" content "\"}"
#define SYSTEM SAYS("system", "zsystemz")
#define USER SAYS("user", "zuserz")
#define OTHER SAYS("user", "zotherz")
#define ANSWER SAYS("assistant", "zanswerz")
#define FUNCTION(id, n, arguments) "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"zcall" n "z\",\"arguments\":" arguments "}}"
#define ONE FUNCTION("call_GhT4kQ0aXv2mN8rLpYw1sE", "1", "\"{\\\"p1\\\":\\\"zargument1z\\\"}\"")
#define TWO FUNCTION("toolu_01A09q90qw90lq917835lq9", "2", "{\"p2\":\"zargument2z\"}")
#define CALLS(content, more, calls) "{\"role\":\"assistant\",\"content\":" content more ",\"tool_calls\":[" calls "]}"
#define RESULT1 "{\"role\":\"tool\",\"tool_call_id\":\"call_GhT4kQ0aXv2mN8rLpYw1sE\",\"content\":\"zresult1z\"}"
#define RESULT2 "{\"role\":\"tool\",\"tool_call_id\":\"toolu_01A09q90qw90lq917835lq9\",\"content\":[{\"type\":\"text\",\"text\":\"zresult2z\"}]}"
#define THINKS(content) "{\"role\":\"assistant\",\"content\":" content ",\"reasoning_content\":\"zzthoughtzz\"}"

static const char tools_json[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"zcall1z\",\"description\":\"zwhat1z\",\"parameters\":{\"type\":\"object\",\"properties\":"
    "{\"p1\":{\"type\":\"string\",\"description\":\"first\"}},\"required\":[\"p1\"]}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"zcall2z\",\"description\":\"zwhat2z\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}}]";

static const char *const conversations[] = {
    USER,
    SYSTEM "," USER "," ANSWER "," OTHER,
    SYSTEM "," SAYS("developer", "zdeveloperz") "," USER,
    USER "," ANSWER "," SYSTEM "," OTHER,
    USER "," OTHER,
    USER "," ANSWER "," SAYS("assistant", "zfurtherz") "," OTHER,
    ANSWER "," USER,
    SYSTEM "," ANSWER "," USER,
    SYSTEM,
    USER "," ANSWER,
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"zpartz\"},{\"type\":\"input_text\",\"text\":\"zinputz\"}]}",
    USER "," CALLS("null", "", ONE) "," RESULT1,
    SYSTEM "," USER "," CALLS("\"zbesidez\"", "", ONE) "," RESULT1,
    USER "," CALLS("\"\"", "", ONE "," TWO) "," RESULT2 "," RESULT1,
    USER "," CALLS("\"zbesidez\"", "", ONE "," TWO) "," RESULT1 "," RESULT2 "," ANSWER "," OTHER,
    USER "," CALLS("\"zbesidez\"", ",\"reasoning_content\":\"zzthoughtzz\"", ONE) "," RESULT1 "," CALLS("null", "", TWO) "," RESULT2 "," ANSWER "," OTHER,
    USER "," ANSWER "," CALLS("null", "", ONE) "," RESULT1 "," OTHER,
    USER "," CALLS("null", "", ONE),
    USER "," CALLS("null", "", ONE) "," RESULT1 "," RESULT2 "," OTHER,
    USER ",{\"role\":\"assistant\",\"content\":null,\"function_call\":{\"name\":\"zcall1z\",\"arguments\":\"zargument1z\"}},"
         "{\"role\":\"function\",\"name\":\"zcall1z\",\"content\":\"zresult1z\"}",
    USER "," THINKS("\"zanswerz\"") "," OTHER,
    USER "," THINKS("\"zanswerz\"") "," THINKS("\"zfurtherz\"") "," OTHER,
};

/* Whether every marker of `from` is in the text; prints the first that is not. */
static bool whole(const char *from, am_str text, bool thoughts) {
    for (const char *p = from; (p = strchr(p, 'z'));) {
        size_t n = 1;
        while (isalnum((unsigned char)p[n])) n++;
        bool marker = n > 3 && p[n - 1] == 'z', thought = p[1] == 'z';
        if (marker && (!thought || thoughts) && !memmem(text.p, text.n, p, n)) {
            printf("lost: %.*s\n", (int)n, p);
            return false;
        }
        p += n;
    }
    return true;
}

/* How many of all requests lose something or are refused. */
static size_t check(const char *name, am_chat *chat) {
    size_t n_wrong = 0;
    for (size_t i = 0; i < 2 * sizeof conversations / sizeof *conversations; i++) {
        char source[4096], param[AM_CHAT_PARAM_BYTES];
        snprintf(source, sizeof source, "[%s]", conversations[i / 2]);
        const char *with = i % 2 ? tools_json : "";
        json_t *given = json_loads(source, 0, NULL), *tools = i % 2 ? json_loads(tools_json, 0, NULL) : NULL, *messages;
        assert_non_null(given);
        am_error err = {0};
        assert_int_equal(am_chat_messages(given, &messages, param, &err), AM_OK);
        am_chat_request request = {.messages = messages, .tools = tools, .add_generation_prompt = true, .now_s = 1752148800};
        am_rendered r;
        am_status status = am_chat_render(chat, &request, &r, &err);
        am_str text = status ? AM_STR("") : am_buf_str(&r.text);
        const am_chat_traits *t = am_chat_traits_of(chat);
        bool thoughts = !strstr(source, "tool_calls") && t->reasoning == AM_REASONING_TEXT && t->history[AM_HISTORY_reasoning].appends;
        if (status || !whole(source, text, thoughts) || !whole(with, text, false)) {
            n_wrong++;
            printf("%s, %s tools: %s\n  %s\n", name, i % 2 ? "with" : "without", source, status ? err.message : r.text.p);
        }
        am_rendered_free(&r);
        json_decref(given);
        json_decref(messages);
        json_decref(tools);
    }
    return n_wrong;
}

/* A template that cannot render a plain conversation (it wants variables of its own, or is broken) is nothing to compare with. */
static bool speaks(const am_chat *chat) {
    json_t *m = json_loads("[" USER "," ANSWER "," OTHER "]", 0, NULL);
    am_chat_request request = {.messages = m, .add_generation_prompt = true};
    am_rendered r;
    bool ok = am_chat_render(chat, &request, &r, NULL) == AM_OK && strstr(r.text.p, "zuserz");
    am_rendered_free(&r);
    json_decref(m);
    return ok;
}

typedef struct tally {
    size_t n, n_wrong;
} tally;

static void add(void *arg, const char *name, am_str source) {
    tally *t = arg;
    json_t *tokens = json_pack("{s:s, s:s}", "bos_token", "<s>", "eos_token", "</s>");
    am_chat *chat;
    if (am_chat_load_source(source, tokens, &chat, NULL) == AM_OK) {
        if (speaks(chat)) {
            t->n++;
            t->n_wrong += check(name, chat);
        }
        am_chat_free(chat);
    }
    json_decref(tokens);
}

static void real_templates_lose_nothing(void **state) {
    (void)state;
    json_t *truth = truth_json("testdata/templates/goldens.json"), *one;
    const char *sha;
    tally t = {0};
    json_object_foreach(json_object_get(truth, "templates"), sha, one) {
        const json_t *source = json_object_get(one, "template");
        add(&t, json_string_value(json_object_get(one, "name")), (am_str){json_string_value(source), json_string_length(source)});
    }
    printf("%zu templates, %zu requests lose something\n", t.n, t.n_wrong);
    json_decref(truth);
    assert_true(t.n > 60);
    assert_int_equal(t.n_wrong, 0);
}

static void more_templates_lose_nothing(void **state) {
    (void)state;
    tally t = {0};
    truth_more_templates(add, &t);
    printf("%zu templates, %zu requests lose something\n", t.n, t.n_wrong);
    assert_int_equal(t.n_wrong, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(real_templates_lose_nothing), cmocka_unit_test(more_templates_lose_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
