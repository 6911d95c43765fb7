/* What keeping an agent's state costs beside computing it: a prompt goes through the model and into the cache, block by block, as the engine does it.
 * Printed: the prefill's time; what sealing took of it (quantising by all workers, the blocks' names); the rotation of keys and values before that; and, in
 * processor time of the cache's own threads, checksums and writing.
 *
 *   build/bench/bench_seal [MODEL [TOKENS [RUNS]]]      default: the embedded model, 2048, 5 */
#include "engine_bench.h"

#include <dirent.h>
#include <time.h>

typedef struct costs {
    double prefill, seal, processor, writers; /* ms: of the wall, of the wall, of the process, of the cache's threads */
} costs;

static double processor_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* What the kernel counted for threads of one name. */
static double threads_ms(const char *name) {
    double ms = 0;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[64], comm[32] = "";
        unsigned long long ns = 0;
        snprintf(path, sizeof path, "/proc/self/task/%.16s/comm", e->d_name);
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%31s", comm) != 1) comm[0] = 0;
        if (f) fclose(f);
        if (strcmp(comm, name) != 0) continue;
        snprintf(path, sizeof path, "/proc/self/task/%.16s/schedstat", e->d_name);
        f = fopen(path, "r");
        if (f && fscanf(f, "%llu", &ns) == 1) ms += (double)ns * 1e-6;
        if (f) fclose(f);
    }
    if (d) closedir(d);
    return ms;
}

typedef struct bench {
    bench_engine b;
    am_cache *cache;
    am_workspace *ws;
    float *logits;
    int32_t *tokens;
    uint32_t n;
} bench;

static am_status prefill(const bench *b, am_turn *turn, costs *out, am_error *err) {
    uint64_t start = am_now_ns();
    for (uint32_t at = 0, count; at < b->n; at += count) {
        count = b->n - at < AM_BLOCK_TOKENS ? b->n - at : AM_BLOCK_TOKENS;
        bool last = at + count == b->n;
        am_segment segment = {.tokens = b->tokens + at, .n_tokens = count, .n_past = at, .sealed = am_turn_sealed(turn), .open = am_turn_open_block(turn),
                              .logits = last ? b->logits : NULL, .n_logits = last};
        am_status status = am_model_forward(b->b.model, b->ws, &segment, 1, err);
        if (status) return status;
        uint64_t computed = am_now_ns();
        am_turn_advance(turn, b->tokens + at, count);
        out->seal += am_ms_since(computed);
        am_cache_poll(b->cache);
    }
    out->prefill = am_ms_since(start);
    return AM_OK;
}

static am_status once(const bench *b, uint32_t run, costs *out, am_error *err) {
    static const am_tenant tenant;
    uint64_t seed = run + 1;
    am_turn *turn;
    for (uint32_t i = 0; i < b->n; i++) b->tokens[i] = (int32_t)bench_dice(&seed, am_model_info_of(b->b.model)->n_vocab);
    *out = (costs){0};
    double processor = processor_ms(), writers = threads_ms("am-io");
    am_turn_request request = {.tenant = &tenant, .agent = AM_STR("agent"), .tokens = b->tokens, .n_tokens = b->n, .no_reuse = true};
    am_status status = am_turn_open(b->cache, &request, &turn, err);
    if (!status) status = am_turn_ready(turn);
    if (!status) status = prefill(b, turn, out, err);
    if (!status) {
        am_turn_commit(turn, NULL, 0, NULL, NULL);
        status = am_cache_flush(b->cache, err);
    }
    out->processor = processor_ms() - processor;
    out->writers = threads_ms("am-io") - writers;
    return status;
}

/* One thread, ms: the rotation of n tokens' keys and values; checksums of their blocks. */
static double rotation_ms(const am_kv_layout *l, uint32_t n) {
    const am_kv_spec *s = &l->spec;
    float *x = am_calloc((size_t)s->n_kv_head * s->head_dim_k, sizeof *x);
    if (!x) return 0;
    for (uint32_t i = 0; i < s->n_kv_head * s->head_dim_k; i++) x[i] = (float)(i % 17);
    uint64_t start = am_now_ns();
    for (uint32_t i = 0; i < n * s->n_layer; i++) {
        am_kv_rotate_k(l, x, s->n_kv_head);
        if (!s->shared) am_kv_rotate_v(l, x, s->n_kv_head);
    }
    double ms = am_ms_since(start);
    free(x);
    return ms;
}

