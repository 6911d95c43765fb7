/* text/chat.h: where a model's templates and special tokens come from, which one a request gets, and what a request cannot do. */
#include "text/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64];

static void write_file(const char *name, const char *text) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int make_dir(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/am-chat-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state) {
    static const char *const names[] = {"additional_chat_templates/rag.jinja", "additional_chat_templates/notes.txt", "chat_template.jinja",
                                        "additional_chat_templates/tool_use.jinja", "tokenizer_config.json", "special_tokens_map.json", "chat_template.json"};
    char path[200];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/additional_chat_templates", dir);
    rmdir(path);
    return rmdir(dir);
}

static am_chat *load(void) {
    am_chat *chat;
    am_error err;
    if (am_chat_load_dir(dir, &chat, &err)) fail_msg("%s", err.message);
    return chat;
}

/* Renders, and checks the text; on failure the message. */
static void gives(const am_chat *chat, const am_chat_request *request, am_status wanted, const char *text) {
    am_rendered r;
    am_error err = {0};
    assert_int_equal(am_chat_render(chat, request, &r, &err), wanted);
    if (wanted) assert_non_null(strstr(err.message, text));
    else assert_string_equal(r.text.p, text);
    am_rendered_free(&r);
}

static json_t *json(const char *text) {
    json_t *v = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(v);
    return v;
}

static void a_list_of_templates_is_chosen_from_as_transformers_does(void **state) {
    (void)state;
    am_chat *chat;
    am_error err;
    const char *config = "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"</s>\", \"unk_token\": null, \"chat_template\": ["
                         "{\"name\": \"default\", \"template\": \"D{{ bos_token }}{{ unk_token }}\"},"
                         "{\"name\": \"tool_use\", \"template\": \"T{{ tools|length }}{{ eos_token }}\"},"
                         "{\"name\": \"rag\", \"template\": \"R{{ documents|length }}\"}]}";
    assert_int_equal(am_chat_load_json(am_str_of(config), &chat, &err), AM_OK);
    json_t *messages = json("[]"), *one = json("[{}]"), *none = json("[]");
    gives(chat, &(am_chat_request){.messages = messages}, AM_OK, "D<s>");
    gives(chat, &(am_chat_request){.messages = messages, .tools = one}, AM_OK, "T1</s>");
    gives(chat, &(am_chat_request){.messages = messages, .tools = none}, AM_OK, "D<s>");
    gives(chat, &(am_chat_request){.messages = messages, .documents = one}, AM_OK, "R1");
    gives(chat, &(am_chat_request){.messages = messages, .documents = one, .tools = one}, AM_OK, "T1</s>");
    json_decref(messages);
    json_decref(one);
    json_decref(none);
    am_chat_free(chat);
}

