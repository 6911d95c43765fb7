/* Invariant 1 where layers have windows: small random models with windows below, of, and above a block, on all layers or on some, run by turns that
 * go on, go back and part from one another while parts are evicted, files vanish and the cache is opened anew; every row of logits is that of one
 * plain pass over the text that keeps everything. */
#include "base/fs.h"
#include "base/log.h"
#include "cache/cache.h"
#include "sequence.h"
#include "tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { MOST = 6000, N_TEXTS = 2, N_VOCAB = 61 };
static const am_tenant nobody;

typedef struct work {
    char model_dir[64], dir[64];
    const am_kernels *kernels;
    am_workers *workers;
    am_model *model;
    am_kv_layout layout;
    am_cache *cache;
    am_workspace *ws;
    uint32_t n, seed; /* n: tokens of a text */
    int32_t ids[N_TEXTS][MOST]; /* the second leaves the first after a third */
    float *plain[N_TEXTS], *logits;
    uint32_t n_of_tier[3];
} work;

static uint32_t dice(work *w, uint32_t sides) {
    w->seed = w->seed * 1664525u + 1013904223u;
    return (w->seed >> 8) % sides;
}

static void cache_open(work *w) {
    am_error err = {0};
    am_cache_options o = {.dir = w->dir, .model_name = "tiny", .layout = w->layout, .kernels = w->kernels, .workers = w->workers,
                          .memory_bytes = am_cache_least_bytes(&w->layout, w->n + 256) * 3 / 2 + 6 * w->layout.open_bytes, .n_turns = 2,
                          .n_ctx = w->n + 256, .durability = AM_DURABLE_NO};
    if (w->cache) assert_int_equal(am_cache_flush(w->cache, NULL), AM_OK);
    am_cache_close(w->cache);
    memcpy(o.model_fingerprint, am_model_info_of(w->model)->fingerprint, sizeof o.model_fingerprint);
    if (am_cache_open(&o, &w->cache, &err)) fail_msg("%s", err.message);
}

static void plain(work *w) {
    am_workspace *ws;
    test_sequence seq;
    assert_int_equal(am_workspace_create(w->model, &w->layout, NULL, AM_BLOCK_TOKENS, AM_BLOCK_TOKENS, &ws, NULL), AM_OK);
    for (int t = 0; t < N_TEXTS; t++) {
        for (uint32_t i = 0; i < w->n; i++) w->ids[t][i] = t && i < w->n / 3 ? w->ids[0][i] : (int32_t)dice(w, N_VOCAB);
        w->plain[t] = am_calloc((size_t)w->n * N_VOCAB, sizeof(float));
        test_sequence_init(&seq, w->kernels, w->model, ws, &w->layout, w->n);
        test_sequence_push(&seq, w->ids[t], w->n, AM_BLOCK_TOKENS, w->plain[t]);
        test_sequence_free(&seq);
    }
    am_workspace_free(ws);
}

static void work_open(work *w, uint32_t window, uint32_t full_every, uint32_t n) {
    const test_tiny_model shape = {.n_layer = 3, .n_vocab = N_VOCAB, .n_embd = 32, .n_ff = 48, .n_head = 4, .n_kv_head = 2, .head_dim = 16, .window = window,
                                   .full_every = full_every};
    am_error err = {0};
    am_kv_spec spec;
    *w = (work){.n = n, .seed = window + full_every};
    strcpy(w->model_dir, "/tmp/am_winmodel_XXXXXX");
    strcpy(w->dir, "/tmp/am_winstore_XXXXXX");
    assert_non_null(mkdtemp(w->model_dir));
    assert_non_null(mkdtemp(w->dir));
    test_tiny_model_write(&shape, w->model_dir, window * 3 + full_every);
    assert_int_equal(am_kernels_pick(NULL, &w->kernels, NULL), AM_OK);
    assert_int_equal(am_workers_create(2, &w->workers, NULL), AM_OK);
    am_model_options options = {.kernels = w->kernels, .workers = w->workers};
    if (am_model_load(w->model_dir, &options, &w->model, &err) || am_model_kv_spec(w->model, AM_KV_BITS_K, AM_KV_BITS_V, &spec, &err) ||
        am_kv_layout_init(&w->layout, &spec, &err) ||
        am_workspace_create(w->model, &w->layout, w->workers, 2 * AM_BLOCK_TOKENS, 2 * AM_BLOCK_TOKENS, &w->ws, &err))
        fail_msg("%s", err.message);
    assert_int_equal(spec.window, window);
    w->logits = am_calloc(2 * AM_BLOCK_TOKENS * N_VOCAB, sizeof *w->logits);
    plain(w);
    cache_open(w);
}

static void work_close(work *w) {
    char command[80];
    am_cache_close(w->cache);
    am_workspace_free(w->ws);
    am_model_free(w->model);
    am_workers_free(w->workers);
    for (int t = 0; t < N_TEXTS; t++) free(w->plain[t]);
    free(w->logits);
    test_tiny_model_remove(w->model_dir);
    snprintf(command, sizeof command, "rm -rf %s", w->dir);
    assert_int_equal(system(command), 0);
}

typedef struct side {
    am_turn *turn;
    uint32_t text, n, chunk;
    bool over;
} side;

static uint32_t keep_some(void *arg, uint32_t layer, uint32_t n) {
    (void)layer;
    return dice(arg, 4) ? n : 1 + dice(arg, n);
}

