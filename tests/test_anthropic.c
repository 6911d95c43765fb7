/* The Anthropic dialect over real sockets, with the fake engine behind it: what its SDK makes of the same answers is tests/e2e/test_anthropic.py's. */
#include "server_rig.h"

#include "base/hash.h"

#include <sys/socket.h>

static void post(const char *path, const char *headers, const char *body) { http_ask(port, "POST", path, headers, body, &reply); }

/* One message of the user, and what else the body has. */
static void ask(const char *content, const char *more) {
    char body[4096];
    snprintf(body, sizeof body, "{\"max_tokens\":100,\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]%s%s}", content, more[0] ? "," : "", more);
    post("/v1/messages?beta=true", "anthropic-version: 2023-06-01\r\n", body);
}

static void expect_error(int status, const char *type, const char *message) {
    if (reply.status != status) fail_msg("%d, not %d: %s", reply.status, status, reply.body.n ? reply.body.p : reply.head);
    assert_string_equal(member("type"), "error");
    assert_string_equal(member("error.type"), type);
    if (!strstr(member("error.message"), message)) fail_msg("'%s' is not in: %s", message, member("error.message"));
    assert_non_null(http_header(&reply, "request-id"));
    assert_string_equal(member("request_id"), http_header(&reply, "request-id"));
}

static void loads(void **state) {
    (void)state;
    ask("say:x", "");
    expect_error(503, "overloaded_error", "still being loaded");
    assert_non_null(http_header(&reply, "retry-after"));
    am_server_attach(server, (am_runtime *)&model_info);
}

static void whole_messages(void **state) {
    (void)state;
    ask("say:hello there", "\"temperature\":0,\"top_k\":5,\"top_p\":0.5,\"metadata\":{\"user_id\":\"u1\"},\"future_field\":[1],\"service_tier\":\"auto\"");
    assert_int_equal(reply.status, 200);
    assert_int_equal(strncmp(member("id"), "msg_", 4), 0);
    static const char *const members[][2] = {{"type", "message"}, {"role", "assistant"}, {"model", "fake-1"}, {"content.0.type", "text"},
                                             {"content.0.text", "hello there"}, {"content.1", "(absent)"}, {"stop_reason", "end_turn"},
                                             {"stop_sequence", "null"}, {"usage.input_tokens", "8"}, {"usage.cache_read_input_tokens", "7"},
                                             {"usage.cache_creation_input_tokens", "0"}, {"usage.cache_creation.ephemeral_5m_input_tokens", "0"},
                                             {"usage.output_tokens", "4"}, {"usage.service_tier", "standard"}, {"agent_memory.agent", "u1"},
                                             {"agent_memory.tier", "hot"}, {"agent_memory.not_enforced", "(absent)"}};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) assert_string_equal(member(members[i][0]), members[i][1]);
    assert_int_equal(last_request.max_tokens, 100);
    assert_true(last_request.sampling.temperature == 0 && last_request.sampling.top_k == 5 && last_request.sampling.top_p == 0.5f);
    assert_int_equal(last_request.n_stops, 0);
    ask("halt", "\"stop_sequences\":[\"END\",\"x\"]");
    assert_int_equal(last_request.n_stops, 2);
    assert_string_equal(member("stop_reason"), "stop_sequence");
    assert_string_equal(member("stop_sequence"), "END");
    ask("lengthy", "");
    assert_string_equal(member("stop_reason"), "max_tokens");
    ask("lengthy", "\"max_tokens\":1000000"); /* the last one counts: more than the context has */
    assert_string_equal(member("stop_reason"), "model_context_window_exceeded");
    ask("full disk", "");
    assert_true(json_is_false(json_object_get(json_object_get(reply.json, "agent_memory"), "durable")));
}

