/* Owns the records of what is in hand: plain tables of a fixed size, written with atomic stores of pointers, so that a
 * signal handler on any thread may read them at any moment. Engines take a record each; threads that serve requests
 * have one word each in thread-local memory. */
#include "base/inhand.h"

#include "base/footprint.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static am_inhand hands[AM_INHAND_ENGINES];
static struct {
    atomic_uintptr_t p; /* 0: free. 1: being filled. */
    size_t n;
    char path[240];
} maps[AM_INHAND_MAPS];

static _Thread_local struct { const char *volatile request, *volatile agent; } own;
enum { SIGNAL_STACK = 64 << 10 }; /* a frame with AMX state alone takes 11 KiB */
static _Thread_local char signal_stack[SIGNAL_STACK] __attribute__((aligned(64)));

void (*_Atomic am_inhand_hook)(void);

am_inhand *am_inhand_take(const char *model, const char *kernels) {
    for (size_t i = 0; i < AM_INHAND_ENGINES; i++) {
        bool no = false;
        if (!atomic_compare_exchange_strong(&hands[i].taken, &no, true)) continue;
        snprintf(hands[i].model, sizeof hands[i].model, "%s", model);
        snprintf(hands[i].kernels, sizeof hands[i].kernels, "%s", kernels);
        return &hands[i];
    }
    return NULL;
}

void am_inhand_give(am_inhand *hand) {
    if (!hand) return;
    atomic_store(&hand->n, 0);
    atomic_store(&hand->taken, false);
}

void am_inhand_put(am_inhand *hand, const char *request, const char *agent) {
    if (!hand) return;
    uint32_t n = atomic_load_explicit(&hand->n, memory_order_relaxed);
    if (n < AM_INHAND_REQUESTS) {
        atomic_store_explicit(&hand->request[n], request, memory_order_relaxed);
        atomic_store_explicit(&hand->agent[n], agent, memory_order_relaxed);
    }
    atomic_store_explicit(&hand->n, n + 1, memory_order_release);
}

void am_inhand_begin(am_inhand *hand) {
    (void)hand;
    void (*hook)(void) = atomic_load_explicit(&am_inhand_hook, memory_order_relaxed);
    if (hook) hook();
}

void am_inhand_done(am_inhand *hand) {
    if (hand) atomic_store_explicit(&hand->n, 0, memory_order_release);
}

void am_inhand_thread(const char *request, const char *agent) {
    own.agent = agent;
    own.request = request;
}

void am_thread_begin(const char *name) {
    if (name) pthread_setname_np(pthread_self(), name);
    am_footprint_add_stack();
    stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
    if (!AM_SANITIZED) sigaltstack(&stack, NULL);
    sigset_t faults; /* one that is blocked when it strikes kills without a word */
    sigemptyset(&faults);
    sigaddset(&faults, SIGSEGV);
    sigaddset(&faults, SIGABRT);
    sigaddset(&faults, SIGBUS);
    sigaddset(&faults, SIGFPE);
    sigaddset(&faults, SIGILL);
    pthread_sigmask(SIG_UNBLOCK, &faults, NULL);
}

void am_inhand_map(const void *p, size_t n, const char *path) {
    for (size_t i = 0; i < AM_INHAND_MAPS; i++) {
        uintptr_t unused = 0;
        if (!atomic_compare_exchange_strong(&maps[i].p, &unused, 1)) continue;
        size_t length = strlen(path),
               from = length >= sizeof maps[i].path ? length - sizeof maps[i].path + 1 : 0; /* the end says more */
        memcpy(maps[i].path, path + from, length - from + 1);
        maps[i].n = n;
        atomic_store(&maps[i].p, (uintptr_t)p);
        return;
    }
}

void am_inhand_unmap(const void *p) {
    for (size_t i = 0; i < AM_INHAND_MAPS; i++) {
        uintptr_t wanted = (uintptr_t)p;
        if (atomic_compare_exchange_strong(&maps[i].p, &wanted, 0)) return;
    }
}

const am_inhand *am_inhand_at(size_t i) {
    return i < AM_INHAND_ENGINES && atomic_load(&hands[i].taken) ? &hands[i] : NULL;
}

void am_inhand_own(const char **request, const char **agent) {
    *request = own.request;
    *agent = own.agent;
}

const char *am_inhand_file(const void *address, size_t *offset) {
    for (size_t i = 0; i < AM_INHAND_MAPS; i++) {
        uintptr_t p = atomic_load(&maps[i].p), a = (uintptr_t)address;
        if (p <= 1 || a < p || a - p >= (maps[i].n + 4095) / 4096 * 4096) continue;
        *offset = a - p;
        return maps[i].path;
    }
    return NULL;
}
