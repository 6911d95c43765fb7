/* What was said in a terminal chat: OpenAI messages, kept under an agent's name so that the next `chat --agent NAME` goes on. */
#ifndef AM_MAIN_TRANSCRIPT_H
#define AM_MAIN_TRANSCRIPT_H

#include "base/json.h"

typedef struct am_transcript {
    json_t *messages;
    char dir[4096];  /* <data folder>/chats; empty: nothing is kept */
    char name[700];  /* the agent's, escaped, with .json; empty: nothing is kept */
} am_transcript;

/* agent NULL: a conversation that is not kept. One that cannot be read is an error; none yet is an empty one. */
am_status am_transcript_open(am_transcript *transcript, const char *data_dir, const char *agent, am_error *err);
am_status am_transcript_save(const am_transcript *transcript, am_error *err);
void am_transcript_close(am_transcript *transcript);

am_status am_transcript_add(am_transcript *transcript, const char *role, am_str text);
/* Takes back the last message when it has this role. */
bool am_transcript_drop(am_transcript *transcript, const char *role);
/* Starts over; a system message stays unless system is not NULL (then it is replaced; "" removes it). */
void am_transcript_reset(am_transcript *transcript, const char *system);

#endif
