/* Owns `serve`: binds before anything else (a taken port leaves everything as it was), loads, serves, and ends in six stages.
 *
 *     start --> LOADING --(runtime attached)--> SERVING --(first signal)--> STOPPING --(six stages)--> exit
 *                  |                                                            |
 *                  '--(signal)--> exit: nothing was taken yet                   '--(second signal)--> drain cut short
 *
 * Signals are control.c's; what may change while it serves is reload.c's. */
#include "main/commands.h"

#include "base/clock.h"
#include "main/control.h"
#include "main/notify.h"
#include "main/reload.h"
#include "main/start.h"
#include "server/server.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SEND_REST_MS = 5000, LOOK_MS = 1000, MMAP_BYTES = 256 << 10 }; /* what the server may take to send what is left; how often it looks at its keys */

static void say_model(void *arg, const am_model_view *view) {
    (void)arg;
    if (!view->is_default) printf("           %s, %s\n", view->entry->name, view->state == AM_MODEL_READY ? "loaded" : "loaded when it is asked for");
}

static void say_ready(const am_settings *settings, const am_server *server, am_runtime *runtime) {
    uint16_t port = am_server_port(server);
    am_model_view view;
    am_registry_find(am_runtime_registry(runtime), (am_str){0}, &view);
    const am_model_facts *model = &view.facts;
    bool v6 = strchr(settings->host, ':') != NULL;
    const char *open = v6 ? "[" : "", *close = v6 ? "]" : "";
    printf("agent-memory %s\n", AM_VERSION);
    printf("  address  http://%s%s%s:%u\n", open, settings->host, close, port);
    printf("  model    %s (%s, %.1f M parameters, %s), context of %u tokens\n", view.entry->name, model->architecture, (double)model->n_params / 1e6,
           model->format, view.stats.n_ctx);
    am_registry_each(am_runtime_registry(runtime), say_model, NULL);
    printf("  agents   %u kept in %s/caches\n", view.stats.cache.n_heads, am_runtime_data_dir(runtime));
    printf("  memory   %.1f GiB for attention state, K %llu and V %llu bits\n", (double)view.stats.cache.memory_bytes / (1u << 30),
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

/* Alive to the service manager is who moves: the network thread ticks and the engine, when it has something to do, steps. */
static void wait_for_the_end(am_settings *settings, am_server *server) {
    uint32_t watchdog_ms = am_notify_watchdog_ms(), wait_ms = watchdog_ms && watchdog_ms / 3 < LOOK_MS ? watchdog_ms / 3 + 1 : LOOK_MS;
    for (am_control_event event; (event = am_control_wait(wait_ms)) != AM_CONTROL_STOP;) {
        if (event == AM_CONTROL_RELOAD) {
            am_notify("RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(am_now_ns() / 1000));
            am_reload_settings(settings, server);
            am_notify("READY=1");
        } else {
            am_reload_keys(settings, server);
        }
        if (watchdog_ms && am_server_moves(server)) am_notify("WATCHDOG=1");
    }
}

static int serve(am_settings *settings, am_server *server, uint64_t start_ns) {
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
           AM_LS("model", am_registry_default(am_runtime_registry(runtime))), AM_LF("ms", am_ms_since(start_ns)));
    am_control_loaded();
    am_notify("READY=1\nMAINPID=%d\nSTATUS=serving %s on port %u", (int)getpid(), am_registry_default(am_runtime_registry(runtime)), port);

    wait_for_the_end(settings, server);
    am_notify("STOPPING=1\nSTATUS=answers end, agents are written to disk");
    am_server_stop_accepting(server);
    unsigned lost = am_runtime_shutdown(runtime, (uint32_t)settings->drain_ms, &am_control_hurry, stop_server, server);
    return lost ? AM_EXIT_FAILED : 0;
}

/* By itself the allocator keeps up to 64 MiB of each thread's arena once something large was freed, and malloc_trim does not reach it: a server that
 * loads one model after the other would hold what each left behind. With fixed thresholds what is large goes back at once. */
static void give_memory_back(void) {
    mallopt(M_MMAP_THRESHOLD, MMAP_BYTES);
    mallopt(M_TRIM_THRESHOLD, MMAP_BYTES);
}

int am_command_serve(am_settings *settings) {
    uint64_t start_ns = am_now_ns();
    give_memory_back();
    am_error err = {0};
    am_server *server;
    am_server_options options = am_server_options_of(settings);
    am_reload_keys(settings, NULL);
    if (am_control_start(&err) || am_server_start(&options, &server, &err)) {
        fprintf(stderr, "agent-memory: %s\n", err.message);
        return AM_EXIT_FAILED;
    }
    am_settings_log(settings, AM_CMD_SERVE);
    return serve(settings, server, start_ns);
}
