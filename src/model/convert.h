/* Writing a model in another form: any that can be loaded as an MLX folder, any GGUF file as a GGUF file of other blocks, and any
 * folder as GGUF whose architecture has a name there. */
#ifndef AM_MODEL_CONVERT_H
#define AM_MODEL_CONVERT_H

#include "model/model.h"

typedef enum am_convert_form { /* in the order of the setting's words */
    AM_TO_MLX_4, AM_TO_MLX_8, AM_TO_GGUF_Q4_0, AM_TO_GGUF_Q8_0, AM_TO_GGUF_F16, AM_TO_GGUF_BF16, AM_TO_GGUF_F32
} am_convert_form;

typedef struct am_convert_options {
    const char *from; /* folder or .gguf */
    const char *to;   /* a folder, made when there is none, or a .gguf */
    am_convert_form form;
    const am_kernels *kernels;
    am_workers *workers; /* may be NULL */
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
    void *progress_arg;
} am_convert_options;

typedef struct am_convert_result {
    uint64_t n_tensors, n_bytes;  /* of the weight file */
    uint64_t n_steps, n_resumed;  /* pieces of work, and those that an interrupted run had done */
    char sum[33];                 /* XXH3-128 of the weight file */
} am_convert_result;

/* Interrupted, it goes on where it was when called again with the same arguments; what was written before is read back and held against its
 * checksums. The weight file appears under its name when it is whole, and NAME.xxh3 beside it. */
am_status am_convert(const am_convert_options *options, am_convert_result *result, am_error *err);

#endif
