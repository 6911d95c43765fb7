/* Owns the server's signals. They are blocked in every thread and read by one thread with sigwait, so no handler ever runs and nothing in the
 * program has to be async-signal-safe (the crash report's handlers are of other signals).
 *
 * SIGTERM and SIGINT stop; a second one hurries. SIGHUP means two things: to a program on a terminal, that the terminal is gone, and the server
 * stops; to a daemon, that it should read its settings again. Which one it is is settled at the start: with a controlling terminal SIGHUP
 * stops, without one (systemd, a container, setsid) or under nohup it reloads. */
#include "main/control.h"

#include "base/inhand.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

volatile int am_control_hurry;

static struct {
    sigset_t signals;
    bool hup_reloads;
    atomic_bool loading, stop, reload;
    sem_t wake; /* posted for every change of stop and reload */
} control;

static void take_reload(void) {
    am_log(AM_LOG_INFO, "signal", AM_LS("signal", strsignal(SIGHUP)), AM_LS("means", "reload"));
    atomic_store(&control.reload, true);
    sem_post(&control.wake);
}

static void *watch(void *arg) {
    (void)arg;
    am_thread_begin("am-signals");
    for (int n = 0;;) {
        int number = 0;
        while (sigwait(&control.signals, &number)) continue;
        if (number == SIGHUP && control.hup_reloads) {
            take_reload();
            continue;
        }
        am_log(AM_LOG_INFO, n ? "signal_again" : "signal", AM_LS("signal", strsignal(number)));
        if (n++) {
            am_control_hurry = 1;
        } else if (atomic_exchange(&control.loading, false)) {
            am_log(AM_LOG_INFO, "server_shutdown_complete", AM_LS("while", "loading"));
            _exit(0);
        } else {
            atomic_store(&control.stop, true);
            sem_post(&control.wake);
        }
    }
    return NULL;
}

static bool has_terminal(void) {
    int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

am_status am_control_start(am_error *err) {
    pthread_t thread;
    struct sigaction before;
    sigaction(SIGHUP, NULL, &before);
    control.hup_reloads = before.sa_handler == SIG_IGN || !has_terminal();
    signal(SIGHUP, SIG_DFL); /* nohup's SIG_IGN would keep it from sigwait on other systems than Linux */
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&control.signals);
    sigaddset(&control.signals, SIGINT);
    sigaddset(&control.signals, SIGTERM);
    sigaddset(&control.signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &control.signals, NULL);
    atomic_store(&control.loading, true);
    sem_init(&control.wake, 0, 0);
    int failed = pthread_create(&thread, NULL, watch, NULL);
    if (failed) return am_fail(err, AM_ENOMEM, "cannot start a thread: %s", strerror(failed));
    pthread_detach(thread);
    return AM_OK;
}

void am_control_loaded(void) { atomic_store(&control.loading, false); }

am_control_event am_control_wait(uint32_t ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) until.tv_sec++, until.tv_nsec -= 1000000000L;
    for (;;) {
        if (atomic_load(&control.stop)) return AM_CONTROL_STOP;
        if (atomic_exchange(&control.reload, false)) return AM_CONTROL_RELOAD;
        if (sem_clockwait(&control.wake, CLOCK_MONOTONIC, &until) && errno == ETIMEDOUT) return AM_CONTROL_TIME;
    }
}
