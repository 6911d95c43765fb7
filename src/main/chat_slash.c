/* Owns what begins with a slash in `chat`: one table, from which /help comes too. */
#include "main/chat.h"

#include <stdlib.h>
#include <string.h>

static void slash_help(am_chat_session *chat, const char *arg);

static void slash_new(am_chat_session *chat, const char *arg) {
    am_error err = {0};
    (void)arg;
    am_transcript_reset(&chat->transcript, NULL);
    if (am_transcript_save(&chat->transcript, &err)) fprintf(stderr, "%s\n", err.message);
    else puts("a new conversation");
}

static void slash_agent(am_chat_session *chat, const char *arg) {
    am_error err = {0};
    if (!*arg) {
        const char *last = chat->last.agent_used;
        printf("%s\n", chat->agent[0] ? chat->agent : *last ? last : "no agent yet");
    } else if (am_chat_switch(chat, arg, &err)) {
        fprintf(stderr, "%s\n", err.message);
    } else {
        printf("%s, %zu messages so far\n", arg, json_array_size(chat->transcript.messages));
    }
}

static void slash_system(am_chat_session *chat, const char *arg) {
    am_transcript_reset(&chat->transcript, arg);
    puts(*arg ? "a new conversation with this system message" : "a new conversation without a system message");
}

static void slash_show(am_chat_session *chat, const char *arg) {
    size_t i;
    json_t *message;
    (void)arg;
    json_array_foreach(chat->transcript.messages, i, message) {
        const char *role = json_string_value(json_object_get(message, "role")), *text = json_string_value(json_object_get(message, "content"));
        printf("%s: %s\n", role ? role : "?", text ? text : "");
    }
}

static void slash_retry(am_chat_session *chat, const char *arg) {
    (void)arg;
    if (am_transcript_drop(&chat->transcript, "assistant")) am_chat_answer(chat);
    else puts("there is no answer yet");
}

static void slash_temperature(am_chat_session *chat, const char *arg) {
    char *end;
    double value = strtod(arg, &end);
    if (*arg && !*end && value >= -1 && value <= 2) chat->settings->temperature = value;
    else if (*arg) puts("a temperature is a number from 0 to 2; negative: the model's");
    printf("temperature %g%s\n", chat->settings->temperature, chat->settings->temperature < 0 ? " (the model's)" : "");
}

static void slash_stats(am_chat_session *chat, const char *arg) {
    const am_talk_turn *t = &chat->last;
    (void)arg;
    if (!t->agent_used[0]) {
        puts("there was no answer yet");
        return;
    }
    double rest_s = (t->all_ms - t->first_ms) / 1000;
    printf("agent %s, %s: %u of %u prompt tokens came from its memory; first token after %.0f ms; %u tokens of answer", t->agent_used, t->tier,
           t->n_cached, t->n_prompt, t->first_ms, t->n_answer);
    if (t->n_answer > 1 && rest_s > 0) printf(", %.0f a second", (t->n_answer - 1) / rest_s);
    puts("");
}

static void slash_quit(am_chat_session *chat, const char *arg) {
    (void)arg;
    chat->quit = true;
}

static const struct {
    const char *name, *arg, *help;
    void (*run)(am_chat_session *chat, const char *arg);
} slashes[] = {
    {"/help", "", "this list", slash_help},
    {"/new", "", "start over, with the same agent and system message", slash_new},
    {"/agent", "[NAME]", "say which agent this is, or go on with another", slash_agent},
    {"/system", "[TEXT]", "start over with this system message", slash_system},
    {"/show", "", "print the conversation so far", slash_show},
    {"/retry", "", "answer the last message again", slash_retry},
    {"/temperature", "[N]", "0: always the likeliest word", slash_temperature},
    {"/stats", "", "what the last answer took, and what came from memory", slash_stats},
    {"/quit", "", "leave (Ctrl-D does too)", slash_quit},
};
enum { N_SLASHES = sizeof slashes / sizeof slashes[0] };

static void slash_help(am_chat_session *chat, const char *arg) {
    (void)chat, (void)arg;
    for (size_t i = 0; i < N_SLASHES; i++) printf("  %-12s %-7s %s\n", slashes[i].name, slashes[i].arg, slashes[i].help);
    puts("  A line that ends with \\ goes on in the next. Ctrl-C stops an answer.");
}

void am_chat_slash(am_chat_session *chat, am_str line) {
    char *text = strndup(line.p, line.n);
    if (!text) return;
    size_t n = strcspn(text, " \t\n");
    char *arg = text + n;
    while (*arg == ' ' || *arg == '\t') arg++;
    text[n] = 0;
    size_t i = 0;
    while (i < N_SLASHES && strcmp(slashes[i].name, text) != 0) i++;
    if (i < N_SLASHES) slashes[i].run(chat, arg);
    else fprintf(stderr, "there is no %s; /help lists what there is\n", text);
    free(text);
}
