/* Owns the bytes of one file that is being fetched, on disk. */
#include "pull/part.h"

#include "base/fs.h"
#include "base/json.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LEAST_CHUNK = 1 << 20, MOST_CHUNK = 64 << 20, MAX_CHUNKS = 4096, MAX_JOURNAL = 1 << 20, READ_BYTES = 256 << 10 };

static uint64_t chunk_size(const am_part *part, size_t chunk) { return am_part_chunk_to(part, chunk) - (uint64_t)chunk * part->chunk_bytes; }

uint64_t am_part_chunk_from(const am_part *part, size_t chunk) { return (uint64_t)chunk * part->chunk_bytes + part->chunks[chunk].filled; }
uint64_t am_part_chunk_to(const am_part *part, size_t chunk) { return chunk + 1 < part->n_chunks ? (uint64_t)(chunk + 1) * part->chunk_bytes : part->size; }

static am_status cut(am_part *part, uint64_t chunk_bytes, am_error *err) {
    if (part->size == AM_SIZE_UNKNOWN || part->single) chunk_bytes = part->size;
    while (chunk_bytes != AM_SIZE_UNKNOWN && chunk_bytes && part->size / chunk_bytes >= MAX_CHUNKS) chunk_bytes *= 2;
    free(part->chunks);
    part->chunk_bytes = chunk_bytes ? chunk_bytes : 1;
    part->n_chunks = chunk_bytes == 0 || chunk_bytes == AM_SIZE_UNKNOWN ? 1 : (size_t)((part->size + chunk_bytes - 1) / chunk_bytes);
    part->chunks = am_calloc(part->n_chunks, sizeof *part->chunks);
    return part->chunks ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for a list of chunks");
}

static uint64_t default_chunk(uint64_t size, unsigned n_connections) {
    uint64_t bytes = size / (4u * (n_connections ? n_connections : 1));
    bytes = bytes < LEAST_CHUNK ? LEAST_CHUNK : bytes > MOST_CHUNK ? MOST_CHUNK : bytes;
    return bytes;
}

static void journal_name(const am_part *part, char out[256]) { snprintf(out, 256, "%s.part.json", part->file->name); }

/* false: it is of another content, or of none: nothing of the part is used. */
static bool take_journal(am_part *part, const json_t *j, uint64_t file_bytes) {
    am_str identity, etag;
    uint64_t size, chunk;
    const json_t *filled = json_object_get(j, "filled");
    if (am_json_str(j, "identity", &identity, NULL) || !am_str_eq(identity, am_str_of(am_plan_identity(part->file))) || identity.n == 0) return false;
    if (am_json_u64(j, "size", (uint64_t)1 << 52, &size, NULL) || size != part->size || am_json_u64(j, "chunk", (uint64_t)1 << 52, &chunk, NULL)) return false;
    if (chunk < LEAST_CHUNK && chunk < size) return false;
    if (cut(part, chunk, NULL) || part->chunk_bytes != chunk || json_array_size(filled) != part->n_chunks) return false;
    if (am_json_str(j, "etag", &etag, NULL) == AM_OK && etag.n < sizeof part->etag) memcpy(part->etag, etag.p, etag.n);
    for (size_t i = 0; i < part->n_chunks; i++) {
        json_int_t n = json_integer_value(json_array_get(filled, i));
        bool good = n >= 0 && (uint64_t)n <= chunk_size(part, i) && (n == 0 || (uint64_t)i * chunk + (uint64_t)n <= file_bytes);
        part->chunks[i].filled = good ? (uint64_t)n : 0;
    }
    return true;
}

static am_status read_journal(am_part *part, uint64_t file_bytes, bool *good, am_error *err) {
    char name[256], path[4096];
    json_t *j = NULL;
    journal_name(part, name);
    *good = false;
    am_status status = am_fs_join(path, sizeof path, part->dir, name, err);
    if (status || part->size == AM_SIZE_UNKNOWN) return status;
    if (am_json_read(path, MAX_JOURNAL, &j, NULL) == AM_OK) *good = take_journal(part, j, file_bytes);
    json_decref(j);
    return AM_OK;
}

am_status am_part_restart(am_part *part, bool single, am_error *err) {
    part->single = part->single || single;
    part->n_hashed = 0;
    part->n_resumed = 0;
    part->etag[0] = 0;
    crypto_hash_sha256_init(part->sha);
    if (ftruncate(part->fd, 0)) return am_fail(err, AM_EIO, "%s: cannot be emptied", part->path);
    am_status status = cut(part, part->single ? part->size : part->chunk_bytes, err);
    part->dirty = true;
    return status;
}