/* Two turns beside each other, in chunks of their own, in the same passes. */
static void run(work *w, side *sides) {
    am_error err = {0};
    for (;;) {
        am_segment g[2];
        side *of[2];
        size_t n = 0, row = 0;
        for (int i = 0; i < 2; i++) {
            side *s = &sides[i];
            if (!s->turn) continue;
            uint32_t at = am_turn_n_past(s->turn), room = AM_BLOCK_TOKENS - at % AM_BLOCK_TOKENS, count = s->n - at;
            count = count < s->chunk ? count : s->chunk;
            count = count < room ? count : room;
            if (!count) continue;
            g[n] = (am_segment){.tokens = w->ids[s->text] + at, .n_tokens = count, .n_past = at, .sealed = am_turn_sealed(s->turn),
                                .open = am_turn_open_block(s->turn), .logits = w->logits + row * N_VOCAB, .n_logits = count};
            row += count;
            of[n++] = s;
        }
        if (n == 0) return;
        g[n - 1].keep = keep_some;
        g[n - 1].keep_arg = w;
        if (am_model_forward(w->model, w->ws, g, n, &err)) fail_msg("%s", err.message);
        for (size_t i = 0; i < n; i++) {
            const float *want = w->plain[of[i]->text] + (size_t)g[i].n_past * N_VOCAB;
            if (memcmp(g[i].logits, want, g[i].n_tokens * N_VOCAB * sizeof *want) != 0)
                fail_msg("window %u: rows %u to %u differ in chunks of %u, %s", w->layout.spec.window, g[i].n_past, g[i].n_past + g[i].n_tokens, of[i]->chunk,
                         am_tier_name(am_turn_info_of(of[i]->turn)->tier));
            am_turn_advance(of[i]->turn, g[i].tokens, g[i].n_tokens);
        }
        am_cache_poll(w->cache);
    }
}

static void begin(work *w, side *s, uint32_t from, bool alone) {
    static const uint32_t chunks[] = {1, 7, 64, 256, 256, 256};
    am_error err = {0};
    char name[8];
    *s = (side){.text = dice(w, N_TEXTS), .chunk = chunks[dice(w, 6)]};
    s->n = from + 1 + dice(w, s->chunk < 64 ? 300 : 1500);
    if (s->n > w->n) s->n = w->n;
    snprintf(name, sizeof name, "%u", dice(w, 3));
    am_turn_request r = {.tenant = &nobody, .agent = am_str_of(name), .tokens = w->ids[s->text], .n_tokens = s->n, .n_max_new = 1};
    am_status status = am_turn_open(w->cache, &r, &s->turn, &err);
    if (status == AM_AGAIN && alone) { /* what was being written can go now, and nothing else is in the way */
        am_cache_flush(w->cache, NULL);
        status = am_turn_open(w->cache, &r, &s->turn, &err);
    }
    if (status && (status != AM_AGAIN || alone)) fail_msg("%s", err.message);
    while (s->turn && am_turn_ready(s->turn) == AM_AGAIN) {
        usleep(100);
        am_cache_poll(w->cache);
    }
    if (s->turn) w->n_of_tier[am_turn_info_of(s->turn)->tier]++;
}

static am_status remove_some(void *arg, const char *name) {
    work *w = arg;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", w->dir, name);
    if (strstr(name, ".safetensors") && dice(w, 6) == 0) unlink(path); /* one being written may be gone already */
    return AM_OK;
}

static void disturb(work *w) {
    uint32_t what = dice(w, 8);
    if (what == 0) am_cache_evict(w->cache, &nobody, (am_str){0}, NULL);
    if (what == 1) am_cache_trim(w->cache, true);
    if (what == 2) cache_open(w);
    if (what == 3) am_fs_list(w->dir, remove_some, w, NULL);
}

static void play(uint32_t window, uint32_t full_every, uint32_t n, uint32_t n_rounds) {
    work *w = malloc(sizeof *w);
    assert_non_null(w);
    work_open(w, window, full_every, n);
    for (uint32_t round = 0; round < n_rounds; round++) {
        side sides[2];
        uint32_t from = round * (n - 600) / n_rounds; /* texts grow; sometimes a turn goes back */
        begin(w, &sides[0], dice(w, 4) ? from : dice(w, from + 1), true);
        begin(w, &sides[1], dice(w, 4) ? from : dice(w, from + 1), false);
        run(w, sides);
        for (int i = 0; i < 2; i++) {
            if (!sides[i].turn) continue;
            if (dice(w, 5)) am_turn_commit(sides[i].turn, NULL, 0, NULL, NULL);
            else am_turn_abort(sides[i].turn);
        }
        disturb(w);
    }
    print_message("window %u, every %u. layer without: %u cold, %u warm, %u hot\n", window, full_every, w->n_of_tier[AM_COLD], w->n_of_tier[AM_WARM],
                  w->n_of_tier[AM_HOT]);
    assert_true(w->n_of_tier[AM_WARM] + w->n_of_tier[AM_HOT] > 0);
    work_close(w);
    free(w);
}

static void narrower_than_a_block(void **state) {
    (void)state;
    play(100, 0, 2000, 12);
    play(37, 3, 2000, 12);
}

static void a_block(void **state) {
    (void)state;
    play(256, 2, 2600, 12);
    play(257, 0, 2600, 12);
}

static void several_blocks(void **state) {
    (void)state;
    play(1000, 3, 3600, 14);
    play(1024, 0, 3600, 14);
    play(1024, 2, 3600, 14);
}

static void sixteen_blocks(void **state) {
    (void)state;
    play(4096, 2, MOST - 300, 12);
}

int main(void) {
    am_log_setup(AM_LOG_OFF, false);
    const struct CMUnitTest tests[] = {cmocka_unit_test(narrower_than_a_block), cmocka_unit_test(a_block), cmocka_unit_test(several_blocks),
                                       cmocka_unit_test(sixteen_blocks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
