/* Invariant 1 over a restore, for every architecture and the product's own form of cache: logits of an agent whose state went to disk and came
 * back, was forked, was computed in odd chunks, on two threads and beside another agent, are those of one that was computed the plainest way.
 * The models are the tiny ones of shared/golden, with rows far beyond their windows. */
#include "base/fs.h"
#include "base/log.h"
#include "cache/cache.h"
#include "sequence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { FIRST = 600, SECOND = 1300, N_BLOCKS = 64 };

static const char *const cases[] = {
    "llama-rope3-gqa", "llama-mha-f16", "mistral-window",  "mistral-headdim96", "qwen2-bias-tied", "qwen3-qknorm",   "qwen3-moe", "phi3-fused",
    "phi3-longrope-partial", "gemma2", "gemma3-hd64", "gemma3-hd256-bf16", "gemma3-nested", "gpt-oss-bf16", "olmo2", "smollm3-nope", "gpt-oss-mxfp4",
    "deepseek2-lite", "deepseek2-qlora-groups", "own/llama-hd20", "own/gemma3-hd24-bias", /* in tests/data: heads that are wider in the cache */
};

static const char *shared_dir(void) {
    const char *dir = getenv("AM_SHARED");
    if (!dir) dir = "../shared";
    return access(dir, R_OK) == 0 ? dir : NULL;
}

/* A model on the best table, the plain logits of one text, and a folder for agents. */
typedef struct store {
    const am_kernels *kernels;
    am_workers *workers;
    am_model *model;
    am_kv_layout layout;
    am_cache *cache;
    am_workspace *ws; /* with the workers */
    char dir[64];
    size_t n_vocab;
    int32_t ids[SECOND];
    float *plain, *logits; /* [SECOND][n_vocab] */
    uint32_t dice;
} store;

static const am_tenant nobody;

static void cache_open(store *s) {
    const am_model_info *info = am_model_info_of(s->model);
    am_error err = {0};
    am_cache_options o = {.dir = s->dir, .model_name = info->name, .layout = s->layout, .kernels = s->kernels, .workers = s->workers,
                          .memory_bytes = N_BLOCKS * s->layout.sealed_bytes + 8 * s->layout.open_bytes, .n_turns = 4, .n_ctx = 2048,
                          .durability = AM_DURABLE_NO};
    memcpy(o.model_fingerprint, info->fingerprint, sizeof info->fingerprint);
    if (am_cache_open(&o, &s->cache, &err)) fail_msg("%s", err.message);
}

static void cache_reopen(store *s) {
    am_error err = {0};
    if (am_cache_flush(s->cache, &err)) fail_msg("%s", err.message);
    am_cache_close(s->cache);
    cache_open(s);
}

static am_turn *turn_open(store *s, const char *agent, uint32_t n, bool no_reuse) {
    am_turn_request r = {.tenant = &nobody, .agent = am_str_of(agent), .tokens = s->ids, .n_tokens = n, .n_max_new = 1, .no_reuse = no_reuse};
    am_turn *turn;
    am_error err = {0};
    if (am_turn_open(s->cache, &r, &turn, &err)) fail_msg("%s", err.message);
    while (am_turn_ready(turn) == AM_AGAIN) {
        usleep(200);
        am_cache_poll(s->cache);
    }
    return turn;
}

/* n in two cases of three, else 1 to n. */
static uint32_t some_of(uint32_t *state, uint32_t n) {
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % 3 ? n : 1 + (*state >> 12) % n;
}

/* In one layer of three some of the segment's tokens are given up. */
static uint32_t keep_some(void *arg, uint32_t layer, uint32_t n) {
    (void)layer;
    return some_of(arg, n);
}

/* The next segment of a turn's prompt, of at most `chunk` tokens, with logits for all of them or for the last. */
static am_segment turn_segment(store *s, const am_turn *turn, am_turn_info info, uint32_t chunk) {
    uint32_t n_past = am_turn_n_past(turn), n = info.n_prompt - n_past, room = AM_BLOCK_TOKENS - n_past % AM_BLOCK_TOKENS;
    n = n < chunk ? n : chunk;
    n = n < room ? n : room;
    return (am_segment){.tokens = s->ids + n_past, .n_tokens = n, .n_past = n_past, .sealed = am_turn_sealed(turn),
                        .open = am_turn_open_block((am_turn *)(uintptr_t)turn), .logits = s->logits + n_past * s->n_vocab, .n_logits = n ? some_of(&s->dice, n) : 0};
}

/* Runs prompts to their ends side by side, each in its own chunks, and compares the rows of logits with the plain ones. */
static void turns_run(store *s, am_turn **turns, const uint32_t *chunks, size_t n_turns) {
    am_error err = {0};
    for (bool more = true; more;) {
        am_segment segments[2];
        size_t which[2], n = 0;
        for (size_t i = 0; i < n_turns; i++) {
            segments[n] = turn_segment(s, turns[i], *am_turn_info_of(turns[i]), chunks[i]);
            if (segments[n].n_tokens) which[n++] = i;
        }
        if (n == 2) segments[1].logits += SECOND * s->n_vocab; /* rows of their own */
        segments[n ? n - 1 : 0].keep = keep_some;
        segments[n ? n - 1 : 0].keep_arg = &s->dice;
        if (n && am_model_forward(s->model, s->ws, segments, n, &err)) fail_msg("%s", err.message);
        for (size_t k = 0; k < n; k++) {
            const am_segment *g = &segments[k];
            uint32_t end = g->n_past + g->n_tokens, row = end - g->n_logits;
            if (memcmp(g->logits, s->plain + row * s->n_vocab, g->n_logits * s->n_vocab * sizeof *s->logits) != 0)
                fail_msg("rows %u to %u differ (chunks of %u, %s)", row, end, chunks[which[k]],
                         am_tier_name(am_turn_info_of(turns[which[k]])->tier));
            am_turn_advance(turns[which[k]], g->tokens, g->n_tokens);
        }
        more = n > 0;
    }
}