/* The three parts of a prompt are disjoint: reused, computed into whole blocks, the rest. */
static void usage_is_disjoint(void **state) {
    (void)state;
    static char content[1000], body[1200];
    memset(content, 'x', 600);
    memcpy(content, "say:", 4);
    snprintf(body, sizeof body, "{\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}", content);
    post("/v1/messages", NULL, body);
    assert_string_equal(member("usage.cache_read_input_tokens"), "7");
    assert_string_equal(member("usage.cache_creation_input_tokens"), "505"); /* 512 - 7 */
    assert_string_equal(member("usage.cache_creation.ephemeral_5m_input_tokens"), "505");
    assert_string_equal(member("usage.input_tokens"), "88");
}

/* The events of a stream as one line: their names, of blocks and deltas what they hold. */
static char story[8192];
static json_t *start_message, *last_delta;

static void tell(const char *name, const json_t *data) {
    const json_t *block = json_object_get(data, "content_block"), *delta = json_object_get(data, "delta");
    const char *kind = json_string_value(json_object_get(block ? block : delta, "type"));
    static const char *const texts[] = {"text", "thinking", "partial_json", "signature"};
    size_t n = strlen(story);
    assert_string_equal(json_string_value(json_object_get(data, "type")), name);
    n += (size_t)snprintf(story + n, sizeof story - n, " %s", strncmp(name, "content_block_", 14) ? name : name + 14);
    const json_t *index = json_object_get(data, "index");
    if (index) n += (size_t)snprintf(story + n, sizeof story - n, "%lld", json_integer_value(index));
    if (kind) n += (size_t)snprintf(story + n, sizeof story - n, ":%s", kind);
    for (size_t i = 0; delta && i < 4; i++) {
        const char *text = json_string_value(json_object_get(delta, texts[i]));
        if (text) snprintf(story + n, sizeof story - n, "=%s", text);
    }
    if (strcmp(name, "message_start") == 0) start_message = json_incref(json_object_get(data, "message"));
    if (strcmp(name, "message_delta") == 0) last_delta = json_incref((json_t *)data);
}

/* Adjacent deltas of a block count as one; pings are counted alone. */
static int read_story(void) {
    int pings = 0;
    story[0] = 0;
    json_decref(start_message);
    json_decref(last_delta);
    start_message = last_delta = NULL;
    for (char *p = reply.body.p; p && *p;) {
        char *end = strstr(p, "\n\n"), name[64];
        assert_non_null(end);
        *end = 0;
        assert_int_equal(sscanf(p, "event: %63s", name), 1);
        char *data = strstr(p, "\ndata: ");
        assert_non_null(data);
        json_t *v = json_loads(data + 7, 0, NULL);
        assert_non_null(v);
        if (strcmp(name, "ping") == 0) pings++;
        else tell(name, v);
        json_decref(v);
        p = end + 2;
    }
    return pings;
}

static const char *of(const json_t *v, const char *outer, const char *name) {
    static char text[64];
    const json_t *m = json_object_get(outer ? json_object_get(v, outer) : v, name);
    if (json_is_string(m)) snprintf(text, sizeof text, "%s", json_string_value(m));
    else snprintf(text, sizeof text, json_is_integer(m) ? "%lld" : json_is_null(m) ? "null" : "(absent)", json_integer_value(m));
    return text;
}

