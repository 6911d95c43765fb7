/* Owns the byte format of a sealed block's part on disk (docs/FORMAT.md): a safetensors file of three tensors, `tokens` I32 [256], `kv` U8
 * [layers of the part, n_kv_head, bytes of a head], `sum` U8 [16] = XXH3-128 of every byte before it.
 *
 * Everything in the header follows from the block's name, its parent and the model tag, so a reader does not parse it: it builds the header it must
 * be and compares bytes. What differs is refused. Both functions run on I/O threads. */
#include "cache/internal.h"

#include "base/fs.h"
#include "model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_HEADER = 8192, TOKENS_BYTES = AM_BLOCK_TOKENS * 4, MAX_BLOCK_BYTES = 1 << 30, READ_PIECE = 256 << 10 };

/* Numbers of the part's layers, ascending. */
static am_status layers_text(const am_kv_layout *l, am_kv_part part, am_buf *out) {
    am_status status = AM_OK;
    for (uint32_t i = 0; !status && i < l->spec.n_layer; i++)
        if (am_kv_part_of(l, i) == part) status = am_buf_printf(out, "%s%u", out->n ? "," : "", i);
    return status;
}

static am_status header_build(const am_cache *c, const am_part *p, am_buf *out, am_error *err) {
    const am_kv_layout *l = &c->options.layout;
    const am_kv_spec *s = &l->spec;
    char hash[65], parent[65], bits[32], group[32], window[16];
    am_buf layers;
    am_buf_init(&layers, MAX_HEADER);
    am_status status = s->window ? layers_text(l, p->kind, &layers) : AM_OK;
    am_hash_hex(&p->block->hash, hash);
    am_hash_hex(&p->block->parent, parent);
    snprintf(bits, sizeof bits, "%u,%u", s->bits_k, s->bits_v);
    snprintf(group, sizeof group, "%u,%u", s->group_k, s->group_v);
    snprintf(window, sizeof window, "%u", s->window);
    const am_st_pair metadata[] = {{"format", s->window ? AM_STR("agent-memory/block/3") : AM_STR("agent-memory/block/2")},
                                   {"model_tag", am_str_of(c->tag_hex)},
                                   {"hash", am_str_of(hash)},
                                   {"parent", am_str_of(parent)},
                                   {"kv_bits", am_str_of(bits)},
                                   {"kv_group_size", am_str_of(group)},
                                   {"part", p->kind == AM_KV_WINDOW ? AM_STR("window") : AM_STR("global")},
                                   {"layers", am_buf_str(&layers)},
                                   {"window", am_str_of(window)}};
    const am_st_entry entries[] = {
        {"tokens", AM_ST_I32, 1, {AM_BLOCK_TOKENS}},
        {"kv", AM_ST_U8, 3, {l->part_layers[p->kind], s->n_kv_head, l->sealed_layer_bytes / s->n_kv_head}},
        {"sum", AM_ST_U8, 1, {16}},
    };
    if (!status) status = am_st_header_build(&(am_st_layout){entries, 3, metadata, s->window ? 9 : 6, 64}, out, NULL, err);
    am_buf_free(&layers);
    return status;
}

static void tokens_bytes(const int32_t *tokens, uint8_t out[TOKENS_BYTES]) {
    for (size_t i = 0; i < AM_BLOCK_TOKENS; i++)
        for (size_t j = 0; j < 4; j++) out[4 * i + j] = (uint8_t)((uint32_t)tokens[i] >> (8 * j));
}

am_status am_block_file_write(am_cache *c, am_job *job, am_error *err) {
    const am_part *p = job->part;
    size_t unit_bytes = c->options.layout.unit_bytes;
    uint32_t n_units = am_part_units(c, p);
    uint8_t tokens[TOKENS_BYTES];
    char name[96], tmp[112];
    am_buf header;
    am_buf_init(&header, MAX_HEADER);
    am_str *pieces = am_calloc(n_units + 3, sizeof *pieces);
    am_sum_state *state = pieces ? am_sum_begin() : NULL;
    am_status status = state ? header_build(c, p, &header, err) : am_fail(err, AM_ENOMEM, "no memory for a checksum");
    tokens_bytes(p->block->tokens, tokens);
    am_block_file_name(p->kind, &p->block->hash, name);
    snprintf(tmp, sizeof tmp, "%.66s.tmp.safetensors", name);
    if (state) {
        pieces[0] = am_buf_str(&header);
        pieces[1] = (am_str){(char *)tokens, sizeof tokens};
        for (uint32_t i = 0; i < n_units; i++) pieces[2 + i] = (am_str){p->units[i], unit_bytes};
        for (uint32_t i = 0; i < n_units + 2; i++) am_sum_add(state, pieces[i].p, pieces[i].n);
        am_sum sum = am_sum_end(state);
        pieces[2 + n_units] = (am_str){(char *)sum.b, sizeof sum.b};
        if (!status) status = am_fs_write_atomic(c->dir, tmp, name, pieces, n_units + 3, c->options.durability == AM_DURABLE_ALWAYS, err);
        job->file_bytes = 0;
        for (uint32_t i = 0; i < n_units + 3; i++) job->file_bytes += pieces[i].n;
    }
    free(pieces);
    am_buf_free(&header);
    if (!status && c->options.durability == AM_DURABLE_EVERYSEC) am_io_queue_sync_later(c->io, name);
    return status;
}