/* NAME is there, and the journal knows it as this content's. */
static bool is_whole(am_part *part) {
    struct stat st;
    char whole[4096];
    bool good;
    if (am_fs_join(whole, sizeof whole, part->dir, part->file->name, NULL) || am_io->lstat(whole, &st) || !S_ISREG(st.st_mode)) return false;
    if (read_journal(part, (uint64_t)st.st_size, &good, NULL) || !good) return false;
    return (uint64_t)st.st_size == part->size && am_part_done(part) == part->size;
}

am_status am_part_reopen(am_part *part, am_error *err) {
    if (part->fd >= 0) am_io->close(part->fd);
    part->fd = -1;
    int fd = am_io->open(part->path, O_RDWR | O_CREAT, 0600);
    if (fd < 0) return am_fail(err, AM_EIO, "%s: %s", part->path, strerror(-fd));
    part->fd = fd;
    return am_part_restart(part, false, err);
}

am_status am_part_open(const char *dir, const am_plan_file *file, unsigned n_connections, am_part *out, am_error *err) {
    struct stat st;
    char name[256];
    bool good = false;
    *out = (am_part){.file = file, .fd = -1, .size = file->size, .single = file->no_ranges};
    snprintf(out->dir, sizeof out->dir, "%s", dir);
    snprintf(name, sizeof name, "%s.part", file->name);
    am_status status = am_fs_join(out->path, sizeof out->path, dir, name, err);
    if (status) return status;
    out->sha = am_calloc(1, sizeof(crypto_hash_sha256_state));
    status = cut(out, default_chunk(file->size, n_connections), err);
    if (!status && !out->sha) status = am_fail(err, AM_ENOMEM, "no memory for a file");
    if (status) return status;
    crypto_hash_sha256_init(out->sha);
    out->whole = is_whole(out);
    if (out->whole) return AM_OK;
    int fd = am_io->open(out->path, O_RDWR | O_CREAT, 0600);
    if (fd < 0) return am_fail(err, AM_EIO, "%s: %s", out->path, strerror(-fd));
    out->fd = fd;
    bool there = fstat(fd, &st) == 0 && st.st_size > 0;
    if (there) status = read_journal(out, (uint64_t)st.st_size, &good, err);
    if (!status && !good) {
        status = cut(out, default_chunk(file->size, n_connections), err);
        if (!status) status = am_part_restart(out, false, err);
    }
    out->n_resumed = am_part_done(out);
    return status;
}

void am_part_close(am_part *part) {
    if (part->fd >= 0) am_io->close(part->fd);
    part->fd = -1;
    free(part->chunks);
    free(part->sha);
    part->chunks = NULL;
    part->sha = NULL;
}

uint64_t am_part_done(const am_part *part) {
    uint64_t n = 0;
    if (part->whole) return part->size;
    for (size_t i = 0; i < part->n_chunks; i++) n += part->chunks[i].filled;
    return n;
}

bool am_part_next(const am_part *part, size_t *chunk) {
    for (size_t i = 0; i < part->n_chunks && !part->whole; i++) {
        if (part->chunks[i].busy || part->chunks[i].filled >= chunk_size(part, i)) continue;
        *chunk = i;
        return true;
    }
    return false;
}

am_status am_part_write(am_part *part, size_t chunk, const char *p, size_t n, am_error *err) {
    am_chunk *c = &part->chunks[chunk];
    if (n > chunk_size(part, chunk) - c->filled) return am_fail(err, AM_ELIMIT, "%s: the server sends more than it said", part->file->name);
    am_status status = am_fs_write_at(part->fd, part->path, p, n, (off_t)am_part_chunk_from(part, chunk), err);
    if (status) return status;
    c->filled += n;
    part->n_fetched += n;
    part->dirty = true;
    return AM_OK;
}

bool am_part_full(const am_part *part) {
    if (part->whole || part->size == AM_SIZE_UNKNOWN) return part->whole;
    return am_part_done(part) == part->size;
}

static am_status write_journal(const am_part *part, am_error *err) {
    char name[256], tmp[264];
    am_buf text;
    json_t *filled = json_array();
    for (size_t i = 0; i < part->n_chunks; i++) json_array_append_new(filled, json_integer((json_int_t)part->chunks[i].filled));
    json_t *j = json_pack("{s:s, s:I, s:I, s:s, s:o}", "identity", am_plan_identity(part->file), "size", (json_int_t)part->size, "chunk", (json_int_t)part->chunk_bytes, "etag",
                          part->etag, "filled", filled);
    am_buf_init(&text, MAX_JOURNAL);
    am_status status = j ? am_json_dump(j, &text) : am_fail(err, AM_ENOMEM, "no memory for a journal");
    json_decref(j);
    journal_name(part, name);
    snprintf(tmp, sizeof tmp, "%s.tmp", name);
    if (!status) status = am_fs_write_atomic(part->dir, tmp, name, &(am_str){text.p, text.n}, 1, false, err);
    am_buf_free(&text);
    return status;
}

