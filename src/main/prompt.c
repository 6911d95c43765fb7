/* Owns line input. On a terminal libedit edits and remembers; a pipe is read as it is, so that a script sees no prompts.
 *
 * Characters come through a reader of our own because libedit swallows the first EINTR: Ctrl-C shall give up the line at once. */
#include "main/prompt.h"

#include <errno.h>
#include <histedit.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

enum { N_HISTORY = 1000, MAX_LINE_BYTES = 16 << 20 };

struct am_prompt_line {
    EditLine *edit; /* NULL: not a terminal */
    History *history;
    const char *prompt;
    char *history_path;
    volatile sig_atomic_t *stop;
    am_buf line;
    char *raw; /* getline's */
    size_t raw_cap;
};

static char *prompt_of(EditLine *edit) {
    am_prompt_line *line;
    el_get(edit, EL_CLIENTDATA, &line);
    return (char *)line->prompt;
}

/* Waits for input. False: *stop was set. Signals are let in only while it waits, so none falls between the look at *stop and the wait. */
static bool wait_for_input(const volatile sig_atomic_t *stop) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (!*stop && ppoll(&input, 1, NULL, &before) < 0 && errno == EINTR) continue;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !*stop;
}

static int read_character(EditLine *edit, wchar_t *out) {
    am_prompt_line *line;
    mbstate_t state = {0};
    el_get(edit, EL_CLIENTDATA, &line);
    for (;;) {
        char c;
        if (!wait_for_input(line->stop)) return -1;
        ssize_t n = read(STDIN_FILENO, &c, 1);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n == 0 ? 0 : -1;
        size_t used = mbrtowc(out, &c, 1, &state);
        if (used == (size_t)-2) continue;
        if (used != (size_t)-1) return 1;
        memset(&state, 0, sizeof state); /* not a character of this locale: left out */
    }
}

static am_status open_editor(am_prompt_line *line, am_error *err) {
    HistEvent event;
    line->edit = el_init("agent-memory", stdin, stdout, stderr);
    line->history = history_init();
    if (!line->edit || !line->history) return am_fail(err, AM_EIO, "this terminal cannot be edited on (TERM=%s)", getenv("TERM"));
    history(line->history, &event, H_SETSIZE, N_HISTORY);
    history(line->history, &event, H_SETUNIQUE, 1);
    if (line->history_path) history(line->history, &event, H_LOAD, line->history_path);
    el_set(line->edit, EL_CLIENTDATA, line);
    el_set(line->edit, EL_PROMPT, prompt_of);
    el_set(line->edit, EL_EDITOR, "emacs");
    el_set(line->edit, EL_HIST, history, line->history);
    el_set(line->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(line->edit, EL_GETCFN, read_character);
    el_source(line->edit, NULL);
    return AM_OK;
}

am_status am_prompt_line_open(const char *history, am_prompt_line **out, am_error *err) {
    am_status status = AM_OK;
    am_prompt_line *line = am_calloc(1, sizeof *line);
    if (!line) return am_fail(err, AM_ENOMEM, "no memory");
    am_buf_init(&line->line, MAX_LINE_BYTES);
    if (history && !(line->history_path = strdup(history))) status = am_fail(err, AM_ENOMEM, "no memory");
    if (!status && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) status = open_editor(line, err);
    *out = status ? NULL : line;
    if (status) am_prompt_line_close(line);
    return status;
}

void am_prompt_line_close(am_prompt_line *line) {
    HistEvent event;
    if (!line) return;
    if (line->edit && line->history && line->history_path) history(line->history, &event, H_SAVE, line->history_path);
    if (line->edit) el_end(line->edit);
    if (line->history) history_end(line->history);
    am_buf_free(&line->line);
    free(line->history_path);
    free(line->raw);
    free(line);
}

bool am_prompt_line_terminal(const am_prompt_line *line) { return line->edit != NULL; }

/* One line as typed, with its newline. */
static bool read_raw(am_prompt_line *line, am_str *out) {
    if (!line->edit) {
        ssize_t n = getline(&line->raw, &line->raw_cap, stdin);
        if (n < 0) return false;
        *out = (am_str){line->raw, (size_t)n};
        return true;
    }
    int n = 0;
    const char *typed = el_gets(line->edit, &n);
    if (!typed || n <= 0) return false;
    *out = (am_str){typed, (size_t)n};
    return true;
}

static void remember(am_prompt_line *line) {
    HistEvent event;
    if (line->edit && line->line.n) history(line->history, &event, H_ENTER, line->line.p);
}

bool am_prompt_line_read(am_prompt_line *line, const char *prompt, volatile sig_atomic_t *stop, am_str *out, bool *interrupted) {
    am_str raw;
    *interrupted = false;
    line->prompt = prompt;
    line->stop = stop;
    am_buf_clear(&line->line);
    for (;;) {
        if (!read_raw(line, &raw)) {
            *interrupted = *stop != 0;
            *stop = 0;
            if (*interrupted && line->edit) el_reset(line->edit);
            *out = AM_STR("");
            return *interrupted || line->line.n > 0;
        }
        while (raw.n && (raw.p[raw.n - 1] == '\n' || raw.p[raw.n - 1] == '\r')) raw.n--;
        bool more = line->edit && raw.n && raw.p[raw.n - 1] == '\\';
        if (more) raw.n--;
        am_buf_add(&line->line, raw);
        if (!more) break;
        am_buf_putc(&line->line, '\n');
        line->prompt = ". ";
    }
    remember(line);
    *out = line->line.n ? am_buf_str(&line->line) : AM_STR("");
    return true;
}