static void turn_run(store *s, const char *agent, uint32_t n, uint32_t chunk, am_tier tier, uint32_t n_cached) {
    am_turn *turn = turn_open(s, agent, n, false);
    assert_int_equal(am_turn_info_of(turn)->tier, tier);
    assert_int_equal(am_turn_info_of(turn)->n_cached, n_cached);
    turns_run(s, &turn, &chunk, 1);
    am_turn_commit(turn, NULL, 0, NULL, NULL);
}

static void store_open(store *s, const char *name) {
    char path[4096];
    am_error err = {0};
    am_kv_spec spec;
    memset(s, 0, sizeof *s);
    bool own = strncmp(name, "own/", 4) == 0;
    snprintf(path, sizeof path, "%s/golden/%s", own ? "tests/data" : shared_dir(), own ? name + 4 : name);
    snprintf(s->dir, sizeof s->dir, "/tmp/am_archs_XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    assert_int_equal(am_kernels_pick(NULL, &s->kernels, NULL), AM_OK);
    assert_int_equal(am_workers_create(2, &s->workers, NULL), AM_OK);
    am_model_options options = {.kernels = s->kernels, .workers = s->workers};
    if (am_model_load(path, &options, &s->model, &err) || am_model_kv_spec(s->model, AM_KV_BITS_K, AM_KV_BITS_V, &spec, &err) ||
        am_kv_layout_init(&s->layout, &spec, &err) ||
        am_workspace_create(s->model, &s->layout, s->workers, 2 * AM_BLOCK_TOKENS, 2 * AM_BLOCK_TOKENS, &s->ws, &err))
        fail_msg("%s", err.message);
    s->n_vocab = am_model_info_of(s->model)->n_vocab;
    s->plain = am_calloc(SECOND * s->n_vocab, sizeof *s->plain);
    s->logits = am_calloc(2 * SECOND * s->n_vocab, sizeof *s->logits);
    uint32_t state = 12345;
    for (uint32_t i = 0; i < SECOND; i++) {
        state = state * 1664525u + 1013904223u;
        s->ids[i] = (int32_t)((state >> 8) % s->n_vocab);
    }
    cache_open(s);
}

static void store_close(store *s) {
    char command[96];
    am_cache_close(s->cache);
    am_workspace_free(s->ws);
    am_model_free(s->model);
    am_workers_free(s->workers);
    free(s->plain);
    free(s->logits);
    snprintf(command, sizeof command, "rm -rf %s", s->dir);
    assert_int_equal(system(command), 0);
}

/* Alone, one thread, whole blocks, no cache around it. */
static void compute_plain(store *s) {
    am_workspace *ws;
    test_sequence seq;
    assert_int_equal(am_workspace_create(s->model, &s->layout, NULL, AM_BLOCK_TOKENS, AM_BLOCK_TOKENS, &ws, NULL), AM_OK);
    test_sequence_init(&seq, s->kernels, s->model, ws, &s->layout, SECOND);
    test_sequence_push(&seq, s->ids, SECOND, AM_BLOCK_TOKENS, s->plain);
    test_sequence_free(&seq);
    am_workspace_free(ws);
}

static void test_case(void **state) {
    store s;
    if (!shared_dir()) {
        print_message("no shared folder\n");
        skip();
    }
    store_open(&s, *state);
    compute_plain(&s);
    turn_run(&s, "one", FIRST, 64, AM_COLD, 0);
    cache_reopen(&s);
    assert_int_equal(am_cache_fork(s.cache, &nobody, AM_STR("one"), AM_STR("two"), NULL), AM_OK);
    turn_run(&s, "one", SECOND, 7, AM_WARM, FIRST);
    am_turn *both[] = {turn_open(&s, "two", SECOND, false), turn_open(&s, "three", FIRST, true)};
    assert_int_equal(am_turn_info_of(both[0])->n_cached, SECOND / AM_BLOCK_TOKENS * AM_BLOCK_TOKENS + (SECOND % AM_BLOCK_TOKENS - 1));
    turns_run(&s, both, (const uint32_t[]){1, 100}, 2);
    am_turn_abort(both[0]);
    am_turn_commit(both[1], NULL, 0, NULL, NULL);
    cache_reopen(&s);
    am_cache_evict(s.cache, &nobody, AM_STR(""), NULL);
    turn_run(&s, "three", FIRST + 1, 1, AM_WARM, FIRST);
    store_close(&s);
}

int main(void) {
    struct CMUnitTest tests[sizeof cases / sizeof cases[0]] = {0};
    am_log_setup(AM_LOG_ERROR, false);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        tests[i] = (struct CMUnitTest){.name = cases[i], .test_func = test_case, .initial_state = (void *)(uintptr_t)cases[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
