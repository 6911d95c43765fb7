/* Owns the crash report. Everything it needs is made ready at start (paths, symbol table, the unwinder's own library);
 * the handler itself only reads tables and calls open, write, stat and sigaction. It runs on a stack of its own, so a
 * stack that ran over can be reported too.
 *
 *   fault -> handler (all five signals blocked: a fault in here kills at once) -> report -> default action, by
 * returning into the fault or, when another process or abort sent the signal, by sending it again. A second thread that
 * crashes meanwhile waits. An alarm ends a report that hangs. */
#include "main/crash.h"

#include "base/fs.h"
#include "base/inhand.h"
#include "main/crash_out.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

enum { MAX_FRAMES = 64, MAX_STACK_WORDS = 512, REPORT_SECONDS = 10 };

static const struct {
    int number;
    const char *name, *text;
} signals[] = {{SIGSEGV, "SIGSEGV", "invalid memory reference"},
               {SIGABRT, "SIGABRT", "abort was called"},
               {SIGBUS, "SIGBUS", "memory that cannot be had"},
               {SIGFPE, "SIGFPE", "impossible arithmetic"},
               {SIGILL, "SIGILL", "illegal instruction"}};
enum { N_SIGNALS = sizeof signals / sizeof signals[0] };

static struct {
    char data_dir[4096], dir[4128];
    am_crash_kind test;
    atomic_int reporting;
    uintptr_t frames[MAX_FRAMES];
    int n_frames;
} crash;

static void put_field(am_crash_out *out, const char *name, const char *value) {
    am_crash_put(out, name);
    am_crash_put(out, value);
    am_crash_put(out, "\n");
}

#if defined(__x86_64__)
static uintptr_t pc_of(const ucontext_t *c) { return (uintptr_t)c->uc_mcontext.gregs[REG_RIP]; }
static uintptr_t sp_of(const ucontext_t *c) { return (uintptr_t)c->uc_mcontext.gregs[REG_RSP]; }
static void put_registers(am_crash_out *out, const ucontext_t *c) {
    static const char *const names[] = {"r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi",
                                        "rbp", "rbx", "rdx", "rax", "rcx", "rsp", "rip", "flg"}; /* in gregs' order */
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        am_crash_put(out, "  ");
        am_crash_put(out, names[i]);
        am_crash_put(out, " ");
        am_crash_put_hex(out, (uint64_t)c->uc_mcontext.gregs[i]);
        am_crash_put(out, i % 4 == 3 ? "\n" : "");
    }
    am_crash_put(out, "\n");
}
#elif defined(__aarch64__)
static uintptr_t pc_of(const ucontext_t *c) { return c->uc_mcontext.pc; }
static uintptr_t sp_of(const ucontext_t *c) { return c->uc_mcontext.sp; }
static void put_registers(am_crash_out *out, const ucontext_t *c) {
    for (size_t i = 0; i < 31; i++) {
        am_crash_put(out, "  x");
        am_crash_put_number(out, i);
        am_crash_put(out, " ");
        am_crash_put_hex(out, c->uc_mcontext.regs[i]);
        am_crash_put(out, i % 4 == 3 ? "\n" : "");
    }
    am_crash_put(out, "  sp ");
    am_crash_put_hex(out, c->uc_mcontext.sp);
    am_crash_put(out, "  pc ");
    am_crash_put_hex(out, c->uc_mcontext.pc);
    am_crash_put(out, "\n");
}
#endif

static void put_cause(am_crash_out *out, const siginfo_t *info) {
    size_t offset = 0;
    const char *file = info->si_signo == SIGBUS ? am_inhand_file(info->si_addr, &offset) : NULL;
    struct stat st;
    if (info->si_code <= 0) { /* kill, raise, abort */
        am_crash_put(out, "cause      sent by process ");
        am_crash_put_number(out, (uint64_t)info->si_pid);
        am_crash_put(out, info->si_pid == getpid() ? " (this one)\n" : "\n");
        return;
    }
    am_crash_put(out, info->si_signo == SIGILL || info->si_signo == SIGFPE ? "cause      instruction at "
                                                                           : "cause      address ");
    am_crash_put_hex(out, (uintptr_t)info->si_addr);
    am_crash_put(out, "\n");
    if (!file) return;
    am_crash_put(out, "           which is byte ");
    am_crash_put_number(out, offset);
    am_crash_put(out, " of the mapped file ");
    am_crash_put(out, file);
    if (stat(file, &st) == 0 && (uint64_t)st.st_size <= offset) {
        am_crash_put(out, "\n           which was truncated while it was in use: it has ");
        am_crash_put_number(out, (uint64_t)st.st_size);
        am_crash_put(out, " bytes now. Put the file back whole and start again; nothing else is wrong.\n");
    } else {
        am_crash_put(out,
                     "\n           whose disk could not give it: see dmesg. Copy the file anew and start again.\n");
    }
}

