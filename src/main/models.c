/* Owns `models`: loads the model as `serve` would, without the agents' folder, and says what it is. */
#include "main/commands.h"

#include "base/clock.h"
#include "main/progress.h"
#include "model/model.h"

#include <unistd.h>

static am_status describe(const am_model *model, const am_kernels *kernels, double load_ms, am_error *err) {
    const am_model_info *info = am_model_info_of(model);
    am_kv_spec spec;
    am_kv_layout layout;
    printf("%s\n", info->name);
    printf("  architecture  %s, %u layers, width %u, %u heads, %u KV heads of %u\n", info->architecture, info->n_layer, info->n_embd, info->n_head,
           info->n_kv_head, info->head_dim_k);
    printf("  weights       %.1f M parameters, %s, %.1f MiB in memory\n", (double)info->n_params / 1e6, info->format,
           (double)info->weight_bytes / (1 << 20));
    printf("  forms         %s\n", info->forms);
    printf("  context       %u tokens, vocabulary of %u\n", info->n_ctx, info->n_vocab);
    printf("  kernels       %s\n", kernels->name);
    printf("  loaded in     %.0f ms\n", load_ms);
    printf("  fingerprint   ");
    for (size_t i = 0; i < sizeof info->fingerprint; i++) printf("%02x", info->fingerprint[i]);
    printf("\n  state         ");
    static const unsigned bits[] = {16, 8, 4};
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        am_status status = am_model_kv_spec(model, bits[i], bits[i], &spec, err);
        if (!status) status = am_kv_layout_init(&layout, &spec, err);
        if (status) return status;
        printf("%s%.1f KiB a token at %u bits", i ? ", " : "", (double)layout.sealed_bytes / AM_BLOCK_TOKENS / 1024, bits[i]);
    }
    puts("");
    return AM_OK;
}

int am_command_models(am_settings *settings) {
    am_error err = {0};
    am_progress progress = {0};
    am_workers *workers = NULL;
    const am_kernels *kernels = NULL;
    am_model *model = NULL;
    uint64_t start = am_now_ns();
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t n_threads = settings->threads ? settings->threads : cores > 0 ? (size_t)cores : 1;
    am_status status = am_workers_create(n_threads, &workers, &err);
    if (!status) status = am_kernels_pick(settings->isa, &kernels, &err);
    am_model_options options = {.kernels = kernels, .workers = workers, .progress = am_progress_update, .progress_arg = &progress};
    if (!status) status = am_model_load(settings->model, &options, &model, &err);
    am_progress_end(&progress);
    if (!status) status = describe(model, kernels, am_ms_since(start), &err);
    if (status) fprintf(stderr, "agent-memory: %s\n", err.message);
    am_model_free(model);
    am_workers_free(workers);
    return status ? AM_EXIT_FAILED : 0;
}
