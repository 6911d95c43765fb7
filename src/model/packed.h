/* A model's matrices as the kernels read them, kept in a file, so that a later start maps them instead of packing: no copy, pages shared by all
 * processes that run the model, and given back by the kernel when memory is short. The file is derived data: it may be deleted at any time, and one
 * that does not fit is refused. packed.c has the layout. */
#ifndef AM_MODEL_PACKED_H
#define AM_MODEL_PACKED_H

#include "base/hash.h"
#include "base/workers.h"
#include "kernels/kernels.h"

enum { AM_PACKED_FORM = 48 };

typedef struct am_packed am_packed;
/* The file of that key in dir: mapped, and every byte checked by the workers (may be NULL). AM_ENOTFOUND, or AM_EFORMAT with the reason. */
am_status am_packed_open(const char *dir, am_sum key, am_workers *workers, am_packed **out, am_error *err);
void am_packed_free(am_packed *packed); /* no matrix of it may be used any more */
const uint8_t *am_packed_fingerprint(const am_packed *packed); /* [16], of the model it was made of */
/* The next matrix, when it is `part` and of mat's shape: mat is filled, with data in the file; *form is what it was stored as. */
bool am_packed_take(am_packed *packed, uint64_t part, am_mat *mat, const char **form);
bool am_packed_taken(const am_packed *packed); /* any was */

/* Matrices in the order they were packed in; their data must stay. */
typedef struct am_packed_list {
    struct am_packed_mat *mats;
    size_t n, cap;
} am_packed_list;
am_status am_packed_add(am_packed_list *list, uint64_t part, const am_mat *mat, const char *form);
void am_packed_list_free(am_packed_list *list);

/* Writes the file in a thread of its own. */
typedef struct am_packed_writer am_packed_writer;
typedef struct am_packed_job {
    const char *dir, *source; /* source: the model's path, to know later whether it is still there */
    am_sum key;
    uint8_t fingerprint[16];
    am_packed_list list; /* the writer's from now on */
} am_packed_job;
am_status am_packed_write_begin(const am_packed_job *job, am_packed_writer **out, am_error *err); /* on failure too the list is freed */
void am_packed_write_end(am_packed_writer *writer); /* gives up where it has not finished; NULL is fine */

#endif
