/* What is said when the process dies of its own fault: SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL. */
#ifndef AM_MAIN_CRASH_H
#define AM_MAIN_CRASH_H

/* From now on such a signal writes a report (cause, model, request and agent in hand, registers, backtrace) to standard
 * error and to <data_dir>/crash/<time>-<pid>.txt, then does what the system does with it. data_dir "": standard error
 * alone. Nothing is created before it is needed. In builds with a sanitizer that reports itself this does nothing. */
void am_crash_setup(const char *data_dir);

/* Makes the process crash in the first forward pass for a request, so that all of the above can be seen. jump: calls an
 * address where nothing is. */
#define AM_CRASH_KINDS "no|segv|abort|bus|fpe|ill|jump|stack"
typedef enum am_crash_kind {
    AM_CRASH_NO,
    AM_CRASH_SEGV,
    AM_CRASH_ABORT,
    AM_CRASH_BUS, /* a mapped file loses its end */
    AM_CRASH_FPE,
    AM_CRASH_ILL,
    AM_CRASH_JUMP,
    AM_CRASH_STACK
} am_crash_kind;
void am_crash_test(am_crash_kind kind);

#endif
