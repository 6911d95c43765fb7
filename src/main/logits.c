/* Owns `logits`: token ids in, the logits of every position out, as safetensors, so that the model can be compared with other
 * implementations. The way is the engine's: turns of the cache with its pool, blocks and sealing, and the model's forward pass in chunks. */
#include "main/commands.h"

#include "base/fs.h"
#include "cache/cache.h"
#include "engine/sampler.h"
#include "main/progress.h"
#include "model/model.h"
#include "model/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_IDS_BYTES = 1 << 30, MAX_LISTS = 100000 };

typedef struct id_list {
    int32_t *ids;
    uint32_t n;
} id_list;

typedef struct job {
    const am_settings *settings;
    am_workers *workers;
    const am_kernels *kernels;
    am_model *model;
    am_kv_layout layout;
    am_workspace *workspace;
    am_cache *cache;
    char dir[64]; /* the cache's, for the time of this run; empty: none */
    id_list *lists;
    size_t n_lists;
    uint32_t longest;
    uint32_t n_ctx; /* that the model is loaded for; 0: its own */
    float *logits; /* [AM_BLOCK_TOKENS][n_vocab] */
    int32_t *greedy;
    FILE *out;
} job;

static am_status take_list(job *j, size_t at, const json_t *list, am_error *err) {
    size_t n = json_array_size(list);
    if (n == 0 || n > UINT32_MAX / 2) return am_fail(err, AM_EINVAL, "list %zu must be a list of token ids, at least one", at);
    id_list *l = &j->lists[at];
    l->ids = am_calloc(n, sizeof *l->ids);
    l->n = (uint32_t)n;
    if (!l->ids) return am_fail(err, AM_ENOMEM, "no memory for %zu ids", n);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(list, i);
        json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
        if (v < 0 || v > INT32_MAX) return am_fail(err, AM_EINVAL, "list %zu, position %zu: not a token id", at, i);
        l->ids[i] = (int32_t)v;
    }
    if (l->n > j->longest) j->longest = l->n;
    return AM_OK;
}

static am_status read_lists(job *j, am_error *err) {
    json_t *root = NULL;
    am_status status = am_json_read(j->settings->ids, MAX_IDS_BYTES, &root, err);
    if (status) return status;
    j->n_lists = json_array_size(root);
    if (j->n_lists == 0 || j->n_lists > MAX_LISTS)
        status = am_fail(err, AM_EINVAL, "%s must be a JSON list of lists of token ids", j->settings->ids);
    else if (!(j->lists = am_calloc(j->n_lists, sizeof *j->lists)))
        status = am_fail(err, AM_ENOMEM, "no memory for %zu lists", j->n_lists);
    for (size_t i = 0; !status && i < j->n_lists; i++) status = take_list(j, i, json_array_get(root, i), err);
    json_decref(root);
    return status;
}

static am_status load_model(job *j, am_error *err) {
    am_progress progress = {0};
    am_model_options options = {.kernels = j->kernels, .workers = j->workers, .progress = am_progress_update, .progress_arg = &progress,
                                .n_ctx = j->n_ctx};
    am_status status = am_model_load(j->settings->model, &options, &j->model, err);
    am_progress_end(&progress);
    return status;
}

static am_status remove_one(void *arg, const char *name) {
    char path[4096];
    if (am_fs_join(path, sizeof path, arg, name, NULL) == AM_OK) remove(path);
    return AM_OK;
}

static void model_close(job *j) {
    if (j->cache) am_cache_close(j->cache);
    if (j->dir[0]) {
        am_fs_list(j->dir, remove_one, j->dir, NULL);
        rmdir(j->dir);
    }
    am_workspace_free(j->workspace);
    am_model_free(j->model);
    j->cache = NULL;
    j->workspace = NULL;
    j->model = NULL;
    j->dir[0] = 0;
}

