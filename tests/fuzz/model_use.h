/* What the targets that load whole models share: a folder in memory for their files, and a load that must either work or say why not. */
#ifndef TESTS_FUZZ_MODEL_USE_H
#define TESTS_FUZZ_MODEL_USE_H

#include "fuzz.h"

#include "kernels/kernels.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char model_dir[64];

static inline void model_dir_remove(void) {
    static const char *const names[] = {"config.json", "model.safetensors", "model.gguf"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", model_dir, names[i]);
        unlink(path);
    }
    rmdir(model_dir);
}

/* Writes one file of the folder; its path, which the next call overwrites. */
static inline const char *model_file(const char *name, const uint8_t *data, size_t size) {
    static char path[128];
    if (!*model_dir) {
        snprintf(model_dir, sizeof model_dir, "%s/am-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        fuzz_check(mkdtemp(model_dir));
        atexit(model_dir_remove);
    }
    snprintf(path, sizeof path, "%s/%s", model_dir, name);
    FILE *f = fopen(path, "wb");
    fuzz_check(f && fwrite(data, 1, size, f) == size && fclose(f) == 0);
    return path;
}

static inline void model_use(const char *path, bool survey) {
    am_model *m = NULL;
    am_error err = {0};
    am_kv_spec spec;
    const am_kernels *kernels;
    fuzz_check(am_kernels_pick("scalar", &kernels, &err) == AM_OK);
    if (am_model_load(path, &(am_model_options){.kernels = kernels, .survey = survey}, &m, &err)) {
        fuzz_check(!m && err.message[0]);
        return;
    }
    const am_model_info *i = am_model_info_of(m);
    fuzz_check(i->n_layer && i->n_vocab && i->n_params && i->weight_bytes && i->forms[0]);
    if (am_model_kv_spec(m, 4, 4, &spec, &err)) fuzz_check(err.message[0]);
    am_model_free(m);
}

#endif