am_status am_part_save(am_part *part, am_error *err) {
    if (part->fd < 0 || !part->dirty || part->size == AM_SIZE_UNKNOWN) return AM_OK;
    int failed = am_io->fsync(part->fd);
    if (failed < 0) return am_fail(err, AM_EIO, "%s: %s", part->path, strerror(-failed));
    am_status status = write_journal(part, err);
    if (!status) part->dirty = false;
    return status;
}

am_status am_part_adopt(am_part *part, const char *path, am_error *err) {
    struct stat st;
    char whole[4096];
    am_status status = am_fs_join(whole, sizeof whole, part->dir, part->file->name, err);
    if (status || part->whole || am_io->lstat(path, &st) || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != part->size) return status;
    am_io->unlink(whole);
    if (link(path, whole)) return AM_OK; /* then it is fetched */
    for (size_t i = 0; i < part->n_chunks; i++) part->chunks[i].filled = chunk_size(part, i);
    part->whole = true;
    am_io->unlink(part->path);
    return write_journal(part, err);
}

static uint64_t front(const am_part *part) {
    uint64_t n = 0;
    for (size_t i = 0; i < part->n_chunks; i++) {
        n += part->chunks[i].filled;
        if (part->chunks[i].filled < chunk_size(part, i)) break;
    }
    return n;
}

am_status am_part_hash(am_part *part, uint64_t most, am_error *err) {
    uint64_t end = front(part);
    if (end > part->n_hashed + most) end = part->n_hashed + most;
    unsigned char *bytes = part->n_hashed < end ? malloc(READ_BYTES) : NULL;
    am_status status = AM_OK;
    if (!bytes && part->n_hashed < end) return am_fail(err, AM_ENOMEM, "no memory to read a file");
    while (part->n_hashed < end && !status) {
        size_t n = end - part->n_hashed < READ_BYTES ? (size_t)(end - part->n_hashed) : READ_BYTES;
        status = am_fs_read_at(part->fd, part->path, bytes, n, (off_t)part->n_hashed, err);
        if (!status) crypto_hash_sha256_update(part->sha, bytes, n);
        part->n_hashed += n;
    }
    free(bytes);
    return status;
}

static void forget(am_part *part) {
    char name[256], path[4096];
    am_io->unlink(part->path);
    journal_name(part, name);
    if (am_fs_join(path, sizeof path, part->dir, name, NULL) == AM_OK) am_io->unlink(path);
}

/* A page of a server's that says "not found" with 200 is no model. */
static am_status look_like_it(const am_part *part, am_error *err) {
    char magic[4] = "";
    const char *end = strrchr(part->file->name, '.');
    if (!end || strcmp(end, ".gguf") != 0) return AM_OK;
    if (part->size < sizeof magic || am_fs_read_at(part->fd, part->path, magic, sizeof magic, 0, err) || memcmp(magic, "GGUF", 4) != 0)
        return am_fail(err, AM_ECORRUPT, "%s: what the server sent is no GGUF file; it was not kept", part->file->name);
    return AM_OK;
}

am_status am_part_finish(am_part *part, char sha256[65], am_error *err) {
    unsigned char sum[crypto_hash_sha256_BYTES];
    char whole[4096];
    am_status status = am_part_hash(part, UINT64_MAX - part->n_hashed, err);
    if (status) return status;
    crypto_hash_sha256_final(part->sha, sum);
    crypto_hash_sha256_init(part->sha);
    sodium_bin2hex(sha256, 65, sum, sizeof sum);
    if (part->file->sha256 && strcmp(sha256, part->file->sha256) != 0)
        status = am_fail(err, AM_ECORRUPT, "%s: the bytes have the sha256 %s, and not %s as they should; they were not kept", part->file->name, sha256, part->file->sha256);
    if (!status) status = look_like_it(part, err);
    if (status) {
        forget(part);
        return status;
    }
    part->dirty = true;
    status = am_part_save(part, err); /* it tells afterwards whose content NAME is */
    if (!status) status = am_fs_join(whole, sizeof whole, part->dir, part->file->name, err);
    int failed = status ? 0 : am_io->rename(part->path, whole);
    if (failed < 0) status = am_fail(err, AM_EIO, "%s: %s", part->path, strerror(-failed));
    if (status) return status;
    part->whole = true;
    am_io->close(part->fd);
    part->fd = -1;
    return AM_OK;
}