static void streams(void **state) {
    (void)state;
    ask("say:hello", "\"stream\":true");
    assert_int_equal(reply.status, 200);
    assert_true(reply.whole);
    assert_non_null(strstr(http_header(&reply, "content-type"), "text/event-stream"));
    read_story();
    assert_string_equal(story, " message_start start0:text delta0:text_delta=hel delta0:text_delta=lo stop0 message_delta message_stop");
    assert_string_equal(of(start_message, "usage", "input_tokens"), "2"); /* before the first token */
    assert_string_equal(of(start_message, "usage", "cache_read_input_tokens"), "7");
    assert_string_equal(of(start_message, "usage", "output_tokens"), "0");
    assert_string_equal(of(start_message, NULL, "stop_reason"), "null");
    assert_string_equal(of(start_message, "agent_memory", "tier"), "hot");
    assert_string_equal(of(last_delta, "delta", "stop_reason"), "end_turn");
    assert_string_equal(of(last_delta, "usage", "input_tokens"), "2");
    assert_string_equal(of(last_delta, "usage", "output_tokens"), "2");
    assert_string_equal(of(last_delta, "agent_memory", "tier"), "hot");
    ask("wait:350", "\"stream\":true");
    assert_true(read_story() >= 2);
    assert_string_equal(story, " message_start start0:text delta0:text_delta=ok stop0 message_delta message_stop");
    ask("halt", "\"stream\":true");
    read_story();
    assert_string_equal(story, " message_start message_delta message_stop");
    assert_string_equal(of(last_delta, "delta", "stop_sequence"), "END");
}

#define TOOLS "\"tools\":[{\"name\":\"get\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"},\"cache_control\":{\"type\":\"ephemeral\"}}]"
#define CALL "say:<think>hm</think>So: <tool_call>\\n{\\\"name\\\": \\\"get\\\", \\\"arguments\\\": {\\\"b\\\": 1, \\\"a\\\": \\\"x\\\"}}\\n</tool_call>\\n"

/* The thought's signature: BLAKE2b-256 of its length and its bytes. */
static void thoughts_and_calls(void **state) {
    (void)state;
    char signature[65];
    am_hash hash = am_hash_parts(NULL, &(am_hash_part){"hm", 2}, 1);
    am_hash_hex(&hash, signature);
    ask(CALL, TOOLS);
    assert_string_equal(member("content.0.type"), "thinking");
    assert_string_equal(member("content.0.thinking"), "hm");
    assert_string_equal(member("content.0.signature"), signature);
    assert_string_equal(member("content.1.text"), "So:");
    assert_string_equal(member("content.2.type"), "tool_use");
    assert_int_equal(strncmp(member("content.2.id"), "toolu_", 6), 0);
    assert_string_equal(member("content.2.name"), "get");
    assert_string_equal(member("content.2.input.a"), "x");
    assert_string_equal(member("content.2.input.b"), "1");
    assert_string_equal(member("content.3"), "(absent)");
    assert_string_equal(member("stop_reason"), "tool_use");
    assert_true(atoi(member("usage.output_tokens_details.thinking_tokens")) > 0);
    ask(CALL, TOOLS ",\"stream\":true");
    read_story();
    char want[512];
    snprintf(want, sizeof want, "delta0:signature_delta=%s stop0 start1:text", signature);
    assert_non_null(strstr(story, " message_start start0:thinking delta0:thinking_delta="));
    assert_non_null(strstr(story, want));
    assert_non_null(strstr(story, " stop1 start2:tool_use delta2:input_json_delta={\"b\":1,\"a\":\"x\"} stop2 message_delta message_stop"));
    assert_string_equal(of(last_delta, "delta", "stop_reason"), "tool_use");
    /* arguments as a text: an object all the same */
    ask("say:<tool_call>{\\\"name\\\": \\\"get\\\", \\\"arguments\\\": \\\"no, \\\\\\\"json\\\"}</tool_call>", TOOLS);
    assert_string_equal(member("content.0.input.arguments"), "no, \"json");
    ask("say:<tool_call>{\\\"name\\\": \\\"get\\\", \\\"arguments\\\": \\\"{\\\\\\\"a\\\\\\\": 1}\\\"}</tool_call>", TOOLS);
    assert_string_equal(member("content.0.input.a"), "1");
}