/* The file's bytes up to the KV data are exactly `wanted`. */
static am_status check_head(int fd, const char *path, const char *wanted, size_t n, am_sum_state *sum, am_error *err) {
    char found[MAX_HEADER + TOKENS_BYTES];
    am_status status = am_fs_read_at(fd, path, found, n, 0, err);
    if (status) return status;
    am_sum_add(sum, found, n);
    for (size_t i = 0; i < n; i++)
        if (found[i] != wanted[i]) return am_fail(err, AM_EFORMAT, "%s: byte %zu is not what this block's header and tokens must hold", path, i);
    return AM_OK;
}

/* The units. Each piece is summed while it is still in the processor's cache. */
static am_status read_units(const am_cache *c, const am_part *p, int fd, const char *path, off_t at, am_sum_state *state, am_error *err) {
    size_t unit_bytes = c->options.layout.unit_bytes;
    am_status status = AM_OK;
    for (uint32_t i = 0; !status && i < am_part_units(c, p); i++)
        for (size_t done = 0, n; !status && done < unit_bytes; done += n, at += (off_t)n) {
            char *to = (char *)p->incoming[i] + done;
            n = unit_bytes - done < READ_PIECE ? unit_bytes - done : READ_PIECE;
            if (!(status = am_fs_read_at(fd, path, to, n, at, err))) am_sum_add(state, to, n);
        }
    return status;
}

static am_status read_checked(am_cache *c, const am_part *p, int fd, const char *path, am_error *err) {
    size_t kv_bytes = am_part_units(c, p) * c->options.layout.unit_bytes;
    am_buf wanted;
    am_buf_init(&wanted, MAX_HEADER + TOKENS_BYTES);
    uint8_t tokens[TOKENS_BYTES];
    tokens_bytes(p->block->tokens, tokens);
    am_status status = header_build(c, p, &wanted, err);
    if (!status) status = am_buf_append(&wanted, tokens, sizeof tokens);
    struct stat st;
    if (!status && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))) status = am_fail(err, AM_EFORMAT, "%s: not a regular file", path);
    if (!status && (uint64_t)st.st_size != wanted.n + kv_bytes + 16)
        status = am_fail(err, AM_EFORMAT, "%s: %llu bytes, must be %zu", path, (unsigned long long)st.st_size, wanted.n + kv_bytes + 16);
    if (!status) am_read_ahead(c, fd, 0, wanted.n + kv_bytes + 16);
    am_sum_state *state = am_sum_begin();
    if (!state) status = am_fail(err, AM_ENOMEM, "no memory for a checksum");
    if (!status) status = check_head(fd, path, wanted.p, wanted.n, state, err);
    if (!status) status = read_units(c, p, fd, path, (off_t)wanted.n, state, err);
    am_sum stored = {0}, sum = {0};
    if (!status) status = am_fs_read_at(fd, path, stored.b, sizeof stored.b, (off_t)(wanted.n + kv_bytes), err);
    if (state) sum = am_sum_end(state);
    if (!status && memcmp(stored.b, sum.b, sizeof sum.b) != 0) status = am_fail(err, AM_ECORRUPT, "%s: checksum does not match", path);
    am_buf_free(&wanted);
    return status;
}

am_status am_block_file_read(am_cache *c, am_job *job, am_error *err) {
    char name[96], path[4096];
    am_block_file_name(job->part->kind, &job->part->block->hash, name);
    am_status status = am_fs_join(path, sizeof path, c->dir, name, err);
    if (status) return status;
    int fd = am_io->open(path, O_RDONLY | O_NONBLOCK, 0);
    if (fd == -ENOENT) return am_fail(err, AM_ENOTFOUND, "%s: is gone", path);
    if (fd == -ELOOP) {
        status = am_fail(err, AM_EFORMAT, "%s: is a symbolic link", path);
    } else if (fd < 0) {
        status = am_fail(err, AM_EIO, "%s: %s", path, strerror(-fd));
    } else {
        status = read_checked(c, job->part, fd, path, err);
        am_io->close(fd);
    }
    if (status == AM_EFORMAT || status == AM_ECORRUPT) am_refuse_file(c, name, status, err->message);
    return status;
}

