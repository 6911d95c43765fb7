/* The tensors of a model, wherever they lie: one safetensors file, shards named by model.safetensors.index.json, bytes in memory, or a GGUF
 * file, whose tensors get Hugging Face's names and shapes.
 * Lookup marks a tensor as used, so that what nobody asked for can be refused in the end. */
#ifndef AM_MODEL_TENSORS_H
#define AM_MODEL_TENSORS_H

#include "base/hash.h"
#include "model/gguf.h"
#include "model/safetensors.h"

typedef struct am_tensors am_tensors;

typedef struct am_tensor {
    const am_st_tensor *info;
    const uint8_t *p; /* info->n_bytes, of any alignment */
    const char *file;
    size_t n_file;    /* which of the files */
    const am_ggml_format *ggml; /* blocks of this format instead of numbers of info->dtype; NULL: numbers */
    uint32_t pair_dim;          /* GGUF: see am_gguf_pair_dim; 0: rows as Hugging Face has them */
} am_tensor;

/* Maps what `dir` holds: model.safetensors.index.json's shards, else model.safetensors. Free with am_tensors_free. */
am_status am_tensors_open_dir(const char *dir, am_tensors **out, am_error *err);
/* Bytes that outlive the tensors, page-aligned where pages shall be dropped; `name` stands for the file's in errors. */
am_status am_tensors_open_bytes(const uint8_t *p, size_t n, const char *name, am_tensors **out, am_error *err);
/* The tensors of an open GGUF file, which stays the caller's and must outlive them. */
am_status am_tensors_open_gguf(const am_gguf *gguf, const char *name, am_tensors **out, am_error *err);
void am_tensors_free(am_tensors *tensors);

bool am_tensors_has(const am_tensors *tensors, const char *name); /* does not count as use */
bool am_tensors_find(am_tensors *tensors, const char *name, am_tensor *out);
/* n_bytes from byte `at` of the tensor are not needed any more. */
void am_tensors_drop(const am_tensors *tensors, const am_tensor *tensor, size_t at, size_t n_bytes);
void am_tensors_identify(const am_tensors *tensors, am_sum_state *sum); /* adds which files these are, and since when */
uint64_t am_tensors_bytes(const am_tensors *tensors); /* of all files */
/* AM_EUNSUPPORTED naming the first tensor that was never looked up and that `ignore` does not accept. */
am_status am_tensors_all_used(const am_tensors *tensors, bool (*ignore)(void *arg, am_str name), void *arg, am_error *err);

#endif
