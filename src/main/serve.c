/* Owns `serve`: binds before anything else (a taken port leaves everything as it was), loads, serves, and ends in six stages.
 *
 *     start --> LOADING --(runtime attached)--> SERVING --(first signal)--> STOPPING --(six stages)--> exit
 *                  |                                                            |
 *                  '--(signal)--> exit: nothing was taken yet                   '--(second signal)--> drain cut short
 *
 * Signals are blocked in every thread and read by one thread with sigwait, so no handler ever runs and nothing in the program has to be
 * async-signal-safe. SIGHUP (a terminal that closes) ends the server as SIGTERM does. */
#include "main/commands.h"

#include "base/clock.h"
#include "base/inhand.h"
#include "main/start.h"
#include "server/keyring.h"
#include "server/server.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SEND_REST_MS = 5000 }; /* what the server may take to send what is left */

static struct {
    sigset_t signals;
    atomic_bool loading;
    sem_t stop;         /* posted by the first signal */
    volatile int hurry; /* set by the second */
} control;

static void *watch_signals(void *arg) {
    (void)arg;
    am_thread_begin("am-signals");
    for (int n = 0;; n++) {
        int signal_number = 0;
        while (sigwait(&control.signals, &signal_number)) continue;
        am_log(AM_LOG_INFO, n ? "signal_again" : "signal", AM_LS("signal", strsignal(signal_number)));
        if (n) {
            control.hurry = 1;
        } else if (atomic_exchange(&control.loading, false)) {
            am_log(AM_LOG_INFO, "server_shutdown_complete", AM_LS("while", "loading"));
            _exit(0);
        }
        if (!n) sem_post(&control.stop);
    }
    return NULL;
}

static am_status control_start(am_error *err) {
    pthread_t thread;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&control.signals);
    sigaddset(&control.signals, SIGINT);
    sigaddset(&control.signals, SIGTERM);
    sigaddset(&control.signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &control.signals, NULL);
    atomic_store(&control.loading, true);
    sem_init(&control.stop, 0, 0);
    int failed = pthread_create(&thread, NULL, watch_signals, NULL);
    if (failed) return am_fail(err, AM_ENOMEM, "cannot start a thread: %s", strerror(failed));
    pthread_detach(thread);
    return AM_OK;
}

static void say_ready(const am_settings *settings, const am_server *server, am_runtime *runtime) {
    uint16_t port = am_server_port(server);
    const am_model_info *model = am_model_info_of(am_runtime_model(runtime));
    am_engine_stats stats;
    am_engine_stats_get(am_runtime_engine(runtime), &stats);
    bool v6 = strchr(settings->host, ':') != NULL;
    const char *open = v6 ? "[" : "", *close = v6 ? "]" : "";
    printf("agent-memory %s\n", AM_VERSION);
    printf("  address  http://%s%s%s:%u\n", open, settings->host, close, port);
    printf("  model    %s (%s, %.1f M parameters, %s), context of %u tokens\n", model->name, model->architecture, (double)model->n_params / 1e6,
           model->format, stats.n_ctx);
    printf("  agents   %u kept in %s/caches\n", stats.cache.n_heads, am_runtime_data_dir(runtime));
    printf("  memory   %.1f GiB for attention state, K %llu and V %llu bits\n", (double)stats.cache.memory_bytes / (1u << 30),
           (unsigned long long)settings->bits_k, (unsigned long long)settings->bits_v);
    size_t n_keys = am_server_n_keys(server);
    if (n_keys) printf("  access   %zu API key%s\n", n_keys, n_keys > 1 ? "s" : "");
    else printf("  access   %s\n", settings->allow_no_auth ? "anybody who reaches this address: there are no keys" :
                "this machine only, without keys (agent-memory keys add NAME makes one)");
    printf("  try      curl http://%s%s%s:%u/v1/chat/completions -H 'Content-Type: application/json' %s"
           "-d '{\"messages\": [{\"role\": \"user\", \"content\": \"Who are you?\"}]}'\n",
           open, settings->host, close, port, n_keys ? "-H \"Authorization: Bearer $KEY\" " : "");
    printf("  stop     Ctrl-C, or kill -TERM %d\n", (int)getpid());
    fflush(stdout);
}

static void stop_server(void *server) { am_server_stop(server, SEND_REST_MS); }

static const char *keys_dir(const am_settings *settings) { return settings->data_dir ? settings->data_dir : am_settings_home(); }

