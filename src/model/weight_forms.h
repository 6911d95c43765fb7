/* What loaders of stored forms share: weights.c, where plain numbers, MLX's and ggml's forms are read, and the files of the forms that come with a
 * quantisation method of their own. */
#ifndef AM_MODEL_WEIGHT_FORMS_H
#define AM_MODEL_WEIGHT_FORMS_H

#include "model/weights.h"

/* Tensors by the path of their matrix and a suffix; the shape wanted is ended by 0. */
bool am_loader_has_part(const am_loader *loader, const char *path, const char *suffix); /* does not count as use */
am_status am_loader_find(am_loader *loader, const char *path, const char *suffix, am_tensor *out, am_error *err);
am_status am_loader_shape(const am_tensor *tensor, const uint64_t *wanted, am_error *err);
/* n_bytes at p go into the fingerprint, and the file's pages may go. */
void am_loader_finish(am_loader *loader, const am_tensor *tensor, const uint8_t *p, size_t n_bytes);
/* Counts the matrix under the name of its stored form. */
void am_loader_note(am_loader *loader, const am_matrix *matrix, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Packs rows of numbers (scales NULL) or of codes with scales of mat->scale_dtype, and biases unless there is a zero point; the shape and types in *mat are set. */
am_status am_loader_codes(am_loader *loader, am_mat *mat, const void *weight, const void *scales, const void *biases, am_error *err);
/* Memory that is filled before it is read: as am_loader_alloc's, but not zeroed. */
void *am_loader_room(am_loader *loader, size_t n_bytes, am_error *err);
void am_loader_give_back(am_loader *loader, size_t n_bytes); /* what was asked for last */
/* The row of the stored tensor that is the matrix's row o. */
size_t am_matrix_row(size_t o, const am_matrix *matrix);
/* task(arg, t, worker) for all t < n_tasks, by the workers there are. */
void am_loader_run(am_loader *loader, size_t n_tasks, am_workers_fn *task, void *arg);
uint32_t am_loader_unit(const am_mat *mat); /* panels a task when a matrix is packed */
/* Whether f16 holds all n values exactly; dst gets them. */
bool am_narrow(uint16_t *dst, const float *src, size_t n);

/* rows: [n_out] rows of the tensor's blocks */
am_status am_ggml_load(am_loader *loader, const am_matrix *matrix, const am_tensor *tensor, const void *rows, am_mat *out, am_error *err);
am_status am_int_packed_load(am_loader *loader, const am_matrix *matrix, am_mat *out, am_error *err); /* GPTQ and AWQ */
bool am_fp8_is(const am_loader *loader, const am_matrix *matrix);
am_status am_fp8_load(am_loader *loader, const am_matrix *matrix, am_mat *out, am_error *err);

#endif
