/* The server over real sockets, with an engine of the test's own behind the functions of engine.h, runtime.h, model.h and cache.h that the server
 * calls: its answers, delays, failures and hang-ups are what the prompt says, so every path can be reached at will. What the real engine
 * answers is test_serve's. */
#include "server_rig.h"

#include "base/clock.h"
#include "base/log.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static void chat(const char *content, const char *more) {
    char body[4096];
    snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]%s%s}", content, more[0] ? "," : "", more);
    http_ask(port, "POST", "/v1/chat/completions", "Content-Type: application/json\r\n", body, &reply);
}

/* Sends a chat request on a connection of its own and leaves it open. */
static int begin_chat(const char *content, bool stream) {
    char body[512], request[1024];
    int n = snprintf(body, sizeof body, "{\"stream\":%s,\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}", stream ? "true" : "false", content);
    int fd = http_connect(port);
    n = snprintf(request, sizeof request, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", n, body);
    http_send(fd, request, (size_t)n);
    return fd;
}

static bool eventually_idle(unsigned ms) {
    for (uint64_t start = am_now_ns(); am_ms_since(start) < ms; usleep(1000))
        if (n_running == 0) return true;
    return false;
}

static void expect_error(int status, const char *type, const char *code) {
    if (reply.status != status) fail_msg("%d, not %d: %s", reply.status, status, reply.body.n ? reply.body.p : reply.head);
    assert_string_equal(member("error.type"), type);
    if (code) assert_string_equal(member("error.code"), code);
    assert_string_not_equal(member("error.message"), "(absent)");
    assert_string_not_equal(member("error.param"), "(absent)");
    assert_non_null(http_header(&reply, "x-request-id"));
}

static void loading_says_503(void **state) {
    (void)state;
    http_ask(port, "GET", "/health/live", NULL, NULL, &reply);
    assert_int_equal(reply.status, 200);
    http_ask(port, "GET", "/health/startup", NULL, NULL, &reply);
    assert_int_equal(reply.status, 503);
    http_ask(port, "GET", "/health/ready", NULL, NULL, &reply);
    assert_int_equal(reply.status, 503);
    http_ask(port, "GET", "/v1/models", NULL, NULL, &reply);
    expect_error(503, "service_unavailable_error", "loading");
    assert_non_null(http_header(&reply, "retry-after"));
    am_server_attach(server, (am_runtime *)&model_info);
    http_ask(port, "GET", "/health/ready", NULL, NULL, &reply);
    assert_int_equal(reply.status, 200);
    http_ask(port, "GET", "/health", NULL, NULL, &reply);
    assert_string_equal(member("status"), "ok");
}

/* An engine that hangs while the network answers: others' servers were called healthy for days. */
static void an_engine_that_stands_still_is_said(void **state) {
    (void)state;
    engine_stands = true;
    http_ask(port, "GET", "/health/ready", NULL, NULL, &reply);
    assert_int_equal(reply.status, 503);
    assert_string_equal(member("status"), "not_ready");
    assert_string_equal(member("reason"), "stuck");
    http_ask(port, "GET", "/health", NULL, NULL, &reply);
    assert_int_equal(reply.status, 503);
    http_ask(port, "GET", "/metrics", NULL, NULL, &reply);
    assert_non_null(strstr(reply.body.p, "\nagent_memory_ready 0\n"));
    assert_false(am_server_moves(server)); /* the service manager's watchdog hears no more */
    http_ask(port, "GET", "/health/live", NULL, NULL, &reply);
    assert_int_equal(reply.status, 200);
    engine_stands = false;
    http_ask(port, "GET", "/health/ready", NULL, NULL, &reply);
    assert_string_equal(member("status"), "ready");
    assert_true(am_server_moves(server));
}

static void models_and_root(void **state) {
    (void)state;
    http_ask(port, "GET", "/v1/models", NULL, NULL, &reply);
    assert_string_equal(member("data.0.id"), "fake-1");
    assert_string_equal(member("data.0.object"), "model");
    http_ask(port, "GET", "/models/fake-1", NULL, NULL, &reply);
    assert_string_equal(member("id"), "fake-1");
    http_ask(port, "GET", "/v1/models/other", NULL, NULL, &reply);
    expect_error(404, "not_found_error", "model_not_found");
    http_ask(port, "GET", "/", NULL, NULL, &reply);
    assert_string_equal(member("name"), "agent-memory");
    http_ask(port, "GET", "/?x=1", "Accept: text/html,*/*\r\n", NULL, &reply);
    assert_non_null(strstr(reply.body.p, "<html"));
    assert_non_null(http_header(&reply, "content-security-policy"));
    int fd = http_connect(port);
    http_text(fd, "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    char raw[4096];
    size_t n = 0;
    for (ssize_t k; (k = recv(fd, raw + n, sizeof raw - 1 - n, 0)) > 0;) n += (size_t)k;
    raw[n] = 0;
    close(fd);
    assert_non_null(strstr(raw, "200 OK"));
    assert_non_null(strstr(raw, "content-length: "));
    assert_string_equal(strstr(raw, "\r\n\r\n"), "\r\n\r\n");
}

static void wrong_doors(void **state) {
    (void)state;
    http_ask(port, "POST", "/v1/chat/completion", NULL, NULL, &reply);
    expect_error(404, "not_found_error", "unknown_url");
    assert_non_null(strstr(reply.body.p, "POST /v1/chat/completions"));
    http_ask(port, "POST", "/v1/responses/x", NULL, NULL, &reply);
    expect_error(404, "not_found_error", "unknown_url");
    assert_non_null(strstr(reply.body.p, "OpenAI's Responses API"));
    http_ask(port, "POST", "/completions", NULL, NULL, &reply);
    expect_error(404, "not_found_error", "unknown_url");
    assert_non_null(strstr(reply.body.p, "text completions (/v1/completions) is not served here; POST /v1/chat/completions is"));
    http_ask(port, "GET", "/v1/chat/completions", NULL, NULL, &reply);
    expect_error(405, "invalid_request_error", "method_not_allowed");
    assert_string_equal(http_header(&reply, "allow"), "POST, OPTIONS");
    http_ask(port, "OPTIONS", "/v1/models", "Origin: http://localhost:3000\r\n", NULL, &reply);
    assert_int_equal(reply.status, 204);
    assert_string_equal(http_header(&reply, "access-control-allow-origin"), "http://localhost:3000");
    assert_non_null(http_header(&reply, "access-control-allow-methods"));
    http_ask(port, "GET", "/v1/models", "Origin: http://evil.com\r\n", NULL, &reply);
    expect_error(403, "permission_error", "forbidden_origin");
    assert_null(http_header(&reply, "access-control-allow-origin"));
    http_ask(port, "POST", "/v1/chat/completions", "Content-Type: text/plain\r\n", "{}", &reply);
    expect_error(415, "invalid_request_error", NULL);
    http_ask(port, "POST", "/v1/chat/completions", "Content-Encoding: gzip\r\n", "{}", &reply);
    expect_error(415, "invalid_request_error", "unsupported_media_type");
    http_ask(port, "POST", "/v1/chat/completions", "Content-Encoding: Identity\r\n", "{}", &reply);
    expect_error(400, "invalid_request_error", "missing_required_parameter");
    http_ask(port, "GET", "/v1/models", "x-request-id: mine-1\r\n", NULL, &reply);
    assert_string_equal(http_header(&reply, "x-request-id"), "mine-1");
    http_ask(port, "GET", "/v1/models", "x-request-id: no good\r\n", NULL, &reply);
    assert_string_not_equal(http_header(&reply, "x-request-id"), "no good");
    http_ask(port, "GET", "/v1/agents/%zz", NULL, NULL, &reply);
    expect_error(400, "invalid_request_error", NULL);
}

static void malformed_heads_get_the_same_shape(void **state) {
    (void)state;
    int fd = http_connect(port);
    http_text(fd, "GET / HTTP/1.1\nHost: a\n\n");
    http_read(fd, &reply);
    expect_error(400, "invalid_request_error", NULL);
    assert_string_equal(http_header(&reply, "connection"), "close");
    close(fd);
    fd = http_connect(port);
    char big[20000];
    memset(big, 'x', sizeof big);
    memcpy(big, "GET / HTTP/1.1\r\nX: ", 19);
    http_send(fd, big, sizeof big);
    http_read(fd, &reply);
    expect_error(431, "invalid_request_error", NULL);
    close(fd);
}

static void whole_answers(void **state) {
    (void)state;
    chat("say:hello there", "\"temperature\":0,\"user\":\"u1\",\"future_field\":[1]");
    assert_int_equal(reply.status, 200);
    assert_string_equal(member("object"), "chat.completion");
    assert_string_equal(member("choices.0.message.content"), "hello there");
    assert_string_equal(member("choices.0.message.role"), "assistant");
    assert_string_equal(member("choices.0.finish_reason"), "stop");
    assert_string_equal(member("usage.prompt_tokens"), "15");
    assert_string_equal(member("usage.completion_tokens"), "4");
    assert_string_equal(member("usage.total_tokens"), "19");
    assert_string_equal(member("usage.prompt_tokens_details.cached_tokens"), "7");
    assert_string_equal(member("agent_memory.agent"), "u1");
    assert_string_equal(member("agent_memory.tier"), "hot");
    assert_string_equal(member("agent_memory.cached_tokens"), "7");
    assert_string_equal(member("agent_memory.computed_tokens"), "8");
    assert_string_equal(member("agent_memory.miss_reason"), "tokens_differ_at:7");
    assert_true(last_request.sampling.temperature == 0);
    assert_int_equal(last_request.sampling.top_k, 20); /* the model's own */
    assert_int_equal(last_request.max_tokens, N_CTX - 15);
    chat("lengthy", "\"max_tokens\":3,\"max_completion_tokens\":2,\"stop\":[\"a\",\"b\"],\"seed\":-1");
    assert_string_equal(member("choices.0.finish_reason"), "length");
    assert_int_equal(last_request.max_tokens, 2);
    assert_int_equal(last_request.n_stops, 2);
    assert_true(last_request.sampling.has_seed);
}

static void an_answer_that_could_not_be_written_says_so(void **state) {
    (void)state;
    chat("say:x", "");
    assert_string_equal(member("agent_memory.durable"), "(absent)");
    chat("full disk", "");
    assert_int_equal(json_is_false(json_object_get(json_object_get(reply.json, "agent_memory"), "durable")), 1);
}

static void choices_and_logprobs(void **state) {
    (void)state;
    chat("say:abc", "\"n\":3,\"logprobs\":true,\"top_logprobs\":2");
    assert_string_equal(member("choices.2.message.content"), "abc");
    assert_string_equal(member("usage.completion_tokens"), "3");
    assert_string_equal(member("choices.0.logprobs.content.0.token"), "one");
    assert_string_equal(member("choices.0.logprobs.content.0.bytes.0"), "111");
    assert_string_equal(member("choices.0.logprobs.content.0.top_logprobs.1.token"), "\xef\xbf\xbd");
    assert_true(last_request.ephemeral);
    chat("say:abc", "\"n\":9");
    expect_error(400, "invalid_request_error", "invalid_value");
    assert_string_equal(member("error.param"), "n");
}

/* Calls fn for each event's JSON; returns how many; *done: [DONE] came last. */
static size_t events(void (*fn)(json_t *event, void *arg), void *arg, bool *done) {
    size_t n = 0;
    *done = false;
    for (char *p = reply.body.p; p && *p;) {
        char *end = strstr(p, "\n\n");
        assert_non_null(end);
        *end = 0;
        if (strcmp(p, "data: [DONE]") == 0) {
            *done = true;
            assert_int_equal(end[2], 0);
        } else if (strncmp(p, "data: ", 6) == 0) {
            json_t *v = json_loads(p + 6, 0, NULL);
            assert_non_null(v);
            fn(v, arg);
            json_decref(v);
            n++;
        } else {
            assert_string_equal(p, ": keep-alive");
        }
        p = end + 2;
    }
    return n;
}

typedef struct seen {
    char text[4096], finish[32], arguments[256];
    int n_usage, n_memory, n_roles, n_errors, n_calls;
} seen;

static void look(json_t *event, void *arg) {
    seen *s = arg;
    json_t *choice = json_array_get(json_object_get(event, "choices"), 0), *delta = json_object_get(choice, "delta");
    const char *content = json_string_value(json_object_get(delta, "content")), *finish = json_string_value(json_object_get(choice, "finish_reason"));
    json_t *call = json_array_get(json_object_get(delta, "tool_calls"), 0);
    if (content) strncat(s->text, content, sizeof s->text - strlen(s->text) - 1);
    if (finish) snprintf(s->finish, sizeof s->finish, "%s", finish);
    if (call) {
        s->n_calls++;
        snprintf(s->arguments, sizeof s->arguments, "%s", json_string_value(json_object_get(json_object_get(call, "function"), "arguments")));
    }
    s->n_roles += json_object_get(delta, "role") != NULL;
    s->n_usage += json_is_object(json_object_get(event, "usage"));
    s->n_memory += json_is_object(json_object_get(event, "agent_memory"));
    s->n_errors += json_object_get(event, "error") != NULL;
}

static void streams(void **state) {
    (void)state;
    seen s = {0};
    bool done;
    chat("say:hello there", "\"stream\":true");
    assert_int_equal(reply.status, 200);
    assert_true(reply.whole);
    assert_non_null(strstr(http_header(&reply, "content-type"), "text/event-stream"));
    events(look, &s, &done);
    assert_true(done);
    assert_string_equal(s.text, "hello there");
    assert_string_equal(s.finish, "stop");
    assert_int_equal(s.n_roles, 1);
    assert_int_equal(s.n_usage, 1);
    assert_int_equal(s.n_memory, 1);
    s = (seen){0};
    chat("say:hello there", "\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    events(look, &s, &done);
    assert_int_equal(s.n_usage, 1);
    assert_int_equal(s.n_memory, 1);
    s = (seen){0};
    chat("wait:350", "\"stream\":true");
    assert_non_null(strstr(reply.body.p, ": keep-alive\n\n"));
    events(look, &s, &done);
    assert_string_equal(s.text, "ok");
}

#define TOOLS "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get\"}}]"
static void tool_calls(void **state) {
    (void)state;
    static const char call[] = "say:So: <tool_call>\\n{\\\"name\\\": \\\"get\\\", \\\"arguments\\\": {\\\"b\\\": 1, \\\"a\\\": \\\"x\\\"}}\\n</tool_call>\\n";
    chat(call, TOOLS);
    assert_string_equal(member("choices.0.finish_reason"), "tool_calls");
    assert_string_equal(member("choices.0.message.content"), "So:");
    assert_string_equal(member("choices.0.message.tool_calls.0.function.name"), "get");
    assert_string_equal(member("choices.0.message.tool_calls.0.function.arguments"), "{\"b\":1,\"a\":\"x\"}");
    seen s = {0};
    bool done;
    chat(call, "\"stream\":true," TOOLS);
    events(look, &s, &done);
    assert_string_equal(s.text, "So:");
    assert_int_equal(s.n_calls, 1);
    assert_string_equal(s.arguments, "{\"b\":1,\"a\":\"x\"}");
    assert_string_equal(s.finish, "tool_calls");
    assert_string_equal(member("agent_memory.not_enforced"), "(absent)");
    chat(call, TOOLS ",\"tool_choice\":\"none\"");
    assert_string_equal(member("choices.0.finish_reason"), "stop");
    chat(call, TOOLS ",\"tool_choice\":\"required\"");
    assert_string_equal(member("agent_memory.not_enforced.0"), "tool_choice");
    chat(call, TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"get\"}},\"response_format\":{\"type\":\"json_object\"}");
    assert_string_equal(member("agent_memory.not_enforced.0"), "tool_choice");
    assert_string_equal(member("agent_memory.not_enforced.1"), "response_format");
    chat("say:<tool_call>{\\\"name\\\": \\\"other\\\"}</tool_call> <tool_cal", TOOLS); /* no such function: text */
    assert_string_equal(member("choices.0.message.content"), "<tool_call>{\"name\": \"other\"}</tool_call> <tool_cal");
    chat("say:<tool_call>{\\\"name\\\": \\\"get\\\"}", TOOLS); /* ended instead of closed */
    assert_string_equal(member("choices.0.message.tool_calls.0.function.arguments"), "{}");
    assert_string_equal(member("choices.0.message.content"), "null");
}

static void tools_that_are_no_functions(void **state) {
    (void)state;
    static const char *const refused[][2] = {{"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get\"}},{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}]", "tools[1]"},
                                             {"\"tools\":[{\"type\":\"custom\",\"custom\":{\"name\":\"x\"}}]", "tools[0]"},
                                             {"\"functions\":[{\"name\":\"get\"}]", "functions"},
                                             {"\"documents\":[\"text\"]", "documents"},
                                             {"\"documents\":{}", "documents"},
                                             {"\"reasoning_format\":\"other\"", "reasoning_format"}};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        chat("say:x", refused[i][0]);
        assert_int_equal(reply.status, 400);
        assert_string_equal(member("error.param"), refused[i][1]);
    }
    chat("say:x", "\"functions\":[],\"documents\":[{\"title\":\"t\",\"text\":\"x\"}]");
    assert_int_equal(reply.status, 200);
}

static void reasoning_is_apart(void **state) {
    (void)state;
    chat("say:<think>\\nhm, so\\n</think>\\n\\nYes.", "\"seed\":1");
    assert_string_equal(member("choices.0.message.content"), "Yes.");
    assert_string_equal(member("choices.0.message.reasoning_content"), "hm, so");
    assert_true(atoi(member("usage.completion_tokens_details.reasoning_tokens")) > 2);
    chat("say:<think>hm</think>Yes.", "\"reasoning_format\":\"none\"");
    assert_string_equal(member("choices.0.message.content"), "<think>hm</think>Yes.");
}

static void messages_for_templates(void **state) {
    (void)state;
    static const char body[] = "{\"messages\":[{\"role\":\"developer\",\"content\":\"d\",\"cache_control\":1},"
                               "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]},"
                               "{\"role\":\"assistant\",\"content\":null,\"reasoning\":\"r\",\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\","
                               "\"function\":{\"name\":\"get\",\"arguments\":\"{\\\"k\\\":1}\"}}]},"
                               "{\"role\":\"function\",\"name\":\"get\",\"content\":\"5\"},{\"role\":\"user\",\"content\":\"dump\"}],"
                               "\"tools\":null}";
    http_ask(port, "POST", "/chat/completions", NULL, body, &reply);
    assert_string_equal(member("choices.0.message.content"),
                        "[{\"role\":\"system\",\"content\":\"d\"},{\"role\":\"user\",\"content\":\"a\\nb\"},"
                        "{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":\"r\",\"tool_calls\":[{\"type\":\"function\","
                        "\"function\":{\"name\":\"get\",\"arguments\":{\"k\":1}},\"id\":\"1\"}]},"
                        "{\"role\":\"tool\",\"content\":\"5\",\"name\":\"get\"},{\"role\":\"user\",\"content\":\"dump\"}]");
}

static void bad_requests(void **state) {
    (void)state;
    static const struct {
        const char *more, *param;
    } fields[] = {{"\"temperature\":\"hot\"", "temperature"}, {"\"temperature\":-0.1", "temperature"}, {"\"temperature\":1e308", "temperature"},
                  {"\"top_p\":2", "top_p"}, {"\"max_tokens\":0", "max_tokens"}, {"\"max_tokens\":1.5", "max_tokens"},
                  {"\"max_tokens\":-9223372036854775808", "max_tokens"}, {"\"n\":0", "n"}, {"\"n\":1000000", "n"}, {"\"top_k\":[]", "top_k"},
                  {"\"stream\":1", "stream"}, {"\"stop\":5", "stop"}, {"\"stop\":[[]]", "stop"}, {"\"logit_bias\":[]", "logit_bias"},
                  {"\"logit_bias\":{\"x\":1}", "logit_bias"}, {"\"logit_bias\":{\"1000\":1}", "logit_bias"}, {"\"logit_bias\":{\"1\":101}", "logit_bias"},
                  {"\"top_logprobs\":21", "top_logprobs"}, {"\"agent_id\":5", "agent_id"}, {"\"tool_choice\":\"always\"", "tool_choice"},
                  {"\"tool_choice\":{\"type\":\"function\"}", "tool_choice"}, {TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"other\"}}", "tool_choice"},
                  {"\"response_format\":{\"type\":\"json_text\"}", "response_format"}, {"\"tools\":{}", "tools"}, {"\"tools\":[1]", "tools[0]"}, {"\"model\":1", "model"},
                  {"\"response_format\":{\"type\":\"xml\"}", "response_format"}, {"\"chat_template\":\"x\"", "chat_template"},
                  {"\"chat_template_kwargs\":{\"chat_template\":\"x\"}", "chat_template_kwargs"}, {"\"stop_token_ids\":[1000]", "stop_token_ids"},
                  {"\"stream_options\":[]", "stream_options"}, {"\"agent_id\":\"a\\u0001\"", "agent_id"}, {"\"messages\":{}", "messages"},
                  {"\"messages\":[]", "messages"}, {"\"messages\":[1]", "messages[0]"}, {"\"messages\":[{\"role\":\"x\"}]", "messages[0].role"},
                  {"\"messages\":[{\"role\":\"user\",\"content\":5}]", "messages[0].content"},
                  {"\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]", "messages[0].content"},
                  {"\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{}]}]", "messages[0].tool_calls"}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        chat("say:x", fields[i].more);
        if (reply.status != 400) fail_msg("%s: %d", fields[i].more, reply.status);
        expect_error(400, "invalid_request_error", NULL);
        assert_string_equal(member("error.param"), fields[i].param);
    }
    http_ask(port, "POST", "/v1/chat/completions", NULL, "{\"messages\":\n [}", &reply);
    expect_error(400, "invalid_request_error", "invalid_json");
    assert_non_null(strstr(reply.body.p, "line 2 column 3"));
    http_ask(port, "POST", "/v1/chat/completions", NULL, "[]", &reply);
    expect_error(400, "invalid_request_error", NULL);
    http_ask(port, "POST", "/v1/chat/completions", NULL, NULL, &reply);
    expect_error(400, "invalid_request_error", "invalid_json");
    assert_non_null(strstr(reply.body.p, "empty"));
    http_ask(port, "POST", "/v1/chat/completions", NULL, "\xef\xbb\xbf{}", &reply);
    expect_error(400, "invalid_request_error", "invalid_json");
    assert_non_null(strstr(reply.body.p, "byte order mark"));
    chat("refuse me", "");
    expect_error(400, "invalid_request_error", "template_error");
    assert_non_null(strstr(reply.body.p, "must alternate"));
    for (int stream = 0; stream <= 1; stream++) {
        chat("full", stream ? "\"stream\":true" : "");
        expect_error(429, "rate_limit_error", "queue_full");
        assert_non_null(http_header(&reply, "retry-after"));
        chat("fail", stream ? "\"stream\":true" : "");
        expect_error(500, "server_error", "engine_error");
    }
}

static void sizes(void **state) {
    (void)state;
    char *big = malloc(3 << 20);
    char head[256];
    size_t n = (size_t)sprintf(big, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    memset(big + n, 'a', N_CTX);
    strcpy(big + n + N_CTX, "\"}]}");
    http_ask(port, "POST", "/v1/chat/completions", NULL, big, &reply);
    expect_error(400, "invalid_request_error", "context_length_exceeded");
    assert_non_null(strstr(reply.body.p, "30000"));
    memset(big + n, 'a', 5 * N_CTX); /* hopeless: not read to its end */
    strcpy(big + n + 5 * N_CTX, "\"}]}");
    http_ask(port, "POST", "/v1/chat/completions", NULL, big, &reply);
    expect_error(400, "invalid_request_error", "context_length_exceeded");
    assert_non_null(strstr(reply.body.p, "more than 120000 tokens"));
    memset(big, '[', 100000);
    big[100000] = 0;
    http_ask(port, "POST", "/v1/chat/completions", NULL, big, &reply);
    expect_error(400, "invalid_request_error", "invalid_json");
    memset(big, ' ', 2 << 20); /* twice the limit: refused from its head, and the client that sends on can still read why */
    big[2 << 20] = 0;
    http_ask(port, "POST", "/v1/chat/completions", NULL, big, &reply);
    expect_error(413, "invalid_request_error", "body_too_large");
    int fd = http_connect(port);
    n = (size_t)sprintf(head, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    http_send(fd, head, n);
    for (int i = 0; i < 3; i++) {
        http_text(fd, "80000\r\n");
        http_send(fd, big, 0x80000);
        http_text(fd, "\r\n");
    }
    http_read(fd, &reply);
    expect_error(413, "invalid_request_error", NULL);
    close(fd);
    n = (size_t)sprintf(big, "{\"messages\":[");
    for (int i = 0; i < 51; i++) n += (size_t)sprintf(big + n, "%s{\"role\":\"user\",\"content\":\"x\"}", i ? "," : "");
    strcpy(big + n, "]}");
    http_ask(port, "POST", "/v1/chat/completions", NULL, big, &reply);
    expect_error(400, "invalid_request_error", "too_many_messages");
    free(big);
}

static void identity(void **state) {
    (void)state;
    static const struct {
        const char *headers, *body, *agent;
    } rows[] = {
        {"", "", ""},
        {"X-Agent-Id: a\r\nthread-id: t\r\n", "\"agent_id\":\"b\"", "a"},
        {"thread-id: t\r\n", "\"agent_id\":\"b\"", "b"},
        {"x-claude-code-agent-id: sub\r\nx-claude-code-session-id: s\r\n", "", "s/sub"},
        {"x-claude-code-agent-id: sub\r\n", "", "sub"},
        {"session-id: s\r\nthread-id: t\r\n", "", "t"},
        {"session-id: s\r\nx-session-id: x\r\n", "", "s"},
        {"x-session-affinity: o\r\n", "\"user\":\"u\"", "o"},
        {"X-OpenWebUI-Chat-Id: c\r\n", "\"prompt_cache_key\":\"k\"", "c"},
        {"", "\"prompt_cache_key\":\"k\",\"user\":\"u\"", "k"},
        {"", "\"conversation\":{\"id\":\"v\"},\"user\":\"u\"", "v"},
        {"", "\"metadata\":{\"user_id\":\"m\"},\"user\":\"u\"", "m"},
        {"", "\"user\":\"u\"", "u"},
        {"", "\"user\":\"\\u0007\"", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char body[512];
        snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"say:x\"}]%s%s}", rows[i].body[0] ? "," : "", rows[i].body);
        http_ask(port, "POST", "/v1/chat/completions", rows[i].headers, body, &reply);
        assert_int_equal(reply.status, 200);
        assert_string_equal(last_agent, rows[i].agent);
    }
}

static void agents(void **state) {
    (void)state;
    http_ask(port, "GET", "/v1/agents", NULL, NULL, &reply);
    assert_string_equal(member("data.0.agent"), "alice");
    assert_string_equal(member("data.0.tier"), "warm");
    assert_string_equal(member("data.0.tokens"), "42");
    http_ask(port, "GET", "/v1/agents/a%2Fb", NULL, NULL, &reply);
    assert_string_equal(member("id"), "a/b");
    http_ask(port, "GET", "/v1/agents/nobody", NULL, NULL, &reply);
    expect_error(404, "not_found_error", "agent_not_found");
    http_ask(port, "DELETE", "/v1/agents/alice", NULL, NULL, &reply);
    assert_string_equal(member("deleted"), "true");
    http_ask(port, "DELETE", "/v1/agents/busy", NULL, NULL, &reply);
    expect_error(409, "invalid_request_error", "agent_busy");
    http_ask(port, "POST", "/v1/agents/bob/fork", NULL, "{\"to\":\"carol\"}", &reply);
    assert_int_equal(reply.status, 201);
    assert_string_equal(member("agent"), "carol");
    http_ask(port, "POST", "/v1/agents/bob/fork", NULL, "{\"to\":\"alice\"}", &reply);
    expect_error(409, "invalid_request_error", "agent_exists");
    http_ask(port, "POST", "/v1/agents/bob/fork", NULL, "{}", &reply);
    expect_error(400, "invalid_request_error", NULL);
    assert_string_equal(member("error.param"), "to");
    http_ask(port, "GET", "/v1/agents/%07", NULL, NULL, &reply);
    expect_error(400, "invalid_request_error", "invalid_agent_name");
}

static void pipelined_requests_are_answered_in_order(void **state) {
    (void)state;
    static const char one[] = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: r%d\r\nContent-Length: %zu\r\n\r\n%s";
    char all[4096];
    size_t n = 0;
    for (int i = 0; i < 6; i++) {
        char body[200];
        snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"%s%d\"}]}", i % 2 ? "say:" : "wait:2", i);
        n += (size_t)snprintf(all + n, sizeof all - n, one, i, strlen(body), body);
    }
    int fd = http_connect(port);
    for (size_t i = 0; i < n; i += 37) http_send(fd, all + i, n - i < 37 ? n - i : 37);
    for (int i = 0; i < 6; i++) {
        http_read(fd, &reply);
        assert_int_equal(reply.status, 200);
        assert_int_equal(atoi(http_header(&reply, "x-request-id") + 1), i);
    }
    close(fd);
}

static void a_hang_up_frees_the_request(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) { /* streaming or not; decoding or in prefill; by FIN or RST */
        assert_true(eventually_idle(2000));
        unsigned before = n_canceled;
        int fd = begin_chat(i & 2 ? "slow" : "wait:20000", i & 1);
        while (n_running == 0) usleep(1000);
        usleep(20000);
        struct linger reset = {.l_onoff = 1};
        if (i & 4) setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        uint64_t start = am_now_ns();
        close(fd);
        assert_true(eventually_idle(2000));
        assert_int_equal(n_canceled, before + 1);
        assert_true(am_ms_since(start) < 1500);
    }
}

static void a_slow_reader_is_cut_off(void **state) {
    (void)state;
    unsigned before = n_canceled;
    int fd = begin_chat("flood:200000", true);
    while (n_running == 0) usleep(1000);
    assert_true(eventually_idle(10000));
    assert_int_equal(n_canceled, before + 1);
    close(fd);
}

static void slow_senders_are_cut_off(void **state) {
    (void)state;
    int fd = http_connect(port);
    http_text(fd, "GET / HT");
    http_read(fd, &reply);
    expect_error(408, "invalid_request_error", NULL);
    close(fd);
    fd = http_connect(port);
    http_text(fd, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
    http_read(fd, &reply);
    expect_error(408, "invalid_request_error", NULL);
    close(fd);
}

static void connections_persist(void **state) {
    (void)state;
    int fd = http_connect(port);
    for (int i = 0; i < 20; i++) {
        http_text(fd, "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n");
        http_read(fd, &reply);
        assert_int_equal(reply.status, 200);
    }
    http_text(fd, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    usleep(20000);
    http_text(fd, "2D\r\n{\"messages\":[{\"role\":\"user\",\"content\":\"say:x\"\r\n3\r\n}]}\r\n0\r\n\r\n");
    http_read(fd, &reply);
    assert_int_equal(reply.status, 200);
    http_text(fd, "GET /v1/models HTTP/1.0\r\n\r\n");
    http_read(fd, &reply);
    assert_int_equal(reply.status, 200);
    char c;
    assert_int_equal(recv(fd, &c, 1, 0), 0);
    close(fd);
    fd = http_connect(port); /* a client that closes its side early still gets what is quick to answer */
    http_text(fd, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n");
    shutdown(fd, SHUT_WR);
    http_read(fd, &reply);
    assert_int_equal(reply.status, 200);
    close(fd);
}

static void two_hundred_streams(void **state) {
    (void)state;
    enum { N = 200 };
    int fds[N];
    n_active_max = 0;
    for (int i = 0; i < N; i++) fds[i] = begin_chat("wait:300", true);
    for (int i = 0; i < N; i++) {
        seen s = {0};
        bool done;
        http_read(fds[i], &reply);
        assert_int_equal(reply.status, 200);
        events(look, &s, &done);
        assert_true(done);
        assert_string_equal(s.text, "ok");
        close(fds[i]);
    }
    assert_true(n_active_max > N / 2);
}

/* Six prompts that take long keep two of the four threads, and nobody else waits for them. */
static void long_bodies_leave_threads_to_others(void **state) {
    (void)state;
    enum { N = 6, BYTES = 300 << 10 };
    int fds[N];
    char *body = malloc(BYTES + 100);
    size_t n = (size_t)sprintf(body, "{\"messages\":[{\"role\":\"user\",\"content\":\"hold");
    memset(body + n, 'x', BYTES);
    strcpy(body + n + BYTES, "\"}]}");
    for (int i = 0; i < N; i++) {
        char head[128];
        fds[i] = http_connect(port);
        int n_head = snprintf(head, sizeof head, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n", strlen(body));
        http_send(fds[i], head, (size_t)n_head);
        http_send(fds[i], body, strlen(body));
    }
    while (n_held < 2) usleep(1000);
    for (int i = 0; i < 3; i++) {
        chat("say:x", "");
        assert_int_equal(reply.status, 200);
        assert_int_equal(n_held, 2);
    }
    let_go = true;
    for (int i = 0; i < N; i++) {
        http_read(fds[i], &reply);
        expect_error(400, "invalid_request_error", "context_length_exceeded");
        close(fds[i]);
    }
    free(body);
}

static void a_taken_port_is_explained(void **state) {
    (void)state;
    am_server *second;
    am_error err;
    char pid[32];
    am_server_options options = {.host = "127.0.0.1", .port = port};
    assert_int_equal(am_server_start(&options, &second, &err), AM_EBUSY);
    assert_null(second);
    snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    assert_non_null(strstr(err.message, pid));
    assert_non_null(strstr(err.message, "lsof -ti:"));
    assert_non_null(strstr(err.message, "--port"));
    options.host = "no such host";
    assert_int_equal(am_server_start(&options, &second, &err), AM_EPERM); /* not known to be loopback, and no keys */
    options.allow_no_auth = true;
    assert_int_equal(am_server_start(&options, &second, &err), AM_EINVAL);
}

static void stopping(void **state) {
    (void)state;
    int fd = begin_chat("wait:300", true), idle = http_connect(port);
    char c;
    while (n_running == 0) usleep(1000);
    am_server_stop_accepting(server);
    chat("say:x", "");
    expect_error(503, "service_unavailable_error", "shutting_down");
    http_ask(port, "GET", "/health/ready", NULL, NULL, &reply);
    assert_int_equal(reply.status, 503);
    uint64_t start = am_now_ns();
    am_server_stop(server, 5000); /* the running stream is let finish */
    assert_true(am_ms_since(start) < 2500);
    seen s = {0};
    bool done;
    http_read(fd, &reply);
    events(look, &s, &done);
    assert_true(done);
    assert_string_equal(s.text, "ok");
    assert_int_equal(recv(idle, &c, 1, 0), 0);
    close(fd);
    close(idle);
    setup(NULL);
    am_server_attach(server, (am_runtime *)&model_info);
    fd = begin_chat("wait:99999999", true);
    while (n_running == 0) usleep(1000);
    start = am_now_ns();
    am_server_stop(server, 100); /* what does not finish in time is cancelled */
    assert_true(am_ms_since(start) < 2000);
    close(fd);
    setup(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loading_says_503),
        cmocka_unit_test(an_engine_that_stands_still_is_said),
        cmocka_unit_test(models_and_root),
        cmocka_unit_test(wrong_doors),
        cmocka_unit_test(malformed_heads_get_the_same_shape),
        cmocka_unit_test(whole_answers),
        cmocka_unit_test(an_answer_that_could_not_be_written_says_so),
        cmocka_unit_test(choices_and_logprobs),
        cmocka_unit_test(streams),
        cmocka_unit_test(tool_calls), cmocka_unit_test(tools_that_are_no_functions), cmocka_unit_test(reasoning_is_apart),
        cmocka_unit_test(messages_for_templates),
        cmocka_unit_test(bad_requests),
        cmocka_unit_test(sizes),
        cmocka_unit_test(identity),
        cmocka_unit_test(agents),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(a_hang_up_frees_the_request),
        cmocka_unit_test(a_slow_reader_is_cut_off),
        cmocka_unit_test(slow_senders_are_cut_off),
        cmocka_unit_test(connections_persist),
        cmocka_unit_test(two_hundred_streams),
        cmocka_unit_test(long_bodies_leave_threads_to_others),
        cmocka_unit_test(a_taken_port_is_explained),
        cmocka_unit_test(stopping),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