static void wishes(void **state) {
    (void)state;
    ask("dump", TOOLS);
    assert_string_equal(last_tools, "[{\"type\":\"function\",\"function\":{\"name\":\"get\",\"description\":\"d\",\"parameters\":{\"type\":\"object\"}}}]");
    assert_string_equal(last_kwargs, "");
    ask(CALL, TOOLS ",\"tool_choice\":{\"type\":\"none\"}");
    assert_string_equal(member("stop_reason"), "end_turn");
    ask("say:x", TOOLS ",\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":false}");
    assert_string_equal(member("agent_memory.not_enforced"), "(absent)");
    ask("say:x", TOOLS ",\"tool_choice\":{\"type\":\"any\",\"disable_parallel_tool_use\":true}");
    assert_string_equal(member("agent_memory.not_enforced.0"), "tool_choice.disable_parallel_tool_use");
    assert_string_equal(member("agent_memory.not_enforced.1"), "tool_choice");
    ask("say:x", TOOLS ",\"tool_choice\":{\"type\":\"tool\",\"name\":\"get\"},\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":2000},"
                       "\"output_config\":{\"effort\":\"high\",\"format\":{\"type\":\"json_schema\"}}");
    assert_string_equal(member("agent_memory.not_enforced.0"), "tool_choice");
    assert_string_equal(member("agent_memory.not_enforced.1"), "thinking.budget_tokens");
    assert_string_equal(member("agent_memory.not_enforced.2"), "output_config.format");
    assert_string_equal(last_kwargs, "{\"enable_thinking\":true,\"reasoning_effort\":\"high\"}");
    ask("say:x", "\"thinking\":{\"type\":\"adaptive\"}");
    assert_string_equal(last_kwargs, "{\"enable_thinking\":true}");
    ask("say:x", "\"thinking\":{\"type\":\"disabled\"}");
    assert_string_equal(last_kwargs, "{\"enable_thinking\":false}");
    ask("dump", "\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"web_search\"},{\"type\":\"custom\",\"name\":\"get\",\"input_schema\":{}}]");
    assert_string_equal(last_tools, "[{\"type\":\"function\",\"function\":{\"name\":\"get\",\"parameters\":{}}}]");
    assert_string_equal(member("agent_memory.not_enforced.0"), "tools");
}