static am_status open_cache(job *j, am_error *err) {
    const am_model_info *info = am_model_info_of(j->model);
    const char *tmp = getenv("TMPDIR");
    am_kv_spec spec;
    am_status status = am_model_kv_spec(j->model, (uint32_t)j->settings->bits_k, (uint32_t)j->settings->bits_v, &spec, err);
    if (!status) status = am_kv_layout_init(&j->layout, &spec, err);
    if (!status) status = am_workspace_create(j->model, &j->layout, j->workers, AM_BLOCK_TOKENS, AM_BLOCK_TOKENS, &j->workspace, err);
    if (status) return status;
    if (snprintf(j->dir, sizeof j->dir, "%.40s/agent-memory-XXXXXX", tmp && *tmp ? tmp : "/tmp") < 0 || !mkdtemp(j->dir)) {
        status = am_fail(err, AM_EIO, "%s: %s", j->dir, strerror(errno));
        j->dir[0] = 0;
        return status;
    }
    uint32_t n_ctx = j->longest + (uint32_t)j->settings->greedy;
    am_cache_options o = {.dir = j->dir, .model_name = info->name, .layout = j->layout, .kernels = j->kernels, .workers = j->workers,
                          .memory_bytes = am_cache_least_bytes(&j->layout, n_ctx) + j->layout.open_bytes + j->layout.sealed_bytes,
                          .n_turns = 1, .n_ctx = n_ctx, .durability = AM_DURABLE_NO};
    memcpy(o.model_fingerprint, info->fingerprint, sizeof o.model_fingerprint);
    return am_cache_open(&o, &j->cache, err);
}

/* The next n tokens (in one block) through the model; the logits of the last n_logits of them are in j->logits. */
static am_status push(job *j, am_turn *turn, const int32_t *tokens, uint32_t n, uint32_t n_logits, am_error *err) {
    am_segment segment = {.tokens = tokens, .n_tokens = n, .n_past = am_turn_n_past(turn), .sealed = am_turn_sealed(turn),
                          .open = am_turn_open_block(turn), .logits = j->logits, .n_logits = n_logits};
    am_status status = am_model_forward(j->model, j->workspace, &segment, 1, err);
    if (!status) am_turn_advance(turn, tokens, n);
    am_cache_poll(j->cache);
    return status;
}

static am_status run_turn(job *j, const id_list *l, am_turn *turn, am_error *err) {
    size_t n_vocab = am_model_info_of(j->model)->n_vocab;
    uint32_t chunk = (uint32_t)j->settings->chunk_tokens, n = 0;
    am_status status = AM_OK;
    for (uint32_t at = 0; !status && at < l->n; at += n) {
        n = AM_BLOCK_TOKENS - at % AM_BLOCK_TOKENS;
        if (n > l->n - at) n = l->n - at;
        if (n > chunk) n = chunk;
        status = push(j, turn, l->ids + at, n, n, err);
        if (!status && fwrite(j->logits, n_vocab * sizeof *j->logits, n, j->out) != n) status = am_fail(err, AM_EIO, "%s: %s", j->settings->out, strerror(errno));
    }
    const float *last = j->logits + (n - 1) * n_vocab;
    for (size_t i = 0; !status && i < j->settings->greedy; i++) {
        j->greedy[i] = am_likeliest(i ? j->logits : last, n_vocab);
        if (i + 1 < j->settings->greedy) status = push(j, turn, &j->greedy[i], 1, 1, err);
    }
    if (!status && fwrite(j->greedy, sizeof *j->greedy, j->settings->greedy, j->out) != j->settings->greedy)
        status = am_fail(err, AM_EIO, "%s: %s", j->settings->out, strerror(errno));
    return status;
}

/* A model with two ropes is, as its reference has it, another model for lists that fit the short one. */
static am_status fit_model(job *j, const id_list *l, am_error *err) {
    uint32_t n_short = am_model_info_of(j->model)->n_ctx_short, n_ctx = l->n + j->settings->greedy <= n_short ? n_short : 0;
    if (n_ctx == j->n_ctx) return AM_OK;
    model_close(j);
    j->n_ctx = n_ctx;
    am_status status = load_model(j, err);
    return status ? status : open_cache(j, err);
}

static am_status run_list(job *j, const id_list *l, am_error *err) {
    static const am_tenant nobody;
    am_status status = fit_model(j, l, err);
    if (status) return status;
    am_turn_request request = {.tenant = &nobody, .tokens = l->ids, .n_tokens = l->n, .n_max_new = (uint32_t)j->settings->greedy,
                               .no_reuse = true, .ephemeral = true};
    am_turn *turn;
    while ((status = am_turn_open(j->cache, &request, &turn, err)) == AM_AGAIN) { /* blocks of the last list are still being written */
        am_cache_poll(j->cache);
        usleep(1000);
    }
    if (status) return status;
    while (am_turn_ready(turn) == AM_AGAIN) am_cache_poll(j->cache);
    status = run_turn(j, l, turn, err);
    am_turn_abort(turn);
    return status;
}

