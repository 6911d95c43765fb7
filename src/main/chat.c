/* Owns `chat`: read a line, ask, show the answer as it comes, keep what was said when the agent has a name.
 *
 * Ctrl-C while the model answers ends the answer (what has come stays part of the conversation); at the prompt it gives up the line; Ctrl-D
 * leaves. SIGTERM leaves too. Leaving ends the runtime properly, so the agent is warm next time. */
#include "main/chat.h"

#include "base/fs.h"
#include "main/commands.h"

#include <locale.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t stop_answer;
static volatile sig_atomic_t leave;

static pthread_t main_thread;

/* The engine's threads may get the signal; the one that waits for a line has to. */
static void on_interrupt(int signal_number) {
    if (!pthread_equal(pthread_self(), main_thread)) {
        pthread_kill(main_thread, signal_number);
        return;
    }
    stop_answer = 1;
    if (signal_number != SIGINT) leave = 1;
}

static void watch_signals(void) {
    main_thread = pthread_self();
    struct sigaction action = {.sa_handler = on_interrupt}; /* no SA_RESTART: a waiting read shall notice */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void show_text(void *arg, am_str text) {
    am_chat_session *chat = arg;
    am_progress_end(&chat->progress);
    fwrite(text.p, 1, text.n, stdout);
    fflush(stdout);
}

static void show_prefill(void *arg, uint32_t n_done, uint32_t n_total) {
    am_chat_session *chat = arg;
    am_progress_update(&chat->progress, "reading", n_done, n_total);
}

bool am_chat_answer(am_chat_session *chat) {
    am_error err = {0};
    am_talk_turn turn = {
        .agent = chat->agent[0] ? chat->agent : NULL,
        .messages = chat->transcript.messages,
        .temperature = chat->settings->temperature,
        .max_tokens = (uint32_t)chat->settings->max_tokens,
        .on_text = show_text,
        .on_prefill = show_prefill,
        .arg = chat,
        .stop = &stop_answer,
    };
    am_status status = am_talk_run(&chat->talk, &turn, &err);
    am_progress_end(&chat->progress);
    bool some = turn.text.n > 0, stopped = status == AM_ECANCELED;
    if (some || !status) puts("");
    if (stopped) fputs("(stopped)\n", stderr);
    else if (status) fprintf(stderr, "agent-memory: %s\n", err.message);
    stop_answer = 0;
    if (!status || (stopped && some)) {
        if (am_transcript_add(&chat->transcript, "assistant", am_buf_str(&turn.text)) || am_transcript_save(&chat->transcript, &err))
            fprintf(stderr, "agent-memory: the conversation was not kept: %s\n", err.message);
    } else {
        am_transcript_drop(&chat->transcript, "user"); /* so that it can be asked again */
    }
    am_buf_free(&turn.text);
    chat->last = turn;
    chat->last.agent = NULL;
    return !status || stopped;
}

am_status am_chat_switch(am_chat_session *chat, const char *agent, am_error *err) {
    am_transcript transcript;
    am_status status = *agent ? am_agent_name_check(am_str_of(agent), err) : AM_OK;
    const char *dir = chat->talk.runtime ? am_runtime_data_dir(chat->talk.runtime) : chat->settings->data_dir ? chat->settings->data_dir : am_settings_home();
    if (!status) status = am_transcript_open(&transcript, dir, *agent ? agent : NULL, err);
    if (status) return status;
    am_transcript_close(&chat->transcript);
    chat->transcript = transcript;
    snprintf(chat->agent, sizeof chat->agent, "%s", agent);
    if (json_array_size(transcript.messages) == 0) am_transcript_reset(&chat->transcript, chat->settings->system);
    return AM_OK;
}

static void greet(const am_chat_session *chat) {
    if (!am_prompt_line_terminal(chat->line)) return;
    const char *who = chat->agent[0] ? chat->agent : "a new conversation";
    if (chat->talk.runtime) printf("%s, %s in this process. /help lists commands, Ctrl-D leaves.\n", who, am_model_info_of(am_runtime_model(chat->talk.runtime))->name);
    else printf("%s, with the server at %s:%llu. /help lists commands, Ctrl-D leaves.\n", who, chat->settings->host, (unsigned long long)chat->settings->port);
    size_t n = json_array_size(chat->transcript.messages);
    if (n > 1) printf("(%zu messages so far; /show prints them)\n", n);
}

static bool converse(am_chat_session *chat) {
    am_str line;
    bool interrupted, good = true;
    while (!chat->quit && !leave && am_prompt_line_read(chat->line, "> ", &stop_answer, &line, &interrupted)) {
        if (interrupted && !am_prompt_line_terminal(chat->line)) break;
        if (interrupted) {
            puts("");
            continue;
        }
        if (line.n == 0) continue;
        if (line.p[0] == '/') {
            am_chat_slash(chat, line);
        } else if (am_transcript_add(&chat->transcript, "user", line)) {
            fputs("agent-memory: the line is not UTF-8\n", stderr);
            good = false;
        } else if (!am_chat_answer(chat)) {
            good = false;
        }
    }
    return good;
}

int am_command_chat(am_settings *settings) {
    am_chat_session chat = {.settings = settings};
    am_error err = {0};
    char history[4200];
    bool good = false;
    setlocale(LC_CTYPE, "");
    const char *dir = settings->data_dir ? settings->data_dir : am_settings_home();
    bool keep = *dir && am_fs_join(history, sizeof history, dir, "chat_history", NULL) == AM_OK;
    am_status status = am_talk_open(settings, &chat.talk, &err);
    if (!status) status = am_prompt_line_open(keep ? history : NULL, &chat.line, &err);
    watch_signals();
    if (!status) status = am_chat_switch(&chat, settings->agent ? settings->agent : "", &err);
    if (!status) {
        greet(&chat);
        good = converse(&chat);
    } else {
        fprintf(stderr, "agent-memory: %s\n", err.message);
    }
    am_prompt_line_close(chat.line);
    am_transcript_close(&chat.transcript);
    am_talk_close(&chat.talk);
    return good ? 0 : AM_EXIT_FAILED;
}