/* What the template is given for system and messages. The last message's text is "dump" for the fake to say it. */
static void messages_for_templates(void **state) {
    (void)state;
#define USER(text) "{\"role\":\"user\",\"content\":" text "}"
#define DUMP USER("\"dump\"")
    static const struct {
        const char *system, *messages, *said;
    } rows[] = {
        {NULL, DUMP, "[" DUMP "]"},
        {"\"be brief\"", DUMP, "[{\"role\":\"system\",\"content\":\"be brief\"}," DUMP "]"},
        {"[{\"type\":\"text\",\"text\":\"x-anthropic-billing-header: cc_version=2; cch=ab\"},{\"type\":\"text\",\"text\":\"a\",\"cache_control\":{\"type\":\"ephemeral\"}},"
         "{\"type\":\"text\",\"text\":\"b\"}]", DUMP, "[{\"role\":\"system\",\"content\":\"a\\n\\nb\"}," DUMP "]"},
        {"\"x-anthropic-billing-header: cch=1\\nand so\"", DUMP, "[{\"role\":\"system\",\"content\":\"and so\"}," DUMP "]"},
        {"[]", USER("\"x-anthropic-billing-header: kept\"") ",{\"role\":\"assistant\",\"content\":\"y\"}," DUMP,
         "[" USER("\"x-anthropic-billing-header: kept\"") ",{\"role\":\"assistant\",\"content\":\"y\"}," DUMP "]"},
        {NULL, USER("\"a\"") "," USER("[{\"type\":\"text\",\"text\":\"b\"}]") ",{\"role\":\"assistant\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"y\"}," DUMP,
         "[" USER("\"a\\nb\"") ",{\"role\":\"assistant\",\"content\":\"x\\ny\"}," DUMP "]"},
        {NULL, USER("\"a\"") ",{\"role\":\"system\",\"content\":\"later\"}," DUMP, "[" USER("\"a\"") ",{\"role\":\"system\",\"content\":\"later\"}," DUMP "]"},
        {NULL, USER("\"q\"") ",{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"not ours\"},{\"type\":\"redacted_thinking\",\"data\":\"?\"},"
         "{\"type\":\"text\",\"text\":\"look\"},{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"get\",\"input\":{\"k\":1}}]}," USER(
         "[{\"type\":\"tool_result\",\"tool_use_id\":\"toolu_1\",\"content\":[{\"type\":\"text\",\"text\":\"5\"},{\"type\":\"text\",\"text\":\"6\"}]},"
         "{\"type\":\"tool_result\",\"tool_use_id\":\"toolu_2\",\"content\":\"no\",\"is_error\":true},{\"type\":\"text\",\"text\":\"dump\"}]"),
         "[" USER("\"q\"") ",{\"role\":\"assistant\",\"content\":\"look\",\"reasoning_content\":\"hm\",\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"get\","
         "\"arguments\":{\"k\":1}},\"id\":\"toolu_1\"}]},{\"role\":\"tool\",\"content\":\"5\\n6\",\"tool_call_id\":\"toolu_1\"},"
         "{\"role\":\"tool\",\"content\":\"Error: no\",\"tool_call_id\":\"toolu_2\"}," DUMP "]"},
        {NULL, USER("[{\"type\":\"document\",\"title\":\"T\",\"source\":{\"type\":\"text\",\"media_type\":\"text/plain\",\"data\":\"D\"}},{\"type\":\"document\",\"source\":{\"type\":\"content\","
         "\"content\":[{\"type\":\"text\",\"text\":\"E\"}]}},{\"type\":\"search_result\",\"source\":\"s\",\"title\":\"R\",\"content\":[{\"type\":\"text\",\"text\":\"F\"}]}]")
         ",{\"role\":\"assistant\",\"content\":[]}," DUMP,
         "[" USER("\"T\\nD\\nE\\nR\\ns\\nF\"") ",{\"role\":\"assistant\",\"content\":\"\"}," DUMP "]"},
        {NULL, DUMP ",{\"role\":\"assistant\",\"content\":\"\"}", "[" DUMP "]"}, /* an answer that goes on from nothing */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char body[4096];
        snprintf(body, sizeof body, "{\"max_tokens\":9,\"messages\":[%s]%s%s}", rows[i].messages, rows[i].system ? ",\"system\":" : "", rows[i].system ? rows[i].system : "");
        post("/messages", NULL, body);
        if (strcmp(member("content.0.text"), rows[i].said)) fail_msg("row %zu: %s%s", i, member("content.0.text"), reply.body.p);
        assert_false(last_continues);
    }
    post("/v1/messages", NULL, "{\"max_tokens\":9,\"messages\":[" DUMP ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"dump\"}]}]}");
    assert_string_equal(member("content.0.text"), "[" DUMP ",{\"role\":\"assistant\",\"content\":\"dump\"}]");
    assert_true(last_continues);
}