static am_server_options server_options(const am_settings *settings) {
    return (am_server_options){
        .host = settings->host,
        .port = (uint16_t)settings->port,
        .max_body_bytes = settings->max_body_bytes,
        .max_messages = (uint32_t)settings->max_messages,
        .max_connections = (uint32_t)settings->max_connections,
        .keepalive_ms = (uint32_t)settings->keep_alive_ms,
        .head_timeout_ms = (uint32_t)settings->head_timeout_ms,
        .idle_timeout_ms = (uint32_t)settings->idle_timeout_ms,
        .max_outbox_bytes = settings->max_outbox_bytes,
        .unknown_model_ok = !settings->strict_model,
        .log_content = settings->log_content,
        .cors_origins = settings->cors_origins.items,
        .n_cors_origins = settings->cors_origins.n,
        .allow_hosts = settings->allow_hosts.items,
        .n_allow_hosts = settings->allow_hosts.n,
        .api_key = settings->api_key,
        .admin_key = settings->admin_key,
        .keys_dir = keys_dir(settings),
        .admin_remote = settings->admin_remote,
        .allow_no_auth = settings->allow_no_auth,
    };
}

/* What tells one keys.json from the one before. */
typedef struct keys_file {
    struct timespec changed;
    ino_t inode;
    off_t size;
} keys_file;

static keys_file keys_file_look(const am_settings *settings) {
    char path[4096];
    struct stat st;
    if (am_keyring_path(keys_dir(settings), path, sizeof path, NULL) || stat(path, &st)) return (keys_file){0};
    return (keys_file){st.st_mtim, st.st_ino, st.st_size};
}

/* A key that was removed must stop working without anybody remembering to tell the server. */
static keys_file follow_keys(const am_settings *settings, am_server *server, keys_file seen) {
    keys_file now = keys_file_look(settings);
    am_error err = {0};
    if (now.changed.tv_sec == seen.changed.tv_sec && now.changed.tv_nsec == seen.changed.tv_nsec && now.inode == seen.inode && now.size == seen.size)
        return now;
    am_server_options options = server_options(settings);
    if (am_server_reload(server, &options, &err)) am_log(AM_LOG_ERROR, "keys_refused", AM_LS("reason", err.message), AM_LS("in_force", "the keys from before"));
    else am_log(AM_LOG_INFO, "keys_read", AM_LU("keys", am_server_n_keys(server)));
    return now;
}

static bool stop_within_a_second(void) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec++;
    while (sem_clockwait(&control.stop, CLOCK_MONOTONIC, &until))
        if (errno == ETIMEDOUT) return false;
    return true;
}

static int serve(const am_settings *settings, am_server *server, uint64_t start_ns) {
    char who[320];
    uint16_t port = am_server_port(server);
    am_runtime *runtime;
    am_error err = {0};
    snprintf(who, sizeof who, "serve %s:%u", settings->host, port);
    if (am_start_runtime(settings, who, &runtime, &err)) {
        am_log(AM_LOG_ERROR, "start_failed", AM_LS("reason", err.message));
        fprintf(stderr, "agent-memory: %s\n", err.message);
        am_server_stop(server, 0);
        return AM_EXIT_FAILED;
    }
    am_server_attach(server, runtime);
    say_ready(settings, server, runtime);
    am_log(AM_LOG_INFO, "server_ready", AM_LS("host", settings->host), AM_LU("port", port),
           AM_LS("model", am_model_info_of(am_runtime_model(runtime))->name), AM_LF("ms", am_ms_since(start_ns)));
    atomic_store(&control.loading, false);

    keys_file seen = keys_file_look(settings);
    while (!stop_within_a_second()) seen = follow_keys(settings, server, seen);
    am_server_stop_accepting(server);
    unsigned lost = am_runtime_shutdown(runtime, (uint32_t)settings->drain_ms, &control.hurry, stop_server, server);
    return lost ? AM_EXIT_FAILED : 0;
}

int am_command_serve(am_settings *settings) {
    uint64_t start_ns = am_now_ns();
    am_error err = {0};
    am_server *server;
    am_server_options options = server_options(settings);
    if (control_start(&err) || am_server_start(&options, &server, &err)) {
        fprintf(stderr, "agent-memory: %s\n", err.message);
        return AM_EXIT_FAILED;
    }
    am_settings_log(settings, AM_CMD_SERVE);
    return serve(settings, server, start_ns);
}