static void put_request(am_crash_out *out, const char *request, const char *agent) {
    am_crash_put(out, "in hand    request ");
    am_crash_put_untrusted(out, request);
    am_crash_put(out, ", agent ");
    am_crash_put_untrusted(out, agent);
    am_crash_put(out, "\n");
}

static void put_in_hand(am_crash_out *out) {
    const char *request, *agent;
    am_inhand_own(&request, &agent);
    if (request) put_request(out, request, agent ? agent : "");
    for (size_t i = 0; i < AM_INHAND_ENGINES; i++) {
        const am_inhand *hand = am_inhand_at(i);
        if (!hand) continue;
        am_crash_put(out, "model      ");
        am_crash_put_untrusted(out, hand->model);
        put_field(out, ", kernels ", hand->kernels);
        uint32_t n = atomic_load(&hand->n), shown = n < AM_INHAND_REQUESTS ? n : AM_INHAND_REQUESTS;
        for (uint32_t j = 0; j < shown; j++)
            put_request(out, atomic_load(&hand->request[j]), atomic_load(&hand->agent[j]));
        if (n == 0) am_crash_put(out, "in hand    nothing: between two passes\n");
    }
}

static _Unwind_Reason_Code take_frame(struct _Unwind_Context *context, void *arg) {
    (void)arg;
    if (crash.n_frames == MAX_FRAMES) return _URC_END_OF_STACK;
    int exact = 0;
    uintptr_t ip = _Unwind_GetIPInfo(context, &exact);
    if (!ip) return _URC_END_OF_STACK;
    crash.frames[crash.n_frames++] = exact ? ip : ip - 1; /* a return address may belong to the next function already */
    return _URC_NO_REASON;
}

static void put_frame(am_crash_out *out, int number, uintptr_t address) {
    am_crash_put(out, "  #");
    am_crash_put_number(out, (uint64_t)number);
    am_crash_put(out, number < 10 ? "  " : " ");
    am_crash_put_hex(out, address);
    am_crash_put(out, " ");
    am_crash_put_symbol(out, address);
    am_crash_put(out, "\n");
}

/* The unwinder would read at the place itself where nothing is. A jump to nowhere leaves its caller on top of the
 * stack; what else on it looks like an address of code was probably a caller too. */
static void put_stack(am_crash_out *out, const ucontext_t *context) {
    const uintptr_t *sp = (const uintptr_t *)sp_of(context);
    uintptr_t word;
    int n = 0;
    am_crash_put(out, "backtrace (by the look of the stack)\n");
    put_frame(out, n++, pc_of(context));
    for (size_t i = 0; i < MAX_STACK_WORDS && n < MAX_FRAMES && am_crash_read(&word, sp + i, sizeof word) == 0; i++)
        if (am_crash_is_code(word)) put_frame(out, n++, word - 1);
}

static void put_backtrace(am_crash_out *out, const ucontext_t *context) {
    int first = -1;
    char byte;
    crash.n_frames = 0;
    if (am_crash_read(&byte, (const void *)pc_of(context), 1)) {
        put_stack(out, context);
        return;
    }
    am_crash_flush(out); /* should the unwinder stumble, the rest is out */
    _Unwind_Backtrace(take_frame, NULL);
    for (int i = 0; i < crash.n_frames && first < 0; i++)
        if (crash.frames[i] == pc_of(context)) first = i; /* those before are this handler's */
    am_crash_put(out, "backtrace\n");
    if (first < 0) put_frame(out, 0, pc_of(context));
    for (int i = first < 0 ? 0 : first; i < crash.n_frames; i++)
        put_frame(out, first < 0 ? i + 1 : i - first, crash.frames[i]);
}

