/* One turn of a terminal chat, either asked of a running server or run in this process; `chat` does not care which. */
#ifndef AM_MAIN_TALK_H
#define AM_MAIN_TALK_H

#include "agents/runtime.h"
#include "main/settings.h"

#include <signal.h>

typedef struct am_talk {
    const am_settings *settings;
    am_runtime *runtime; /* NULL: a server answers */
} am_talk;

typedef struct am_talk_turn {
    /* in */
    const char *agent;      /* NULL: whoever has the longest stored prefix */
    const json_t *messages; /* the whole conversation */
    double temperature;     /* negative: the model's */
    uint32_t max_tokens;
    void (*on_text)(void *arg, am_str text);
    void (*on_prefill)(void *arg, uint32_t n_done, uint32_t n_total);
    void *arg;
    const volatile sig_atomic_t *stop; /* nonzero ends the answer where it is */
    /* out; text is the caller's to free */
    am_buf text;
    char agent_used[AM_NAME_MAX + 1], tier[8];
    uint32_t n_prompt, n_cached, n_answer;
    double first_ms, all_ms;
} am_talk_turn;

/* Finds a server at --host and --port (unless --local) or starts a runtime. */
am_status am_talk_open(const am_settings *settings, am_talk *talk, am_error *err);
void am_talk_close(am_talk *talk); /* writes everything to disk first */
/* AM_ECANCELED when it was stopped; text then has what had come. */
am_status am_talk_run(am_talk *talk, am_talk_turn *turn, am_error *err);

#endif
