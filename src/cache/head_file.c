/* Owns the byte format of a head on disk (docs/FORMAT.md): a safetensors file of up to six tensors in this order.
 *
 *   tokens    I32 [n_tokens]
 *   chain     U8 [n_chain, 32]  names of the sealed blocks; left out when there are none
 *   points    I32 [n_points]    places in the chain to go on from besides its end; only where layers have windows
 *   sum       U8 [16]           XXH3-128 of every byte before it, header included
 *   rows      U8 [bytes]        exact rows of the open block (am_kv_rows_save); left out when there are none
 *   rows_sum  U8 [16]           XXH3-128 of `sum` and `rows`; left out with them
 *
 * So what is needed to know an agent is checked at start without reading its rows, and rows are bound to the head they were written with. */
#include "cache/internal.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const am_st_limits limits = {1 << 16, 8, 1 << 14};
enum { MAX_HEAD_BYTES = 1 << 28, N_OWN_POINTS = 2 /* before any forks */ };

static uint32_t count_forks(const am_head *h) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < h->n_chain; i++) n += h->chain[i]->fork;
    return n;
}

static am_status append_u32(am_buf *b, uint32_t x) {
    return am_buf_append(b, (uint8_t[]){(uint8_t)x, (uint8_t)(x >> 8), (uint8_t)(x >> 16), (uint8_t)(x >> 24)}, 4);
}

