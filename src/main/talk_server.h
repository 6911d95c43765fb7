/* What the two ways of a turn share; see talk.h. */
#ifndef AM_MAIN_TALK_SERVER_H
#define AM_MAIN_TALK_SERVER_H

#include "main/talk.h"

enum { AM_MAX_ANSWER_BYTES = 64 << 20 };

/* Text arrived: kept, timed and handed on. */
void am_talk_text(am_talk_turn *turn, am_str text, uint64_t start_ns);
am_status am_talk_run_server(am_talk *talk, am_talk_turn *turn, uint64_t start_ns, am_error *err);

#endif
