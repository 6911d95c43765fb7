/* What every thread has in hand, kept so that a crash report can say it: written by the threads that work, read by a
 * signal handler while they stand still or run on. No locks and no memory is taken; a record that changes while it is
 * read shows a mixture, which a report bears. */
#ifndef AM_BASE_INHAND_H
#define AM_BASE_INHAND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Builds with a sanitizer that handles signals itself, on stacks of its own (which it unmaps at a thread's end, whoever
 * made them). */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define AM_SANITIZED 1
#elif defined(__has_feature)
#define AM_SANITIZED                                                                                                   \
    (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer))
#else
#define AM_SANITIZED 0
#endif

/* One engine's work: the requests that share the forward pass under way. */
enum { AM_INHAND_ENGINES = 16, AM_INHAND_REQUESTS = 64, AM_INHAND_MAPS = 256 };
typedef struct am_inhand {
    atomic_bool taken;
    char model[128], kernels[32];
    _Atomic uint32_t n; /* requests; 0: between passes. Those beyond AM_INHAND_REQUESTS are only counted. */
    _Atomic(const char *) request[AM_INHAND_REQUESTS];
    _Atomic(const char *) agent[AM_INHAND_REQUESTS];
} am_inhand;

/* A record of one's own until it is given back; NULL when all are taken, which the functions below take as well. */
am_inhand *am_inhand_take(const char *model, const char *kernels);
void am_inhand_give(am_inhand *hand);
/* The pass that begins works for these; the strings stay until am_inhand_done. */
void am_inhand_put(am_inhand *hand, const char *request, const char *agent);
void am_inhand_begin(am_inhand *hand); /* all are put: the pass begins */
void am_inhand_done(am_inhand *hand);

/* The request this thread reads, templates or answers; NULL, NULL when it is done. The strings stay until then. */
void am_inhand_thread(const char *request, const char *agent);

/* Every thread calls this first: gives it a name, a stack of its own for signal handlers, so that running out of stack
 * can be reported, and lets the signals of faults through. */
void am_thread_begin(const char *name);

/* Files that are mapped, by address, so that a bus error can name the file. */
void am_inhand_map(const void *p, size_t n, const char *path);
void am_inhand_unmap(const void *p);

/* For the report. i counts up from 0; false: no such record, or it is empty. */
const am_inhand *am_inhand_at(size_t i);
void am_inhand_own(const char **request, const char **agent);
const char *am_inhand_file(const void *address, size_t *offset); /* NULL: in no mapped file */
/* Called at every begin of a pass when it is set: for the test of the report. */
extern void (*_Atomic am_inhand_hook)(void);

#endif
