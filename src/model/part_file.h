/* A large file written in steps, of which each is known to be whole: see part_file.c. */
#ifndef AM_MODEL_PART_FILE_H
#define AM_MODEL_PART_FILE_H

#include "base/hash.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct am_region {
    uint64_t at;
    size_t n;
} am_region;

typedef struct am_part_file am_part_file;

/* Begins path, or goes on with what an interrupted run of the same plan left. plan names everything that decides the bytes. The first n_head
 * bytes are the head. */
am_status am_part_file_open(const char *path, const void *head, size_t n_head, const am_sum *plan, am_part_file **out, am_error *err);
/* Whether the next step is done already: its bytes (n in all, at the regions in turn) are read into scratch and held against their checksum. */
bool am_part_file_done(am_part_file *file, const am_region *regions, size_t n_regions, void *scratch);
am_status am_part_file_write(am_part_file *file, const am_region *regions, size_t n_regions, const void *bytes, am_error *err);
uint64_t am_part_file_resumed(const am_part_file *file); /* steps that were done */
uint64_t am_part_file_steps(const am_part_file *file);   /* steps so far */
/* All steps are written: path gets its name, path.xxh3 the sum of the whole, which is returned. */
am_status am_part_file_finish(am_part_file *file, uint64_t n_bytes, am_sum *sum, am_error *err);
void am_part_file_close(am_part_file *file); /* NULL is fine; what is unfinished stays for the next run */

#endif