static void bad_requests(void **state) {
    (void)state;
    /* a body without max_tokens, and what its refusal names */
    static const char *const rows[][2] = {
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "'max_tokens'"},
        {"{\"max_tokens\":9}", "'messages'"}, {"{\"max_tokens\":9,\"messages\":{}}", "'messages'"}, {"{\"max_tokens\":9,\"messages\":[]}", "'messages'"},
        {"{\"max_tokens\":0,\"messages\":[]}", "'max_tokens'"}, {"{\"max_tokens\":\"9\",\"messages\":[]}", "'max_tokens'"}, {"[]", "JSON object"}, {"{", "line 1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        post("/v1/messages", NULL, rows[i][0]);
        expect_error(400, "invalid_request_error", rows[i][1]);
    }
    static const char *const fields[][2] = {
        {"\"system\":5", "'system'"}, {"\"system\":[5]", "'system[0]'"}, {"\"system\":[{\"type\":\"image\"}]", "'system[0]'"}, {"\"system\":[{\"type\":\"text\"}]", "'system[0].text'"},
        {"\"metadata\":5", "'metadata'"}, {"\"metadata\":{\"user_id\":5}", "'metadata.user_id'"}, {"\"stream\":1", "'stream'"}, {"\"temperature\":\"hot\"", "'temperature'"},
        {"\"top_p\":2", "'top_p'"}, {"\"top_k\":0.5", "'top_k'"}, {"\"stop_sequences\":\"x\"", "'stop_sequences'"}, {"\"stop_sequences\":[5]", "'stop_sequences'"},
        {"\"tools\":{}", "'tools'"}, {"\"tools\":[5]", "'tools[0]'"}, {"\"tools\":[{}]", "'tools[0].name'"}, {"\"tools\":[{\"name\":\"x\"}]", "'tools[0].input_schema'"},
        {"\"tools\":[{\"name\":\"x\",\"input_schema\":{},\"description\":5}]", "'tools[0].description'"}, {"\"tools\":[{\"type\":5}]", "'tools[0].type'"},
        {"\"tool_choice\":\"auto\"", "'tool_choice'"}, {"\"tool_choice\":{}", "'tool_choice.type'"}, {"\"tool_choice\":{\"type\":\"must\"}", "'tool_choice.type'"},
        {"\"tool_choice\":{\"type\":\"tool\"}", "'tool_choice.name'"}, {"\"tool_choice\":{\"type\":\"tool\",\"name\":\"x\"}", "not in 'tools'"},
        {"\"thinking\":true", "'thinking'"}, {"\"thinking\":{\"type\":\"on\"}", "'thinking.type'"}, {"\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":\"1\"}", "'thinking.budget_tokens'"},
        {"\"output_config\":5", "'output_config'"}, {"\"output_config\":{\"effort\":5}", "'output_config.effort'"}, {"\"output_config\":{\"format\":5}", "'output_config.format'"},
        {"\"output_format\":5", "'output_format'"}, {"\"model\":5", "'model'"}, {"\"agent_id\":5", "'agent_id'"},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        ask("say:x", fields[i][0]);
        expect_error(400, "invalid_request_error", fields[i][1]);
    }
    static const char *const messages[][2] = {
        {"5", "'messages[1]'"}, {"{\"content\":\"x\"}", "'messages[1].role'"}, {"{\"role\":\"tool\",\"content\":\"x\"}", "'messages[1].role'"}, {"{\"role\":\"user\"}", "'messages[1].content'"},
        {"{\"role\":\"user\",\"content\":5}", "'messages[1].content'"}, {"{\"role\":\"user\",\"content\":[5]}", "'messages[1].content[0]'"},
        {"{\"role\":\"user\",\"content\":[{}]}", "'messages[1].content[0].type'"}, {"{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}", "'messages[1].content[0].text'"},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"image\",\"source\":{}}]}", "'messages[1].content[1]' is of type 'image'"},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"document\",\"source\":{\"type\":\"base64\"}}]}", "'messages[1].content[0].source' is of type 'base64'"},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"document\"}]}", "'messages[1].content[0].source'"},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\"}]}", "'messages[1].content[0].tool_use_id'"},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"1\",\"is_error\":1}]}", "'messages[1].content[0].is_error'"},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"1\",\"content\":[{\"type\":\"image\"}]}]}", "'messages[1].content[0].content[0]' is of type 'image'"},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"tool_use\"}]}", "is of type 'tool_use'"}, {"{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_result\"}]}", "is of type 'tool_result'"},
        {"{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"name\":\"x\",\"input\":{}}]}", "'messages[1].content[0].id'"},
        {"{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"1\",\"input\":{}}]}", "'messages[1].content[0].name'"},
        {"{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"1\",\"name\":\"x\",\"input\":\"{}\"}]}", "'messages[1].content[0].input'"},
        {"{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\"}]}", "'messages[1].content[0].thinking'"},
        {"{\"role\":\"system\",\"content\":[{\"type\":\"image\"}]}", "'messages[1].content[0]' is of type 'image'"},
    };
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        char body[1024];
        snprintf(body, sizeof body, "{\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"x\"},%s]}", messages[i][0]);
        post("/v1/messages", NULL, body);
        expect_error(400, "invalid_request_error", messages[i][1]);
    }
}

