/* Owns the progress bar. Nothing shows in the first second, so what is quick stays silent. Bars go to standard error: standard output may be
 * an answer in a pipe. */
#include "main/progress.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SHOW_AFTER_MS = 1000, REDRAW_MS = 50, LOG_MS = 5000, WIDTH = 30 };

static void draw(am_progress *progress, double part, double start, double elapsed_ms) {
    char bar[WIDTH + 1];
    int full = (int)(part * WIDTH + 0.5);
    memset(bar, '.', WIDTH);
    memset(bar, '#', (size_t)full);
    bar[WIDTH] = 0;
    double left_s = part > start ? elapsed_ms / (part - start) * (1 - part) / 1000 : 0;
    fprintf(stderr, "\r%s [%s] %3.0f%% %.0f s left \033[K", progress->what, bar, part * 100, left_s);
    progress->drawn = true;
}

void am_progress_update(void *arg, const char *what, uint64_t done, uint64_t total) {
    am_progress *progress = arg;
    uint64_t now = am_now_ns();
    if (strncmp(progress->what, what, sizeof progress->what - 1) != 0) {
        am_progress_end(progress);
        snprintf(progress->what, sizeof progress->what, "%s", what);
        progress->start_ns = now;
        progress->start_done = done;
    }
    double elapsed_ms = am_ms_since(progress->start_ns), since_shown_ms = am_ms_since(progress->shown_ns);
    bool terminal = isatty(STDERR_FILENO);
    if (total == 0 || elapsed_ms < SHOW_AFTER_MS || since_shown_ms < (terminal ? REDRAW_MS : LOG_MS)) return;
    progress->shown_ns = now;
    double part = done < total ? (double)done / (double)total : 1;
    if (terminal) draw(progress, part, (double)progress->start_done / (double)total, elapsed_ms);
    else am_log(AM_LOG_INFO, "progress", AM_LS("what", progress->what), AM_LU("done", done), AM_LU("total", total));
}

void am_progress_end(am_progress *progress) {
    if (progress->drawn) fputs("\r\033[K", stderr);
    *progress = (am_progress){0};
}
