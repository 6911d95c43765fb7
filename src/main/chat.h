/* A terminal chat as its commands see it. */
#ifndef AM_MAIN_CHAT_H
#define AM_MAIN_CHAT_H

#include "main/progress.h"
#include "main/prompt.h"
#include "main/talk.h"
#include "main/transcript.h"

typedef struct am_chat_session {
    am_settings *settings;
    am_talk talk;
    am_prompt_line *line;
    am_transcript transcript;
    char agent[AM_NAME_MAX + 1]; /* empty: the server finds the longest prefix, then says who it was */
    am_progress progress;
    bool quit;
    am_talk_turn last; /* the last turn, for /stats; its text is freed */
} am_chat_session;

/* Asks for the answer to the conversation as it stands and shows it as it comes. false: said why on standard error. */
bool am_chat_answer(am_chat_session *chat);
/* A line that begins with a slash. */
void am_chat_slash(am_chat_session *chat, am_str line);
/* Goes on with another agent's conversation; empty: a new one that is not kept. */
am_status am_chat_switch(am_chat_session *chat, const char *agent, am_error *err);

#endif
