/* Lines from a person: edited and with a history on a terminal, as they are from a pipe. */
#ifndef AM_MAIN_PROMPT_H
#define AM_MAIN_PROMPT_H

#include "base/buf.h"

#include <signal.h>

typedef struct am_prompt_line am_prompt_line;

/* history: a file to keep entered lines in, or NULL. */
am_status am_prompt_line_open(const char *history, am_prompt_line **out, am_error *err);
void am_prompt_line_close(am_prompt_line *line);
bool am_prompt_line_terminal(const am_prompt_line *line);
/* The next line without its newline, valid until the next call; false at the end of input. *interrupted is set (and an empty line returned) when
 * `stop` became nonzero while waiting; it is cleared. A line that ends with a backslash goes on in the next. */
bool am_prompt_line_read(am_prompt_line *line, const char *prompt, volatile sig_atomic_t *stop, am_str *out, bool *interrupted);

#endif
