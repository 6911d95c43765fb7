/* How long one rendering takes: a chat of N turns (user and assistant in turn, 400 bytes each, every fourth with a tool call)
 * through a template file, or that of a model's folder.   build/bench/bench_template [TEMPLATE|FOLDER [TURNS [SECONDS]]]   (models/memo-28m)
 * bench/template_python.py times Python's jinja2 on the same chat; run both in one go to compare. */
#include "base/clock.h"
#include "base/fs.h"
#include "text/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static json_t *conversation(int turns) {
    json_t *messages = json_array();
    char text[401];
    for (int i = 0; i < 400; i++) text[i] = "the quick brown fox, jumps <over> \"it\"\n"[i % 39];
    text[400] = 0;
    json_array_append_new(messages, json_pack("{s:s,s:s}", "role", "system", "content", "You are a test."));
    for (int i = 0; i < turns; i++) {
        json_array_append_new(messages, json_pack("{s:s,s:s}", "role", "user", "content", text));
        json_t *answer = json_pack("{s:s,s:s}", "role", "assistant", "content", text);
        if (i % 4 == 3)
            json_object_set_new(answer, "tool_calls", json_pack("[{s:s,s:{s:s,s:{s:s,s:i}}}]", "type", "function", "function", "name", "look_up", "arguments", "what", "a \"b\" c", "n", i));
        json_array_append_new(messages, answer);
    }
    return messages;
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "models/memo-28m";
    int turns = argc > 2 ? atoi(argv[2]) : 500;
    double seconds = argc > 3 ? atof(argv[3]) : 2;
    am_buf source;
    am_chat *chat = NULL;
    am_error err = {0};
    am_buf_init(&source, 8u << 20);
    json_t *tokens = json_pack("{s:s,s:s}", "bos_token", "<s>", "eos_token", "</s>"), *messages = conversation(turns);
    struct stat st;
    bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    am_status status = folder ? AM_OK : am_fs_read_file(path, &source, 4u << 20, &err);
    uint64_t start = am_now_ns();
    if (!status) status = folder ? am_chat_load_dir(path, &chat, &err) : am_chat_load_source(am_buf_str(&source), tokens, &chat, &err);
    double compile_ms = am_ms_since(start), best = 1e9, total = 0;
    size_t bytes = 0, marks = 0;
    int rounds = 0;
    for (; !status && total < seconds * 1000; rounds++) {
        am_chat_request request = {.messages = messages, .add_generation_prompt = true};
        am_rendered r;
        start = am_now_ns();
        status = am_chat_render(chat, &request, &r, &err);
        double ms = am_ms_since(start);
        total += ms;
        if (ms < best) best = ms;
        bytes = r.text.n;
        marks = r.n_input;
        am_rendered_free(&r);
    }
    if (status) fprintf(stderr, "%s\n", err.message);
    else printf("agent-memory: compile %.3f ms; %d messages, %zu bytes out, %zu input ranges: best %.3f ms, mean %.3f ms of %d\n", compile_ms,
                (int)json_array_size(messages), bytes, marks, best, total / rounds, rounds);
    am_chat_free(chat);
    am_buf_free(&source);
    json_decref(tokens);
    json_decref(messages);
    return status != AM_OK;
}
