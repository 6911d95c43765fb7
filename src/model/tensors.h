/* The tensors of a model, wherever they lie: one safetensors file, shards named by model.safetensors.index.json, or bytes in memory.
 * Lookup marks a tensor as used, so that what nobody asked for can be refused in the end. */
#ifndef AM_MODEL_TENSORS_H
#define AM_MODEL_TENSORS_H

#include "model/safetensors.h"

typedef struct am_tensors am_tensors;

typedef struct am_tensor {
    const am_st_tensor *info;
    const uint8_t *p; /* info->n_bytes, of any alignment */
    const char *file;
    size_t n_file;    /* which of the files */
} am_tensor;

/* Maps what `dir` holds: model.safetensors.index.json's shards, else model.safetensors. Free with am_tensors_free. */
am_status am_tensors_open_dir(const char *dir, am_tensors **out, am_error *err);
/* Bytes that outlive the tensors, page-aligned where pages shall be dropped; `name` stands for the file's in errors. */
am_status am_tensors_open_bytes(const uint8_t *p, size_t n, const char *name, am_tensors **out, am_error *err);
void am_tensors_free(am_tensors *tensors);

bool am_tensors_has(const am_tensors *tensors, const char *name); /* does not count as use */
bool am_tensors_find(am_tensors *tensors, const char *name, am_tensor *out);
/* n_bytes from byte `at` of the tensor are not needed any more. */
void am_tensors_drop(const am_tensors *tensors, const am_tensor *tensor, size_t at, size_t n_bytes);
uint64_t am_tensors_bytes(const am_tensors *tensors); /* of all files */
/* AM_EUNSUPPORTED naming the first tensor that was never looked up and that `ignore` does not accept. */
am_status am_tensors_all_used(const am_tensors *tensors, bool (*ignore)(void *arg, am_str name), void *arg, am_error *err);

#endif