static void put_report(am_crash_out *out, const siginfo_t *info, const ucontext_t *context) {
    size_t s = 0;
    char thread[17] = "";
    while (s + 1 < N_SIGNALS && signals[s].number != info->si_signo) s++;
    prctl(PR_GET_NAME, thread);
    am_crash_put(out, "\nagent_memory " AM_VERSION " crashed: ");
    am_crash_put(out, signals[s].name);
    put_field(out, ", ", signals[s].text);
    am_crash_put(out, "process    ");
    am_crash_put_number(out, (uint64_t)getpid());
    am_crash_put(out, ", thread ");
    am_crash_put_number(out, (uint64_t)syscall(SYS_gettid));
    am_crash_put(out, " (");
    am_crash_put(out, thread);
    am_crash_put(out, "), unix time ");
    am_crash_put_number(out, (uint64_t)time(NULL));
    am_crash_put(out, "\n");
    put_cause(out, info);
    put_in_hand(out);
    am_crash_put(out, "registers\n");
    put_registers(out, context);
    put_backtrace(out, context);
    am_crash_flush(out);
}

/* <dir>/<unix time>-<pid>.txt */
static int open_report(void) {
    am_crash_out name = {.fd = {-1, -1}};
    if (!crash.dir[0]) return -1;
    mkdir(crash.data_dir, 0700);
    mkdir(crash.dir, 0700);
    am_crash_put_number(&name, (uint64_t)time(NULL));
    am_crash_put(&name, "-");
    am_crash_put_number(&name, (uint64_t)getpid());
    am_crash_put(&name, ".txt");
    static char path[sizeof crash.dir + 64];
    size_t n = strlen(crash.dir);
    memcpy(path, crash.dir, n);
    path[n] = '/';
    memcpy(path + n + 1, name.bytes, name.n);
    path[n + 1 + name.n] = 0;
    return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static void handle(int number, siginfo_t *info, void *context) {
    static am_crash_out out;
    if (atomic_exchange(&crash.reporting, 1)) {
        for (;;) pause(); /* the first one ends the process */
    }
    signal(SIGALRM, SIG_DFL);
    alarm(REPORT_SECONDS);
    out.fd[0] = STDERR_FILENO;
    out.fd[1] = open_report();
    put_report(&out, info, context);
    if (out.fd[1] >= 0) {
        out.fd[1] = -1;
        put_field(&out, "written to ", crash.dir);
        am_crash_flush(&out);
    }
    alarm(0);
    signal(number, SIG_DFL);
    if (info->si_code <= 0)
        syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), number); /* arrives when this handler returns */
}

void am_crash_setup(const char *data_dir) {
    if (AM_SANITIZED) return; /* it reports better, and wants these signals for itself */
    if (*data_dir && am_fs_join(crash.dir, sizeof crash.dir, data_dir, "crash", NULL) == AM_OK)
        snprintf(crash.data_dir, sizeof crash.data_dir, "%s", data_dir);
    am_crash_symbols_setup();
    _Unwind_Backtrace(take_frame, NULL); /* its first call may load a library and allocate */
    am_thread_begin(NULL);
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < N_SIGNALS; i++) sigaddset(&action.sa_mask, signals[i].number);
    for (size_t i = 0; i < N_SIGNALS; i++) sigaction(signals[i].number, &action, NULL);
}

/* A file that loses its end while it is mapped, as weights would. */
static void touch_truncated(void) {
    char path[sizeof crash.dir + 32];
    am_map map;
    mkdir(crash.dir, 0700);
    snprintf(path, sizeof path, "%s/truncated", crash.dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 1 << 20) != 0 || am_map_open(path, &map, NULL) || ftruncate(fd, 4096) != 0) return;
    volatile const uint8_t *p = map.p;
    (void)p[1 << 19];
}

static int recurse(int depth) {
    volatile char frame[256];
    frame[0] = (char)depth;
    return depth < 0 ? 0 : recurse(depth + 1) + frame[0];
}

static void crash_now(void) {
    volatile uintptr_t eight = 8;
    volatile int zero = 0; /* the compiler may not know */
    switch (crash.test) {
    case AM_CRASH_NO: break;
    case AM_CRASH_SEGV: *(volatile int *)eight = 1; break;
    case AM_CRASH_ABORT: abort();
    case AM_CRASH_BUS: touch_truncated(); break;
    case AM_CRASH_JUMP: ((void (*)(void))eight)(); break;
    case AM_CRASH_STACK: zero = recurse(zero); break;
#if defined(__x86_64__)
    case AM_CRASH_FPE: zero = (int)eight / zero; break; /* 1 / x would become comparisons */
    case AM_CRASH_ILL: __asm__ volatile("ud2"); break;
#else
    case AM_CRASH_FPE: raise(SIGFPE); break; /* division does not trap here */
    case AM_CRASH_ILL: __asm__ volatile(".inst 0"); break;
#endif
    }
}

void am_crash_test(am_crash_kind kind) {
    crash.test = kind;
    if (kind != AM_CRASH_NO) atomic_store(&am_inhand_hook, crash_now);
}