static bool metadata_hash(const am_st *st, const char *key, am_hash *out) {
    am_str text;
    return am_st_metadata(st, key, &text) && am_hash_parse(text.p, text.n, out);
}

/* The first form has the same tensors as the second. */
static am_status view_format(const am_st *st, am_block_view *v, am_error *err) {
    am_str format, part = AM_STR("global");
    if (!am_st_metadata(st, "format", &format)) format = (am_str){0};
    bool windows = am_str_eq(format, AM_STR("agent-memory/block/3"));
    if (!windows && !am_str_eq(format, AM_STR("agent-memory/block/2")) && !am_str_eq(format, AM_STR("agent-memory/block/1")))
        return am_fail(err, AM_EFORMAT, "metadata 'format' is not agent-memory/block/2 or 3");
    if (windows && !am_st_metadata(st, "part", &part)) part = (am_str){0};
    v->part = am_str_eq(part, AM_STR("window")) ? AM_KV_WINDOW : AM_KV_GLOBAL;
    if (v->part == AM_KV_GLOBAL && !am_str_eq(part, AM_STR("global"))) return am_fail(err, AM_EFORMAT, "metadata 'part' is not global or window");
    return AM_OK;
}

static am_status view_parts(am_st *st, am_block_view *v, am_error *err) {
    const am_st_tensor *tokens = am_st_find(st, AM_STR("tokens")), *kv = am_st_find(st, AM_STR("kv")), *sum = am_st_find(st, AM_STR("sum"));
    am_status status = view_format(st, v, err);
    if (status) return status;
    if (!metadata_hash(st, "hash", &v->hash) || !metadata_hash(st, "parent", &v->parent) || !metadata_hash(st, "model_tag", &v->tag))
        return am_fail(err, AM_EFORMAT, "metadata 'hash', 'parent' and 'model_tag' have not 64 digits each");
    if (am_st_count(st) != 3 || !tokens || tokens->dtype != AM_ST_I32 || tokens->n_bytes != TOKENS_BYTES || !kv || kv->dtype != AM_ST_U8 || !sum ||
        sum->n_bytes != 16 || sum->at + 16 != v->bytes.n)
        return am_fail(err, AM_EFORMAT, "tensors are not 'tokens' (256 of I32), 'kv' (U8) and 'sum' (16 bytes, the last)");
    am_sum found = am_sum_of(v->bytes.p, (size_t)sum->at);
    if (memcmp(found.b, v->bytes.p + sum->at, 16) != 0) return am_fail(err, AM_ECORRUPT, "checksum does not match");
    v->kv_at = (size_t)kv->at;
    v->kv_bytes = (size_t)kv->n_bytes;
    for (size_t i = 0; i < AM_BLOCK_TOKENS; i++) {
        const uint8_t *t = (const uint8_t *)v->bytes.p + tokens->at + 4 * i;
        v->tokens[i] = (int32_t)((uint32_t)t[0] | (uint32_t)t[1] << 8 | (uint32_t)t[2] << 16 | (uint32_t)t[3] << 24);
    }
    return AM_OK;
}

am_status am_block_file_view(const char *dir, const char *name, am_block_view *v, am_error *err) {
    static const am_st_limits limits = {MAX_HEADER, 3, MAX_HEADER};
    char path[4096];
    am_st *st = NULL;
    struct stat found;
    *v = (am_block_view){0};
    am_buf_init(&v->bytes, MAX_BLOCK_BYTES);
    am_status status = am_fs_join(path, sizeof path, dir, name, err);
    if (status) return status;
    int r = am_io->lstat(path, &found);
    if (r < 0) return am_fail(err, r == -ENOENT ? AM_ENOTFOUND : AM_EIO, "%s", strerror(-r));
    if (!S_ISREG(found.st_mode)) return am_fail(err, AM_EFORMAT, S_ISLNK(found.st_mode) ? "is a symbolic link" : "not a regular file");
    if ((status = am_fs_read_file(path, &v->bytes, MAX_BLOCK_BYTES, err))) return status;
    if (v->bytes.n < 8) status = am_fail(err, AM_EFORMAT, "only %zu bytes", v->bytes.n);
    if (!status) status = am_st_parse((const uint8_t *)v->bytes.p, v->bytes.n, v->bytes.n, &limits, &st, err);
    if (!status) status = view_parts(st, v, err);
    am_st_free(st);
    return status;
}