static uint32_t u32_at(const uint8_t *p, uint64_t i) {
    p += 4 * i;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static am_status append_points(am_buf *b, const am_head *h) {
    am_status status = append_u32(b, h->before);
    if (!status) status = append_u32(b, h->prompt);
    for (uint32_t i = 0; !status && i < h->n_chain; i++)
        if (h->chain[i]->fork) status = append_u32(b, i + 1);
    return status;
}

static am_status header_build(const am_cache *c, const am_head *h, size_t rows_bytes, am_buf *out, am_error *err) {
    const am_kv_spec *s = &c->options.layout.spec;
    char bits[32], group[32], rows[16], created[24], used[24], turns[16], window[16];
    snprintf(bits, sizeof bits, "%u,%u", s->bits_k, s->bits_v);
    snprintf(group, sizeof group, "%u,%u", s->group_k, s->group_v);
    snprintf(rows, sizeof rows, "%u", h->n_rows);
    snprintf(created, sizeof created, "%llu", (unsigned long long)h->created_ns);
    snprintf(used, sizeof used, "%llu", (unsigned long long)h->used_ns);
    snprintf(turns, sizeof turns, "%u", h->n_turns);
    snprintf(window, sizeof window, "%u", s->window);
    am_st_pair metadata[14] = {{"format", s->window ? AM_STR("agent-memory/head/2") : AM_STR("agent-memory/head/1")}, {"agent", am_str_of(h->agent)},
                                   {"tenant", am_str_of(h->tenant.name)},      {"model", am_str_of(c->model_name)},
                                   {"model_tag", am_str_of(c->tag_hex)},       {"kv_bits", am_str_of(bits)},
                                   {"kv_group_size", am_str_of(group)},        {"rows", am_str_of(rows)},
                                   {"created_ns", am_str_of(created)},         {"used_ns", am_str_of(used)},
                                   {"turns", am_str_of(turns)}};
    size_t n_metadata = 11;
    if (h->unnamed) metadata[n_metadata++] = (am_st_pair){"unnamed", AM_STR("1")};
    if (s->window) {
        metadata[n_metadata++] = (am_st_pair){"window", am_str_of(window)};
        metadata[n_metadata++] = (am_st_pair){"parts", c->options.layout.part_units[AM_KV_GLOBAL] ? AM_STR("global,window") : AM_STR("window")};
    }
    am_st_entry entries[6];
    size_t n = 0;
    entries[n++] = (am_st_entry){"tokens", AM_ST_I32, 1, {h->n_tokens}};
    if (h->n_chain) entries[n++] = (am_st_entry){"chain", AM_ST_U8, 2, {h->n_chain, 32}};
    if (s->window) entries[n++] = (am_st_entry){"points", AM_ST_I32, 1, {N_OWN_POINTS + count_forks(h)}};
    entries[n++] = (am_st_entry){"sum", AM_ST_U8, 1, {16}};
    if (rows_bytes) entries[n++] = (am_st_entry){"rows", AM_ST_U8, 1, {rows_bytes}};
    if (rows_bytes) entries[n++] = (am_st_entry){"rows_sum", AM_ST_U8, 1, {16}};
    return am_st_header_build(&(am_st_layout){entries, n, metadata, n_metadata, 8}, out, NULL, err);
}

am_status am_head_file_build(const am_cache *c, const am_head *h, am_head_image *out, am_error *err) {
    uint32_t n_rows = h->open ? h->n_rows % AM_BLOCK_TOKENS : 0;
    size_t rows_bytes = n_rows ? am_kv_rows_bytes(&c->options.layout, n_rows) : 0;
    am_buf b;
    am_buf_init(&b, (size_t)MAX_HEAD_BYTES + rows_bytes);
    am_status status = header_build(c, h, rows_bytes, &b, err);
    for (uint32_t i = 0; !status && i < h->n_tokens; i++) status = append_u32(&b, (uint32_t)h->tokens[i]);
    for (uint32_t i = 0; !status && i < h->n_chain; i++) status = am_buf_append(&b, h->chain[i]->hash.b, sizeof h->chain[i]->hash.b);
    if (!status && c->options.layout.spec.window) status = append_points(&b, h);
    if (!status) {
        out->sum_at = b.n;
        out->sum = am_sum_of(b.p, b.n);
        status = am_buf_append(&b, out->sum.b, sizeof out->sum.b);
    }
    if (!status && rows_bytes && !(status = am_buf_reserve(&b, rows_bytes + 16))) {
        am_kv_rows_save(&c->options.layout, h->open, n_rows, b.p + b.n);
        b.n += rows_bytes;
        am_sum sum = am_sum_of(b.p + out->sum_at, 16 + rows_bytes);
        status = am_buf_append(&b, sum.b, sizeof sum.b);
    }
    if (status) {
        am_buf_free(&b);
        return am_fail(err, status, "agent '%s': its head cannot be built: %s", h->agent, am_status_text(status));
    }
    out->bytes = b.p;
    out->n = b.n;
    return AM_OK;
}

am_status am_head_file_write(am_cache *c, am_job *job, am_error *err) {
    const am_head *h = job->head;
    char tmp[512];
    size_t stem = strlen(h->file) - strlen(".safetensors");
    snprintf(tmp, sizeof tmp, "%.*s.tmp.safetensors", (int)stem, h->file);
    am_str part = {h->in_flight.bytes, h->in_flight.n};
    am_status status = am_fs_write_atomic(c->dir, tmp, h->file, &part, 1, c->options.durability == AM_DURABLE_ALWAYS, err);
    if (!status && c->options.durability == AM_DURABLE_EVERYSEC) am_io_queue_sync_later(c->io, h->file);
    return status;
}

static am_status metadata_u64(const am_st *st, const char *key, uint64_t max, uint64_t *out, am_error *err) {
    am_str text;
    uint64_t value = 0;
    bool good = am_st_metadata(st, key, &text) && text.n > 0 && text.n < 20;
    for (size_t i = 0; good && i < text.n; i++) {
        good = text.p[i] >= '0' && text.p[i] <= '9';
        value = value * 10 + (uint64_t)(text.p[i] - '0');
    }
    if (!good || value > max) return am_fail(err, AM_EFORMAT, "metadata '%s' is not a number up to %llu", key, (unsigned long long)max);
    *out = value;
    return AM_OK;
}

static am_status parse_metadata(const am_st *st, am_head_view *p, am_error *err) {
    am_str format = {0}, tenant = {0}, parts = {0}, unnamed;
    if (!am_st_metadata(st, "format", &format) ||
        (!am_str_eq(format, AM_STR("agent-memory/head/1")) && !am_str_eq(format, AM_STR("agent-memory/head/2"))))
        return am_fail(err, AM_EFORMAT, "metadata 'format' is not agent-memory/head/1 or 2");
    if (!am_st_metadata(st, "agent", &p->agent) || am_agent_name_check(p->agent, err)) return am_fail(err, AM_EFORMAT, "metadata 'agent' is no name");
    if (!am_st_metadata(st, "model_tag", &p->tag) || p->tag.n != 64) return am_fail(err, AM_EFORMAT, "metadata 'model_tag' has not 64 digits");
    if (!am_st_metadata(st, "tenant", &tenant) || tenant.n >= sizeof p->tenant) return am_fail(err, AM_EFORMAT, "metadata 'tenant' is missing");
    memcpy(p->tenant, tenant.p, tenant.n);
    p->unnamed = am_st_metadata(st, "unnamed", &unnamed);
    am_status status = metadata_u64(st, "rows", UINT32_MAX, &p->n_rows, err);
    if (!status) status = metadata_u64(st, "created_ns", INT64_MAX, &p->created_ns, err);
    if (!status) status = metadata_u64(st, "used_ns", INT64_MAX, &p->used_ns, err);
    if (!status) status = metadata_u64(st, "turns", UINT32_MAX, &p->n_turns, err);
    bool windows = am_str_eq(format, AM_STR("agent-memory/head/2"));
    if (!status && windows) status = metadata_u64(st, "window", UINT32_MAX, &p->window, err);
    if (!status && windows && !am_st_metadata(st, "parts", &parts)) status = am_fail(err, AM_EFORMAT, "metadata 'parts' is missing");
    p->has_global = !am_str_eq(parts, AM_STR("window"));
    return status;
}

static am_status parse_points(const am_st *st, const uint8_t *bytes, am_head_view *p, am_error *err) {
    const am_st_tensor *points = am_st_find(st, AM_STR("points"));
    if (!points) return AM_OK;
    p->n_points = points->shape[0];
    p->points = bytes + points->at;
    if (points->dtype != AM_ST_I32 || points->n_dim != 1 || points->at > p->sum_at) return am_fail(err, AM_EFORMAT, "tensor 'points' is not I32 before the sum");
    for (uint64_t i = 0; i < p->n_points; i++)
        if (u32_at(p->points, i) > p->n_chain || (i >= N_OWN_POINTS && u32_at(p->points, i) == 0))
            return am_fail(err, AM_EFORMAT, "point %u is not in a chain of %llu blocks", u32_at(p->points, i), (unsigned long long)p->n_chain);
    return AM_OK;
}

static am_status parse(const am_cache *c, const am_st *st, const uint8_t *bytes, am_head_view *p, am_error *err) {
    am_status status = parse_metadata(st, p, err);
    if (status) return status;
    const am_st_tensor *tokens = am_st_find(st, AM_STR("tokens")), *chain = am_st_find(st, AM_STR("chain"));
    const am_st_tensor *sum = am_st_find(st, AM_STR("sum")), *rows = am_st_find(st, AM_STR("rows"));
    if (!tokens || tokens->dtype != AM_ST_I32 || tokens->n_dim != 1 || !sum || sum->n_bytes != 16)
        return am_fail(err, AM_EFORMAT, "tensors 'tokens' (I32) and 'sum' (16 bytes) are missing");
    if (chain && (chain->dtype != AM_ST_U8 || chain->n_dim != 2 || chain->shape[1] != 32))
        return am_fail(err, AM_EFORMAT, "tensor 'chain' is not U8 [n, 32]");
    p->n_tokens = tokens->shape[0];
    p->n_chain = chain ? chain->shape[0] : 0;
    p->tokens = bytes + tokens->at;
    p->chain = chain ? bytes + chain->at : NULL;
    p->sum_at = (size_t)sum->at;
    p->rows_bytes = rows ? rows->n_bytes : 0;
    uint64_t open = p->n_rows % AM_BLOCK_TOKENS;
    if (p->n_rows > p->n_tokens || p->n_chain != p->n_rows / AM_BLOCK_TOKENS)
        return am_fail(err, AM_EFORMAT, "%llu tokens, %llu rows and %llu blocks do not fit together", (unsigned long long)p->n_tokens,
                       (unsigned long long)p->n_rows, (unsigned long long)p->n_chain);
    if (rows && rows->n_bytes != am_kv_rows_bytes(&c->options.layout, (uint32_t)open) && memcmp(p->tag.p, c->tag_hex, 64) == 0)
        return am_fail(err, AM_EFORMAT, "tensor 'rows' has %llu bytes for %llu rows", (unsigned long long)rows->n_bytes, (unsigned long long)open);
    return parse_points(st, bytes, p, err);
}

static am_status make_head(am_cache *c, const char *name, const am_head_view *p, am_error *err) {
    am_tenant tenant = {0};
    snprintf(tenant.name, sizeof tenant.name, "%s", p->tenant);
    char tag[65] = {0};
    memcpy(tag, p->tag.p, 64);
    char *own = am_head_file_name(tenant.name, p->agent, tag);
    if (!own) return am_fail(err, AM_ENOMEM, "no memory for a file's name");
    bool matches = strcmp(own, name) == 0;
    free(own);
    if (!matches) return am_fail(err, AM_EFORMAT, "it names agent '%.*s', which does not live under this file name", (int)p->agent.n, p->agent.p);
    if (strcmp(tag, c->tag_hex) != 0) {
        c->foreign_bytes += p->file_bytes;
        return am_index_add_foreign(c, p);
    }
    am_head *h = am_index_make_head(c, &tenant, p->agent, err);
    am_block **chain = am_calloc((size_t)p->n_chain, sizeof *chain);
    int32_t *tokens = am_calloc((size_t)p->n_tokens, sizeof *tokens);
    if (!h || !chain || !tokens) {
        free(chain);
        free(tokens);
        return am_fail(err, AM_ENOMEM, "no memory for agent '%.*s'", (int)p->agent.n, p->agent.p);
    }
    for (uint64_t i = 0; i < p->n_tokens; i++) tokens[i] = (int32_t)u32_at(p->tokens, i);
    uint32_t n_chain = 0;
    for (; n_chain < p->n_chain; n_chain++) {
        am_hash hash;
        memcpy(hash.b, p->chain + 32 * (size_t)n_chain, 32);
        if (!(chain[n_chain] = am_index_name_block(c, &hash))) break;
    }
    h->tokens = tokens;
    h->n_tokens = (uint32_t)p->n_tokens;
    h->n_rows = n_chain < p->n_chain ? n_chain * AM_BLOCK_TOKENS : (uint32_t)p->n_rows;
    h->created_ns = p->created_ns;
    h->used_ns = p->used_ns;
    h->n_turns = (uint32_t)p->n_turns;
    h->unnamed = p->unnamed;
    h->on_disk = true;
    h->rows_on_disk = p->rows_bytes > 0;
    h->file_bytes = p->file_bytes;
    h->sum_at = p->sum_at;
    memcpy(h->sum.b, p->bytes.p + p->sum_at, 16);
    am_keep_set_chain(c, h, chain, n_chain);
    if (p->n_points > AM_POINT_BEFORE) h->before = u32_at(p->points, AM_POINT_BEFORE);
    if (p->n_points > AM_POINT_PROMPT) h->prompt = u32_at(p->points, AM_POINT_PROMPT);
    for (uint64_t i = N_OWN_POINTS; i < p->n_points; i++)
        if (u32_at(p->points, i) <= n_chain) chain[u32_at(p->points, i) - 1]->fork = true;
    return AM_OK;
}

void am_head_view_free(am_head_view *view) {
    am_st_free(view->file);
    am_buf_free(&view->bytes);
    *view = (am_head_view){0};
}

static am_status view_from(const am_cache *c, int fd, const char *path, am_head_view *v, am_error *err) {
    struct stat st;
    uint8_t first[8];
    uint64_t header_bytes;
    am_buf *b = &v->bytes;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return am_fail(err, AM_EFORMAT, "not a regular file");
    if (st.st_size < 8) return am_fail(err, AM_EFORMAT, "only %lld bytes", (long long)st.st_size);
    v->file_bytes = (uint64_t)st.st_size;
    am_status status = am_fs_read_at(fd, path, first, 8, 0, err);
    if (!status) status = am_st_header_bytes(first, v->file_bytes, &limits, &header_bytes, err);
    if (!status && !(status = am_buf_reserve(b, (size_t)header_bytes))) status = am_fs_read_at(fd, path, b->p, (size_t)header_bytes, 0, err);
    if (!status) status = am_st_parse((uint8_t *)b->p, (size_t)header_bytes, v->file_bytes, &limits, &v->file, err);
    const am_st_tensor *sum = status ? NULL : am_st_find(v->file, AM_STR("sum"));
    if (!status && !sum) status = am_fail(err, AM_EFORMAT, "tensor 'sum' is missing");
    if (!status && (status = am_buf_reserve(b, (size_t)sum->at + 16))) am_fail(err, status, "a head of %llu bytes", (unsigned long long)sum->at);
    if (!status) status = am_fs_read_at(fd, path, b->p, (size_t)sum->at + 16, 0, err);
    if (!status) {
        am_sum found = am_sum_of(b->p, (size_t)sum->at);
        if (memcmp(found.b, b->p + sum->at, 16) != 0) status = am_fail(err, AM_ECORRUPT, "checksum does not match");
    }
    return status ? status : parse(c, v->file, (uint8_t *)b->p, v, err);
}

am_status am_head_file_view(const am_cache *c, const char *name, am_head_view *out, am_error *err) {
    char path[4096];
    *out = (am_head_view){0};
    am_buf_init(&out->bytes, MAX_HEAD_BYTES);
    am_status status = am_fs_join(path, sizeof path, c->dir, name, err);
    if (status) return status;
    int fd = am_io->open(path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0) {
        status = fd == -ELOOP ? AM_EFORMAT : fd == -ENOENT ? AM_ENOTFOUND : AM_EIO;
        return am_fail(err, status, "%s", fd == -ELOOP ? "is a symbolic link" : strerror(-fd));
    }
    status = view_from(c, fd, path, out, err);
    am_io->close(fd);
    if (status) am_head_view_free(out);
    return status;
}

am_status am_head_file_load(am_cache *c, const char *name, am_error *err) {
    am_head_view view;
    am_status status = am_head_file_view(c, name, &view, err);
    if (status) return status;
    status = make_head(c, name, &view, err);
    am_head_view_free(&view);
    return status;
}

am_status am_head_rows_read(int fd, const char *path, const am_head_rows *rows, am_error *err) {
    uint8_t sum[16];
    off_t at = (off_t)rows->at;
    am_status status = am_fs_read_at(fd, path, sum, sizeof sum, at, err);
    /* another file under its name, perhaps a shorter one, is no damage */
    if (status == AM_EFORMAT || (!status && memcmp(sum, rows->sum, sizeof sum) != 0)) return am_fail(err, AM_ENOTFOUND, "%s: is not the file it was", path);
    uint8_t *piece = status ? NULL : malloc(rows->piece_bytes);
    am_sum_state *state = piece ? am_sum_begin() : NULL;
    if (!status && !state) status = am_fail(err, AM_ENOMEM, "no memory for %zu bytes of rows", rows->piece_bytes);
    if (!status) am_sum_add(state, sum, sizeof sum);
    at += sizeof sum;
    for (uint32_t i = 0; !status && i < rows->n_bytes / rows->piece_bytes; i++, at += (off_t)rows->piece_bytes) {
        if ((status = am_fs_read_at(fd, path, piece, rows->piece_bytes, at, err))) break;
        am_sum_add(state, piece, rows->piece_bytes);
        rows->take(rows->arg, i, piece);
    }
    if (!status) status = am_fs_read_at(fd, path, sum, sizeof sum, at, err);
    if (state) {
        am_sum found = am_sum_end(state);
        if (!status && memcmp(sum, found.b, sizeof sum) != 0) status = am_fail(err, AM_ECORRUPT, "%s: checksum of its rows does not match", path);
    }
    free(piece);
    return status;
}

/* Into the turn's open block, whose rows do not count before all is well. */
static void take_rows(void *arg, uint32_t piece, const uint8_t *bytes) {
    am_turn *t = arg;
    am_kv_rows_load(&t->cache->options.layout, t->open, t->rows_in_file, piece, bytes);
}

am_status am_head_file_read_rows(am_cache *c, am_job *job, am_error *err) {
    am_turn *t = job->turn;
    const am_kv_layout *l = &c->options.layout;
    char path[4096];
    am_status status = am_fs_join(path, sizeof path, c->dir, t->rows_file, err);
    if (status) return status;
    int fd = am_io->open(path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0) return am_fail(err, fd == -ENOENT ? AM_ENOTFOUND : AM_EIO, "%s: %s", path, strerror(-fd));
    size_t n_bytes = am_kv_rows_bytes(l, t->rows_in_file);
    am_head_rows rows = {t->rows_sum.b, t->rows_sum_at, n_bytes, n_bytes / am_kv_rows_pieces(l), take_rows, t};
    am_read_ahead(c, fd, (off_t)t->rows_sum_at, n_bytes + 32);
    status = am_head_rows_read(fd, path, &rows, err);
    am_io->close(fd);
    if (status == AM_EFORMAT || status == AM_ECORRUPT) am_refuse_file(c, t->rows_file, status, err->message);
    return status;
}

void am_refuse_file(am_cache *c, const char *name, am_status status, const char *reason) {
    char dir[4096], from[4096], to[4096], as[400];
    am_error err = {0};
    am_status moved = am_fs_join(dir, sizeof dir, c->dir, "refused", &err);
    if (!moved) moved = am_fs_mkdirs(dir, &err);
    if (!moved) moved = am_fs_join(from, sizeof from, c->dir, name, &err);
    if (!moved) {
        snprintf(as, sizeof as, "%llx-%.300s", (unsigned long long)am_wall_ns(), name); /* a time makes names that cannot clash */
        moved = am_fs_join(to, sizeof to, dir, as, &err);
    }
    int r = moved ? -EIO : am_io->rename(from, to);
    am_log(AM_LOG_WARN, "file_refused", AM_LS("file", name), AM_LS("status", am_status_text(status)), AM_LS("reason", reason),
           AM_LS("moved_to", r < 0 ? "" : as));
    c->n_refused++;
}