static void a_folder_has_its_template_in_one_of_several_places(void **state) {
    (void)state;
    am_chat *chat;
    am_error err;
    char path[200];
    json_t *messages = json("[]"), *one = json("[1]");
    assert_int_equal(am_chat_load_dir(dir, &chat, &err), AM_ENOTFOUND);
    write_file("tokenizer_config.json", "{\"bos_token\": \"<b>\"}");
    assert_int_equal(am_chat_load_dir(dir, &chat, &err), AM_ENOTFOUND);
    write_file("tokenizer_config.json", "{\"bos_token\": \"<b>\", \"chat_template\": \"config{{ bos_token }}{{ eos_token }}\"}");
    chat = load();
    gives(chat, &(am_chat_request){.messages = messages}, AM_OK, "config<b>");
    am_chat_free(chat);
    write_file("special_tokens_map.json", "{\"bos_token\": \"<other>\", \"eos_token\": {\"content\": \"<e>\"}}");
    chat = load();
    gives(chat, &(am_chat_request){.messages = messages}, AM_OK, "config<b><e>");
    am_chat_free(chat);
    write_file("chat_template.json", "{\"chat_template\": \"processor's\"}");
    chat = load();
    gives(chat, &(am_chat_request){.messages = messages}, AM_OK, "config<b><e>");
    am_chat_free(chat);
    write_file("tokenizer_config.json", "{\"bos_token\": \"<b>\"}");
    chat = load();
    gives(chat, &(am_chat_request){.messages = messages}, AM_OK, "processor's");
    am_chat_free(chat);
    snprintf(path, sizeof path, "%s/additional_chat_templates", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    write_file("additional_chat_templates/tool_use.jinja", "tools");
    chat = load();
    gives(chat, &(am_chat_request){.messages = messages}, AM_OK, "processor's");
    gives(chat, &(am_chat_request){.messages = messages, .tools = one}, AM_OK, "tools");
    am_chat_free(chat);
    write_file("chat_template.jinja", "file{{ bos_token }}\n");
    write_file("additional_chat_templates/rag.jinja", "rag");
    write_file("additional_chat_templates/notes.txt", "{{");
    chat = load();
    gives(chat, &(am_chat_request){.messages = messages}, AM_OK, "file<b>");
    gives(chat, &(am_chat_request){.messages = messages, .documents = one}, AM_OK, "rag");
    am_chat_free(chat);
    write_file("chat_template.jinja", "a\n{{ b");
    assert_int_equal(am_chat_load_dir(dir, &chat, &err), AM_EFORMAT);
    assert_string_equal(err.message, "chat template 'default': line 2: TemplateSyntaxError: unexpected end of template, expected 'end of print statement'.");
    json_decref(messages);
    json_decref(one);
}

static void requests_cannot_reach_what_is_the_models(void **state) {
    (void)state;
    am_chat *chat;
    am_error err;
    json_t *tokens = json("{\"bos_token\": \"<s>\"}"), *messages = json("[{\"role\": \"user\", \"content\": \"hi\"}]");
    const char *source = "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }}{% endfor %}{{ enable_thinking }}{% if add_generation_prompt %}>{% endif %}";
    assert_int_equal(am_chat_load_source(am_str_of(source), tokens, &chat, &err), AM_OK);
    static const struct {
        const char *kwargs;
        am_status status;
        const char *text;
    } cases[] = {{"{\"enable_thinking\": false}", AM_OK, "<s>user:hiFalse>"},
                 {"{\"enable_thinking\": \"<s>\"}", AM_OK, "<s>user:hi<s>>"},
                 {"{}", AM_OK, "<s>user:hi>"},
                 {"{\"bos_token\": \"evil\"}", AM_EINVAL, "special token 'bos_token'"},
                 {"{\"messages\": []}", AM_EINVAL, "cannot set 'messages'"},
                 {"{\"tools\": []}", AM_EINVAL, "cannot set 'tools'"},
                 {"{\"chat_template\": \"{{ 1 }}\"}", AM_EINVAL, "cannot set 'chat_template'"},
                 {"{\"add_generation_prompt\": false}", AM_EINVAL, "cannot set 'add_generation_prompt'"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *kwargs = json(cases[i].kwargs);
        am_chat_request request = {.messages = messages, .kwargs = kwargs, .add_generation_prompt = true};
        gives(chat, &request, cases[i].status, cases[i].text);
        json_decref(kwargs);
    }
    am_chat_free(chat);
    json_decref(tokens);
    json_decref(messages);
}

static void the_clock_is_the_requests(void **state) {
    (void)state;
    am_chat *chat;
    am_error err;
    json_t *messages = json("[]");
    setenv("TZ", "UTC", 1);
    assert_int_equal(am_chat_load_source(AM_STR("{{ strftime_now('%d %b %Y') }}"), NULL, &chat, &err), AM_OK);
    gives(chat, &(am_chat_request){.messages = messages, .now_s = 1752148800}, AM_OK, "10 Jul 2025");
    am_chat_free(chat);
    json_decref(messages);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_list_of_templates_is_chosen_from_as_transformers_does),
                                       cmocka_unit_test_setup_teardown(a_folder_has_its_template_in_one_of_several_places, make_dir, remove_dir),
                                       cmocka_unit_test(requests_cannot_reach_what_is_the_models), cmocka_unit_test(the_clock_is_the_requests)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
