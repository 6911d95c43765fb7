/* Owns `convert`: a model in another form, with progress, and a word about what was done. */
#include "main/commands.h"

#include "main/progress.h"
#include "main/served.h"
#include "model/convert.h"

#include <string.h>

int am_command_convert(am_settings *settings) {
    am_error err = {0};
    am_progress progress = {0};
    am_convert_result done;
    am_workers *workers = NULL;
    const char *name;
    am_convert_options options = {.to = settings->args[1], .form = (am_convert_form)settings->to,
                                  .progress = am_progress_update, .progress_arg = &progress};
    size_t n_threads = settings->threads ? settings->threads : am_cpus_threads();
    am_status status = am_served_find(settings, settings->args[0], &options.from, &name, &err);
    if (!status) status = am_workers_create(n_threads, &workers, &err);
    options.workers = workers;
    if (!status) status = am_kernels_pick(settings->isa, &options.kernels, &err);
    if (!status) status = am_convert(&options, &done, &err);
    am_progress_end(&progress);
    am_workers_free(workers);
    if (status) {
        fprintf(stderr, "agent-memory: %s\n", err.message);
        return AM_EXIT_FAILED;
    }
    printf("%s: %llu tensors, %.1f MiB, xxh3 %s", options.to, (unsigned long long)done.n_tensors, (double)done.n_bytes / (1 << 20), done.sum);
    if (done.n_resumed) printf("; %llu of %llu steps were there", (unsigned long long)done.n_resumed, (unsigned long long)done.n_steps);
    puts("");
    return 0;
}