static double sum_ms(const am_kv_layout *l, uint32_t n_blocks) {
    uint8_t *block = am_alloc_aligned(l->sealed_bytes);
    if (!block) return 0;
    for (size_t i = 0; i < l->sealed_bytes; i++) block[i] = (uint8_t)(i * 31);
    uint64_t start = am_now_ns();
    for (uint32_t i = 0; i < n_blocks; i++) {
        am_sum sum = am_sum_of(block, l->sealed_bytes);
        block[i % l->sealed_bytes] ^= sum.b[0];
    }
    double ms = am_ms_since(start);
    free(block);
    return ms;
}

static am_status prepare(bench *b, const char *path, am_error *err) {
    am_status status = bench_load(&b->b, path, err);
    if (status) return status;
    am_cache_options *o = &b->b.options.cache;
    o->n_turns = 1;
    o->n_ctx = b->n + AM_BLOCK_TOKENS;
    o->durability = AM_DURABLE_EVERYSEC;
    o->memory_bytes = 2 * am_cache_least_bytes(&o->layout, o->n_ctx) + 4 * o->layout.open_bytes;
    b->logits = am_calloc(am_model_info_of(b->b.model)->n_vocab, sizeof *b->logits);
    b->tokens = am_calloc(b->n, sizeof *b->tokens);
    if (!b->logits || !b->tokens) return am_fail(err, AM_ENOMEM, "no memory for %u tokens", b->n);
    status = am_cache_open(o, &b->cache, err);
    return status ? status : am_workspace_create(b->b.model, &o->layout, b->b.workers, AM_BLOCK_TOKENS, 1, &b->ws, err);
}

int main(int argc, char **argv) {
    enum { MAX_RUNS = 64 };
    bench b = {.n = argc > 2 ? (uint32_t)atoi(argv[2]) : 2048};
    am_error err = {0};
    int runs = argc > 3 ? atoi(argv[3]) : 5;
    if (runs < 1 || runs > MAX_RUNS) runs = 5;
    double prefill_ms[MAX_RUNS], seal[MAX_RUNS], processor[MAX_RUNS], writers[MAX_RUNS];
    am_status status = prepare(&b, argc > 1 && *argv[1] ? argv[1] : NULL, &err);
    for (int run = -1; !status && run < runs; run++) { /* the first is not counted */
        costs c = {0};
        status = once(&b, (uint32_t)(run + 1), &c, &err);
        if (run >= 0) prefill_ms[run] = c.prefill, seal[run] = c.seal, processor[run] = c.processor, writers[run] = c.writers;
    }
    if (status) {
        fprintf(stderr, "bench_seal: %s\n", err.message[0] ? err.message : am_status_text(status));
    } else {
        const am_kv_layout *l = &b.b.options.cache.layout;
        double wall = bench_median(prefill_ms, runs), s = bench_median(seal, runs), cpu = bench_median(processor, runs), w = bench_median(writers, runs);
        double rotation = rotation_ms(l, b.n), sum = sum_ms(l, b.n / AM_BLOCK_TOKENS);
        printf("%s, table %s, %zu threads, prefill of %u tokens: %.1f ms (%.0f tok/s); processors, all with writing: %.1f ms\n", am_model_info_of(b.b.model)->name,
               b.b.kernels->name, am_workers_count(b.b.workers), b.n, wall, b.n / wall * 1e3, cpu);
        printf("sealing %.2f ms, %.2f %% of the prefill's time; rotation of keys and values %.2f ms on one thread, checksums %.2f ms: %.2f %% of the processors' time\n", s,
               100 * s / wall, rotation, sum, 100 * (rotation + sum) / cpu);
        printf("checksums, writing and the folder's work %.2f ms of the cache's threads, %.2f %% of the processors' time\n", w, 100 * w / cpu);
    }
    am_workspace_free(b.ws);
    am_cache_close(b.cache);
    free(b.logits), free(b.tokens);
    bench_free(&b.b);
    return status != AM_OK;
}
