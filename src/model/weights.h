/* From a model's tensors to what the kernels read: matrices in panels, vectors as float32, checked and hashed on the way. */
#ifndef AM_MODEL_WEIGHTS_H
#define AM_MODEL_WEIGHTS_H

#include "base/hash.h"
#include "model/config.h"
#include "model/packed.h"
#include "model/tensors.h"

typedef struct am_linear {
    am_mat w;
    const float *bias; /* [n_out] or NULL */
} am_linear;

/* Memory of packed weights; belongs to the model. Matrices lie one behind the other in rooms of many huge pages: an expert's would each fill less than
 * one, and what is read row by row from small pages comes at half the memory's rate. */
typedef struct am_blob {
    void *p;
    size_t first, end, n_bytes; /* [first, end) is used; the whole blob, or of a room what its matrices take */
} am_blob;
typedef struct am_blobs {
    am_blob *list;
    size_t n, cap, n_rooms, room; /* the one that is being filled, when there is one */
} am_blobs;
void am_blobs_free(am_blobs *blobs);
uint64_t am_blobs_untouched(const am_blobs *blobs); /* of rooms, what has no pages */

enum { AM_MAX_FORMS = 24 };

/* With options->survey nothing is read but headers: every tensor is found, its type and shape checked, parameters and packed bytes are
 * counted, and results have no data. Without tensors (from a config alone) parameters are counted. */
typedef struct am_loader {
    const am_config *config;
    const am_model_options *options;
    am_tensors *tensors;
    am_blobs *blobs;
    am_sum_state *sum; /* over every tensor used: name, type, shape, bytes */
    const uint8_t *beside; /* the tensor that is summed up while it is packed; NULL: none. beside_bytes: of it, as long as that has yet to begin */
    size_t beside_bytes;
    am_tensor beside_of; /* whose bytes they are */
    am_packed *packed;    /* a file that has the matrices already; NULL: none */
    am_packed_list *made; /* matrices for such a file; NULL: for none */
    bool passing;         /* matrices that are loaded now are not kept: neither of the two */
    char form[AM_PACKED_FORM]; /* what the last matrix was stored as */
    char root[64];     /* before every name: where the text model lies in the file */
    char prefix[128];  /* after root, before every name: the layer */
    bool gguf;         /* names and values are a GGUF converter's: norms whole, for one */
    float norm_offset; /* added to the weights of norms (Gemma stores them less 1) */
    uint64_t n_params, packed_bytes, mapped_bytes /* of packed_bytes, in `packed` */, done_bytes, total_bytes;
    struct {
        char name[AM_PACKED_FORM];
        uint64_t n_params;
        uint32_t n_matrices;
    } forms[AM_MAX_FORMS]; /* what matrices were stored as */
    uint32_t n_forms;
} am_loader;

am_status am_loader_prefix(am_loader *loader, am_error *err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Where a matrix of n_out x n_in lies. Zero means: not so. */
typedef struct am_matrix {
    const char *path; /* plain: `path`.weight; quantised: with `path`.scales beside it; the bias is `path`.bias */
    uint32_t n_out, n_in;
    bool bias;
    uint32_t first, of;    /* rows first, first + stride, ... of a tensor of `of` rows */
    uint32_t stride;       /* 0 means 1 */
    uint32_t expert, n_expert; /* of a stack of n_expert such tensors */
    uint32_t head, turned; /* of each `head` rows the last `turned` are pairs of rope as neighbours; they are taken apart into halves */
    bool transposed;       /* plain tensors: stored as [in][of] */
    bool underscored;      /* names are `path`, `path`_blocks, `path`_scales, `path`_bias */
} am_matrix;

/* Plain F32, F16 and BF16, MLX's affine groups of 2, 3, 4, 5, 6 and 8 bits, MXFP4, ggml's blocks. AM_EFORMAT names file, tensor and what is wrong. */
am_status am_loader_matrix(am_loader *loader, const am_matrix *matrix, am_linear *out, am_error *err);
am_status am_loader_linear(am_loader *loader, const char *path, uint32_t n_out, uint32_t n_in, bool bias, am_linear *out,
                           am_error *err);
/* Rows [o, o + n) of a matrix that was loaded, the other way round: n inputs, w->n_in outputs, the same values. */
am_status am_loader_turn(am_loader *loader, const am_mat *w, uint32_t o, uint32_t n, am_linear *out, am_error *err);
/* The whole name of a vector of n values; norms with the offset. */
am_status am_loader_vector(am_loader *loader, const char *name, uint32_t n, const float **out, am_error *err);
am_status am_loader_norm(am_loader *loader, const char *name, uint32_t n, const float **out, am_error *err);
bool am_loader_has(const am_loader *loader, const char *name); /* the whole name; does not count as use */
void *am_loader_alloc(am_loader *loader, size_t n_bytes, am_error *err); /* zeroed, 64-byte aligned, lives with the model */

#endif
