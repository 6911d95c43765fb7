/* agents/: the public API over a real data folder: a turn, coming back warm after close and open, fork, rm, list, who holds the folder. */
#include "agents/runtime.h"
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64];

static int setup(void **state) {
    (void)state;
    am_log_setup(AM_LOG_OFF, false);
    strcpy(dir, "/tmp/am_runtime_XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static am_runtime *open_runtime(void) {
    am_runtime *rt = NULL;
    char err[512] = "";
    am_config config = {.data_dir = dir, .n_ctx = 2048, .kv_memory_bytes = 64u << 20, .n_threads = 2};
    if (am_runtime_open(&config, &rt, err, sizeof err)) fail_msg("%s", err);
    return rt;
}

static const char told[] = "[{\"role\":\"user\",\"content\":\"The code for the north gate is QX-1185.\"}]";
static const char asked[] = "[{\"role\":\"user\",\"content\":\"The code for the north gate is QX-1185.\"},"
                            "{\"role\":\"assistant\",\"content\":\"%s\"},"
                            "{\"role\":\"user\",\"content\":\"What is the code for the north gate?\"}]";

static am_reply turn(am_runtime *rt, const char *agent, const char *messages) {
    char err[512] = "";
    am_reply reply;
    am_turn_params params = {.agent = agent, .messages = messages};
    if (am_runtime_turn(rt, &params, &reply, err, sizeof err)) fail_msg("%s", err);
    return reply;
}

static int count_agent(void *arg, const char *agent, uint32_t n_tokens, const char *tier) {
    (void)tier;
    assert_true(n_tokens > 10);
    if (strcmp(agent, "alice") == 0 || strcmp(agent, "bob") == 0) ++*(int *)arg;
    return 0;
}

static void an_agent_comes_back_warm_and_knows(void **state) {
    (void)state;
    char err[512];
    am_runtime *rt = open_runtime();
    am_reply first = turn(rt, "alice", told);
    assert_string_equal(first.agent, "alice");
    assert_string_equal(first.tier, "cold");
    assert_string_equal(first.finish_reason, "stop");
    assert_true(first.completion_tokens > 1 && first.first_token_ms > 0);
    char messages[1024];
    snprintf(messages, sizeof messages, asked, first.text);
    am_runtime_close(rt);

    rt = open_runtime();
    am_reply second = turn(rt, "alice", messages);
    assert_string_equal(second.tier, "warm");
    assert_true(second.cached_tokens >= first.prompt_tokens + first.completion_tokens - 1); /* what the model wrote is reused too */
    assert_non_null(strstr(second.text, "QX-1185"));
    assert_int_equal(am_runtime_fork(rt, "alice", "bob", err, sizeof err), 0);
    assert_int_not_equal(am_runtime_fork(rt, "nobody", "carol", err, sizeof err), 0);
    am_reply forked = turn(rt, "bob", messages);
    assert_string_not_equal(forked.tier, "cold");
    assert_string_equal(forked.text, second.text);
    am_reply nameless = turn(rt, NULL, messages);
    assert_true(nameless.cached_tokens > 0);
    int n = 0;
    assert_int_equal(am_runtime_list(rt, count_agent, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(am_runtime_rm(rt, "bob", err, sizeof err), 0);
    n = 0;
    am_runtime_list(rt, count_agent, &n);
    assert_int_equal(n, 1);
    am_reply_free(&first), am_reply_free(&second), am_reply_free(&forked), am_reply_free(&nameless);
    am_runtime_close(rt);
}

static int stop_at_second(void *arg, const char *text, size_t n) {
    (void)text, (void)n;
    return ++*(int *)arg >= 2;
}

static void a_turn_can_be_stopped_and_bad_input_is_refused(void **state) {
    (void)state;
    char err[512] = "";
    am_reply reply;
    am_runtime *rt = open_runtime();
    int n = 0;
    am_turn_params params = {.agent = "stopper", .messages = told, .on_piece = stop_at_second, .arg = &n};
    assert_int_equal(am_runtime_turn(rt, &params, &reply, err, sizeof err), 0);
    assert_int_equal(n, 2);
    am_reply_free(&reply);
    const char *bad[] = {"", "{", "{}", "[]", "[{\"role\":1}]", "null"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        params = (am_turn_params){.messages = bad[i], .max_tokens = 1};
        int status = am_runtime_turn(rt, &params, &reply, err, sizeof err);
        if (status) assert_true(err[0] && !reply.text);
        am_reply_free(&reply);
    }
    params = (am_turn_params){.agent = "a\nb", .messages = told};
    assert_int_not_equal(am_runtime_turn(rt, &params, &reply, err, sizeof err), 0);
    am_runtime_close(rt);
}

/* The library takes messages as the server does: parts, null contents, arguments as text, developer messages. */
static void messages_are_what_the_server_takes(void **state) {
    (void)state;
#define TOOLS "[{\"type\":\"function\",\"function\":{\"name\":\"get\",\"description\":\"gets\",\"parameters\":{}}}]"
    static const struct {
        const char *messages, *same, *tools;
    } pairs[] = {
        {"[{\"role\":\"developer\",\"content\":\"d\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}]",
         "[{\"role\":\"system\",\"content\":\"d\"},{\"role\":\"user\",\"content\":\"a\\nb\",\"cache_control\":1}]", NULL},
        {"[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\","
         "\"function\":{\"name\":\"get\",\"arguments\":\"{\\\"k\\\":1}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"5\"}]",
         "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\","
         "\"function\":{\"name\":\"get\",\"arguments\":{\"k\":1}}}]},{\"role\":\"function\",\"name\":\"get\",\"content\":[{\"type\":\"text\",\"text\":\"5\"}]}]", TOOLS},
    };
    am_runtime *rt = open_runtime();
    for (size_t i = 0; i < 2 * sizeof pairs / sizeof *pairs; i++) {
        char err[512] = "", agent[16];
        am_reply first, second;
        snprintf(agent, sizeof agent, "pair%zu", i);
        am_turn_params params = {.agent = agent, .messages = pairs[i / 2].messages, .tools = pairs[i / 2].tools, .max_tokens = 1};
        if (am_runtime_turn(rt, &params, &first, err, sizeof err)) fail_msg("%s", err);
        params.messages = pairs[i / 2].same;
        if (am_runtime_turn(rt, &params, &second, err, sizeof err)) fail_msg("%s", err);
        assert_int_equal(first.prompt_tokens, second.prompt_tokens);
        assert_int_equal(second.cached_tokens, second.prompt_tokens - 1); /* the same prompt, token for token */
        assert_string_equal(first.text, second.text);
        am_reply_free(&first);
        am_reply_free(&second);
    }
    static const struct {
        const char *messages, *tools, *says;
    } refused[] = {{"[]", NULL, "must not be empty"}, {"{}", NULL, "must be a JSON array"}, {"[{\"role\":\"x\"}]", NULL, "messages[0].role"},
                   {"[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]", NULL, "no text"}, {told, "{}", "'tools'"}, {told, "[{}]", "tools[0].function.name"}};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char err[512] = "";
        am_reply reply;
        am_turn_params params = {.messages = refused[i].messages, .tools = refused[i].tools, .max_tokens = 1};
        assert_int_not_equal(am_runtime_turn(rt, &params, &reply, err, sizeof err), 0);
        if (!strstr(err, refused[i].says)) fail_msg("'%s' does not say %s", err, refused[i].says);
        am_reply_free(&reply);
    }
    am_runtime_close(rt);
}

static void a_second_runtime_on_the_folder_is_told_who_holds_it(void **state) {
    (void)state;
    am_runtime *rt = open_runtime(), *second;
    am_error err;
    assert_int_equal(am_runtime_start(&(am_runtime_options){.data_dir = dir, .who = "second"}, &second, &err), AM_EBUSY);
    assert_non_null(strstr(err.message, "library"));
    assert_null(second);
    am_runtime_close(rt);
}

static void a_pool_too_small_for_one_context_is_refused_and_everything_given_back(void **state) {
    (void)state;
    am_runtime *rt;
    am_error err;
    am_runtime_options options = {.data_dir = dir, .kv_memory_bytes = 1 << 20};
    assert_int_equal(am_runtime_start(&options, &rt, &err), AM_ELIMIT);
    options = (am_runtime_options){.data_dir = dir, .isa = "abacus"};
    assert_int_equal(am_runtime_start(&options, &rt, &err), AM_EUNSUPPORTED);
    options = (am_runtime_options){.data_dir = dir, .model = "/nowhere"};
    assert_int_not_equal(am_runtime_start(&options, &rt, &err), AM_OK);
    options = (am_runtime_options){.data_dir = dir, .n_ctx = 1 << 20};
    assert_int_equal(am_runtime_start(&options, &rt, &err), AM_EINVAL);
    am_runtime_close(open_runtime());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_agent_comes_back_warm_and_knows),
        cmocka_unit_test(a_turn_can_be_stopped_and_bad_input_is_refused),
        cmocka_unit_test(messages_are_what_the_server_takes),
        cmocka_unit_test(a_second_runtime_on_the_folder_is_told_who_holds_it),
        cmocka_unit_test(a_pool_too_small_for_one_context_is_refused_and_everything_given_back),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
