/* A whole chat request: its first byte names one of several templates, the rest is JSON with messages and tools as a client sends them. They are
 * brought into normal form, adapted to what the template can say and rendered; twice, as the same request must give the same prompt. */
#include "fuzz.h"
#include "text/chat.h"

#include <string.h>

static const char *const sources[] = {
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
    /* strict turns, nothing but user and assistant */
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) or m.role not in ['user', 'assistant'] %}{{ raise_exception('no') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}",
    /* ids of nine, one call at a time, no text beside it */
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}[{{ m.role }}]{% if m.tool_calls %}{% if m.tool_calls | length != 1 or m.tool_calls[0].id | length != 9 %}"
    "{{ raise_exception('no') }}{% endif %}{{ m.tool_calls[0].id ~ m.tool_calls[0].function | tojson }}{% else %}{{ m.tool_call_id }}{{ m.content }}{% endif %}{% endfor %}",
    /* everything; reasoning is called thinking; arguments as text, where there is no content */
    "{% for t in tools or [] %}{{ t.function.name }} {{ t.function.description }} {{ t.function.parameters | tojson(indent=2) }}{% endfor %}{% for m in messages %}"
    "[{{ m.role }}]{{ m.thinking }}{% if m.content is none %}{% for c in m.tool_calls %}{{ c.function.name + c.function.arguments }}{% endfor %}{% else %}{{ m.content | trim }}{% endif %}{% endfor %}",
    /* contents as parts */
    "{% for m in messages %}<{{ m.role }} {{ m.name }}>{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}",
    /* drops the system's text beside tools and the calls before the last question */
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for t in tools or [] %}{{ t }}{% endfor %}"
    "{% for m in messages %}{% if not (tools and m.role == 'system') %}{{ m.role }}:{{ m.content }}{% if loop.index0 > ns.last %}{{ m.tool_calls }}{% endif %}{% endif %}{% endfor %}",
};
enum { N_SOURCES = sizeof sources / sizeof *sources };

static void render(const am_chat *chat, const am_chat_request *request) {
    am_rendered a, b;
    am_error err = {0};
    am_status status = am_chat_render(chat, request, &a, &err);
    fuzz_check(am_chat_render(chat, request, &b, NULL) == status && (!status || err.message[0]));
    if (!status) {
        size_t end = 0;
        for (size_t i = 0; i < a.n_input; i++) {
            fuzz_check(a.input[i].begin >= end && a.input[i].begin < a.input[i].end && a.input[i].end <= a.text.n);
            end = a.input[i].end;
        }
        fuzz_check(a.text.n == b.text.n && memcmp(a.text.p, b.text.p, a.text.n) == 0 && a.n_input == b.n_input);
    }
    am_rendered_free(&a);
    am_rendered_free(&b);
}

FUZZ_TARGET(chat) {
    static am_chat *chats[N_SOURCES];
    char param[AM_CHAT_PARAM_BYTES];
    json_t *root = NULL, *messages = NULL, *tools = NULL, *kept;
    am_error err = {0};
    if (size == 0) return 0;
    am_chat **chat = &chats[*data % N_SOURCES];
    if (!*chat) fuzz_check(am_chat_load_source(am_str_of(sources[*data % N_SOURCES]), NULL, chat, &err) == AM_OK);
    if (am_json_parse((am_str){(const char *)data + 1, size - 1}, false, &root, NULL)) return 0;
    am_status status = am_chat_messages(json_object_get(root, "messages"), &messages, param, &err);
    fuzz_check(status ? !messages && param[0] && err.message[0] : messages != NULL);
    if (json_object_get(root, "tools") && am_chat_tools(json_object_get(root, "tools"), &tools, param, &err)) fuzz_check(!tools && param[0]);
    if (messages) {
        kept = json_deep_copy(messages);
        am_chat_request request = {.messages = messages, .tools = tools, .add_generation_prompt = true, .continue_final = json_is_true(json_object_get(root, "continue_final_message"))};
        render(*chat, &request);
        fuzz_check(json_equal(kept, messages));
        json_decref(kept);
    }
    json_decref(messages);
    json_decref(tools);
    json_decref(root);
    return 0;
}