static void errors(void **state) {
    (void)state;
    ask("full", "");
    expect_error(529, "overloaded_error", "wait already");
    assert_string_equal(http_header(&reply, "retry-after"), "2");
    assert_string_equal(member("error.details.error_code"), "queue_full");
    ask("full", "\"stream\":true");
    expect_error(529, "overloaded_error", "wait already");
    ask("fail", "");
    expect_error(500, "api_error", "a disk broke");
    ask("refuse me", "");
    expect_error(400, "invalid_request_error", "roles must alternate");
    ask("broken", "\"stream\":true");
    assert_int_equal(reply.status, 200);
    static const char end[] = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"a disk broke\",\"details\":{\"error_code\":\"engine_error\"}},\"request_id\":\"";
    assert_non_null(strstr(reply.body.p, "event: message_start\n"));
    assert_non_null(strstr(reply.body.p, end));
    assert_null(strstr(reply.body.p, "message_stop"));
    http_ask(port, "GET", "/v1/messages", NULL, NULL, &reply);
    expect_error(405, "invalid_request_error", "POST");
    post("/v1/messages", "Content-Type: text/plain\r\n", "{}");
    expect_error(415, "invalid_request_error", "JSON");
    post("/v1/messages/batches", NULL, "{}");
    expect_error(404, "not_found_error", "/v1/messages");
    static char big[(1 << 20) + 100];
    memset(big, ' ', sizeof big - 1);
    post("/v1/messages", NULL, big);
    expect_error(413, "request_too_large", "longer than");
    static char many[30100 * 2];
    size_t n = (size_t)sprintf(many, "{\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"");
    memset(many + n, 'x', 30050);
    sprintf(many + n + 30050, "\"}]}");
    post("/v1/messages", NULL, many);
    expect_error(400, "invalid_request_error", "prompt is too long: 30050 tokens > 29999 maximum");
    /* the other dialect's errors are as they were, whatever the client */
    http_ask(port, "POST", "/v1/chat/completions", "anthropic-version: 2023-06-01\r\n", "{}", &reply);
    assert_string_equal(member("error.code"), "missing_required_parameter");
    assert_string_equal(member("request_id"), "(absent)");
    assert_null(http_header(&reply, "request-id"));
}

static void counts(void **state) {
    (void)state;
    post("/v1/messages/count_tokens?beta=true", NULL, "{\"model\":\"claude-x\",\"messages\":[{\"role\":\"user\",\"content\":\"0123456789\"}]," TOOLS "}");
    assert_int_equal(reply.status, 200);
    assert_string_equal(member("input_tokens"), "10");
    post("/v1/messages/count_tokens", NULL, "{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"0123\"}]}");
    assert_string_equal(member("input_tokens"), "4");
    post("/v1/messages/count_tokens", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":5}]}");
    expect_error(400, "invalid_request_error", "'messages[0].content'");
    post("/v1/messages/count_tokens", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"refuse me\"}]}");
    expect_error(400, "invalid_request_error", "alternate");
}

static void models(void **state) {
    (void)state;
    static const char version[] = "anthropic-version: 2023-06-01\r\n";
    http_ask(port, "GET", "/v1/models?limit=1000", version, NULL, &reply);
    static const char *const members[][2] = {{"data.0.id", "fake-1"}, {"data.0.type", "model"}, {"data.0.display_name", "fake-1"}, {"data.0.created_at", "1970-01-01T00:00:00Z"},
                                             {"data.0.max_input_tokens", "30000"}, {"has_more", "(other)"}, {"first_id", "fake-1"}, {"last_id", "fake-1"}, {"object", "(absent)"}};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) assert_string_equal(member(members[i][0]), members[i][1]);
    http_ask(port, "GET", "/v1/models?after_id=fake-1", version, NULL, &reply);
    assert_string_equal(member("data.0"), "(absent)");
    assert_string_equal(member("first_id"), "null");
    http_ask(port, "GET", "/v1/models/fake-1", version, NULL, &reply);
    assert_string_equal(member("type"), "model");
    http_ask(port, "GET", "/v1/models/other", version, NULL, &reply);
    expect_error(404, "not_found_error", "no model 'other'");
    http_ask(port, "GET", "/v1/models", NULL, NULL, &reply);
    assert_string_equal(member("object"), "list");
}

