/* A file on its way: NAME.part, and beside it NAME.part.json, which says what of it is there.
 *
 * The file is cut into chunks; each is filled from its beginning, by one connection at a time. The journal is written after the bytes were synced, so it
 * never promises more than the disk has; what came after it is fetched again. The sha256 is computed along the gapless front while the rest arrives. */
#ifndef AM_PULL_PART_H
#define AM_PULL_PART_H

#include "pull/plan.h"

typedef struct am_chunk {
    uint64_t filled;
    bool busy; /* a connection is on it */
} am_chunk;

typedef struct am_part {
    const am_plan_file *file;
    char dir[4096], path[4096]; /* of the .part */
    int fd;                     /* -1: closed */
    uint64_t size;              /* AM_SIZE_UNKNOWN: known at the end */
    uint64_t chunk_bytes;
    am_chunk *chunks;
    size_t n_chunks;
    bool single;     /* one stream from the beginning: the server sends no ranges */
    char etag[AM_ETAG_MAX]; /* as the server that sends it says; empty: not yet */
    uint64_t n_resumed;     /* bytes that an earlier pull had fetched */
    uint64_t n_fetched;     /* bytes that came now */
    bool dirty, whole;      /* whole: checked, and under its name */
    void *sha;              /* crypto_hash_sha256_state */
    uint64_t n_hashed;
} am_part;

/* Goes on where an earlier pull of the same content was. n_connections: how many may work on the file. */
am_status am_part_open(const char *dir, const am_plan_file *file, unsigned n_connections, am_part *out, am_error *err);
/* Takes a file of the same content that is elsewhere on this disk (a link), when it can. */
am_status am_part_adopt(am_part *part, const char *path, am_error *err);
void am_part_close(am_part *part); /* keeps what is on disk */
am_status am_part_restart(am_part *part, bool single, am_error *err); /* forgets what is there */
am_status am_part_reopen(am_part *part, am_error *err);               /* the same after am_part_finish refused it */
uint64_t am_part_done(const am_part *part); /* bytes */
bool am_part_next(const am_part *part, size_t *chunk); /* one that is neither full nor busy; false: none */
uint64_t am_part_chunk_from(const am_part *part, size_t chunk);
uint64_t am_part_chunk_to(const am_part *part, size_t chunk); /* AM_SIZE_UNKNOWN: until its end */
am_status am_part_write(am_part *part, size_t chunk, const char *p, size_t n, am_error *err); /* AM_ELIMIT: more than the chunk has room for */
bool am_part_full(const am_part *part);
am_status am_part_save(am_part *part, am_error *err); /* sync, then the journal */
am_status am_part_hash(am_part *part, uint64_t most, am_error *err); /* goes on with the sum by at most so many bytes */
/* All bytes are there: checks the sum and gives the file its name. AM_ECORRUPT: they were the wrong ones; nothing is kept. */
am_status am_part_finish(am_part *part, char sha256[65], am_error *err);

#endif
