/* From a model's tensors to what the kernels read: matrices in panels, vectors as float32, checked and hashed on the way. */
#ifndef AM_MODEL_WEIGHTS_H
#define AM_MODEL_WEIGHTS_H

#include "base/hash.h"
#include "model/config.h"
#include "model/tensors.h"

typedef struct am_linear {
    am_mat w;
    const float *bias; /* [n_out] or NULL */
} am_linear;

/* Memory of packed weights; belongs to the model. */
typedef struct am_blobs {
    void **p;
    size_t n, cap;
} am_blobs;
void am_blobs_free(am_blobs *blobs);

typedef struct am_loader {
    const am_config *config;
    const am_model_options *options;
    am_tensors *tensors;
    am_blobs *blobs;
    am_sum_state *sum; /* over every tensor used: name, type, shape, bytes */
    char prefix[128];  /* put before every name */
    uint64_t n_params, packed_bytes, done_bytes, total_bytes;
    char format[48];   /* of the first matrix loaded */
} am_loader;

am_status am_loader_prefix(am_loader *loader, am_error *err, const char *format, ...) __attribute__((format(printf, 3, 4)));

bool am_loader_has(const am_loader *loader, const char *path); /* `path`.weight is there */
/* `path`.weight of n_out x n_in, plain or MLX affine quantised, and `path`.bias when `bias`. AM_EFORMAT names file, tensor and what is wrong. */
am_status am_loader_linear(am_loader *loader, const char *path, uint32_t n_out, uint32_t n_in, bool bias, am_linear *out,
                           am_error *err);
/* The whole name of a vector of n values. */
am_status am_loader_vector(am_loader *loader, const char *name, uint32_t n, const float **out, am_error *err);

#endif