/* What Claude Code asks beside: its probes, and a log that is not kept here. */
static void probes(void **state) {
    (void)state;
    post("/api/event_logging/batch", NULL, "{\"events\":[]}");
    assert_int_equal(reply.status, 404);
    static const char *const heads[][2] = {{"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "HTTP/1.1 200"},
                                           {"HEAD /api/hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"}};
    for (size_t i = 0; i < 2; i++) {
        char raw[64] = "";
        int fd = http_connect(port);
        http_text(fd, heads[i][0]);
        assert_int_equal(recv(fd, raw, 12, MSG_WAITALL), 12);
        close(fd);
        assert_string_equal(raw, heads[i][1]);
    }
}

static void identity(void **state) {
    (void)state;
#define SESSION "x-claude-code-session-id: s1\r\n"
#define USER_ID ",\"metadata\":{\"user_id\":\"u\"}"
    static const char *const rows[][3] = {
        {"", "", ""},
        {"", USER_ID, "u"},
        {SESSION, USER_ID, "s1"},
        {SESSION "x-claude-code-agent-id: a1\r\n", USER_ID, "s1/a1"},
        {SESSION "x-claude-code-agent-id: a1\r\nX-Agent-Id: me\r\n", USER_ID, "me"},
        {SESSION, ",\"agent_id\":\"mine\"", "mine"},
        {SESSION, ",\"model\":\"claude-haiku-4-5\"", "s1/haiku"}, /* titles and the like: not the conversation */
        {SESSION, ",\"model\":\"claude-sonnet-4-5\"", "s1"},
        {SESSION "x-claude-code-agent-id: a1\r\n", ",\"model\":\"claude-haiku-4-5\"", "s1/a1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char body[256];
        snprintf(body, sizeof body, "{\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"say:x\"}]%s}", rows[i][1]);
        post("/v1/messages", rows[i][0], body);
        assert_int_equal(reply.status, 200);
        assert_string_equal(last_agent, rows[i][2]);
    }
    post("/v1/messages", "X-Agent-Id: a\x01z\r\n", "{\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"say:x\"}],\"agent_id\":\"\\u0001\"}");
    assert_int_equal(reply.status, 400);
    json_decref(start_message);
    json_decref(last_delta);
}

/* For tests/e2e/test_anthropic.py: the server with its scripted engine, until standard input ends. */
static int serve(void) {
    setup(NULL);
    am_server_attach(server, (am_runtime *)&model_info);
    printf("%u\n", port);
    fflush(stdout);
    while (getchar() != EOF) {}
    return teardown(NULL);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "serve") == 0) return serve();
    const struct CMUnitTest tests[] = {cmocka_unit_test(loads), cmocka_unit_test(whole_messages), cmocka_unit_test(usage_is_disjoint), cmocka_unit_test(streams),
                                       cmocka_unit_test(thoughts_and_calls), cmocka_unit_test(wishes), cmocka_unit_test(messages_for_templates),
                                       cmocka_unit_test(bad_requests), cmocka_unit_test(errors), cmocka_unit_test(counts), cmocka_unit_test(models),
                                       cmocka_unit_test(probes), cmocka_unit_test(identity)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