static am_status write_header(job *j, am_error *err) {
    uint64_t n_vocab = am_model_info_of(j->model)->n_vocab, n_greedy = j->settings->greedy;
    size_t n_kinds = n_greedy ? 2 : 1, n = j->n_lists * n_kinds;
    am_st_entry *entries = am_calloc(n, sizeof *entries);
    char(*names)[32] = am_calloc(n, sizeof *names);
    am_buf header;
    am_buf_init(&header, SIZE_MAX / 2);
    am_status status = entries && names ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for %zu lists", j->n_lists);
    for (size_t i = 0; !status && i < n; i++) {
        bool greedy = i % n_kinds == 1;
        snprintf(names[i], sizeof names[i], "%s.%zu", greedy ? "greedy" : "logits", i / n_kinds);
        entries[i] = greedy ? (am_st_entry){.name = names[i], .dtype = AM_ST_I32, .n_dim = 1, .shape = {n_greedy}}
                            : (am_st_entry){.name = names[i], .dtype = AM_ST_F32, .n_dim = 2, .shape = {j->lists[i / n_kinds].n, n_vocab}};
    }
    if (!status) status = am_st_header_build(&(am_st_layout){.entries = entries, .n_entries = n, .align = 64}, &header, NULL, err);
    if (!status && fwrite(header.p, 1, header.n, j->out) != header.n) status = am_fail(err, AM_EIO, "%s: %s", j->settings->out, strerror(errno));
    am_buf_free(&header);
    free(names);
    free(entries);
    return status;
}

static am_status write_all(job *j, am_error *err) {
    size_t n_vocab = am_model_info_of(j->model)->n_vocab, n_logits;
    j->logits = am_size_mul(AM_BLOCK_TOKENS, n_vocab, &n_logits) ? am_calloc(n_logits, sizeof *j->logits) : NULL;
    j->greedy = am_calloc(j->settings->greedy + 1, sizeof *j->greedy);
    if (!j->logits || !j->greedy) return am_fail(err, AM_ENOMEM, "no memory for logits");
    if (!(j->out = fopen(j->settings->out, "wb"))) return am_fail(err, AM_EIO, "%s: %s", j->settings->out, strerror(errno));
    am_progress progress = {0};
    am_status status = write_header(j, err);
    for (size_t i = 0; !status && i < j->n_lists; i++) {
        status = run_list(j, &j->lists[i], err);
        if (status) am_error_prefix(err, "list %zu", i);
        am_progress_update(&progress, "lists", i + 1, j->n_lists);
    }
    am_progress_end(&progress);
    if (fclose(j->out) != 0 && !status) status = am_fail(err, AM_EIO, "%s: %s", j->settings->out, strerror(errno));
    if (status) remove(j->settings->out); /* half a file would be taken for a whole one */
    return status;
}

static void job_free(job *j) {
    model_close(j);
    for (size_t i = 0; j->lists && i < j->n_lists; i++) free(j->lists[i].ids);
    free(j->lists);
    free(j->logits);
    free(j->greedy);
    am_workers_free(j->workers);
}

int am_command_logits(am_settings *settings) {
    am_error err = {0};
    job j = {.settings = settings};
    if (!settings->ids || !settings->out) {
        fputs("agent-memory: logits needs --ids FILE and --out FILE\n", stderr);
        return AM_EXIT_USAGE;
    }
    am_status status = read_lists(&j, &err);
    if (!status) status = am_workers_create(settings->threads ? settings->threads : am_cpus_threads(), &j.workers, &err);
    if (!status) status = am_kernels_pick(settings->isa, &j.kernels, &err);
    if (!status) status = load_model(&j, &err);
    if (!status) status = open_cache(&j, &err);
    if (!status) status = write_all(&j, &err);
    if (status) fprintf(stderr, "agent-memory: %s\n", err.message);
    job_free(&j);
    return status ? AM_EXIT_FAILED : 0;
}
