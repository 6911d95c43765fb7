#include "canary.h"

#include "base/fs.h"
#include "base/hash.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

enum { DIM = 32, HEADS = 2, LAYERS = 3 };

am_kv_layout canary_layout(uint32_t bits) { return canary_layout_windows(bits, 0, 0); }

am_kv_layout canary_layout_windows(uint32_t bits, uint32_t window, uint32_t windowed) {
    am_kv_layout layout;
    am_kv_spec spec = {.n_layer = LAYERS, .n_kv_head = HEADS, .head_dim_k = DIM, .head_dim_v = DIM, .bits_k = bits, .bits_v = bits,
                       .window = window, .windowed = {windowed}};
    assert_int_equal(am_kv_layout_init(&layout, &spec, NULL), AM_OK);
    return layout;
}

/* A row is a function of tenant, layer, position and every token up to it: `history` is a running hash. */
static void put_row(const am_kv_layout *layout, void *open, const char *tenant, uint32_t position, uint64_t history) {
    float k[HEADS * DIM], v[HEADS * DIM];
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        uint64_t seed = am_hash64(&(uint64_t[]){history, layer, position, am_hash64(tenant, strlen(tenant))}, 32);
        for (size_t i = 0; i < HEADS * DIM; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            k[i] = (float)(int32_t)(seed >> 32) * 0x1p-31f;
            v[i] = (float)(int32_t)(seed >> 16) * 0x1p-31f;
        }
        am_kv_put(*am_kernels_list(), layout, open, layer, position % AM_BLOCK_TOKENS, k, v);
    }
}

static uint64_t step(uint64_t history, int32_t token) { return am_hash64(&(uint64_t[]){history, (uint64_t)(uint32_t)token}, 16); }

void canary_extend(am_cache *cache, am_turn *turn, const am_kv_layout *layout, const char *tenant, const int32_t *tokens, uint32_t n) {
    (void)cache;
    uint64_t history = 0;
    uint32_t past = am_turn_n_past(turn);
    for (uint32_t i = 0; i < past; i++) history = step(history, tokens[i]);
    for (uint32_t i = past; i < n; i++) {
        history = step(history, tokens[i]);
        put_row(layout, am_turn_open_block(turn), tenant, i, history);
        am_turn_advance(turn, tokens + i, 1);
    }
}

/* A block of its own; never one of the allocations that a test makes fail. */
static void *block(size_t n_bytes) {
    void *p = aligned_alloc(64, (n_bytes + 63) / 64 * 64);
    assert_non_null(p);
    return memset(p, 0, n_bytes);
}

/* Every layer of sealed block i that a pass may look at. */
static void check_sealed(am_turn *turn, const am_kv_layout *layout, const void *open, uint32_t i) {
    void *sealed = block(layout->sealed_bytes), *units[LAYERS];
    const void *const *found = am_turn_sealed(turn)[i];
    am_kv_units_of(layout, sealed, units);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        if (am_kv_part_of(layout, layer) == AM_KV_WINDOW && i < am_kv_reach(layout, am_turn_n_past(turn))) continue;
        am_kv_seal(*am_kernels_list(), layout, open, units, layer);
        assert_memory_equal(am_kv_sealed_layer(layout, (const void *const *)units, layer), am_kv_sealed_layer(layout, found, layer),
                            layout->sealed_layer_bytes);
    }
    free(sealed);
}

void canary_check(am_turn *turn, const am_kv_layout *layout, const char *tenant, const int32_t *tokens) {
    uint32_t past = am_turn_n_past(turn), n_rows = past % AM_BLOCK_TOKENS;
    void *open = block(layout->open_bytes);
    char *wanted = malloc(am_kv_rows_bytes(layout, 255)), *found = malloc(am_kv_rows_bytes(layout, 255));
    uint64_t history = 0;
    for (uint32_t i = 0; i < past; i++) {
        history = step(history, tokens[i]);
        put_row(layout, open, tenant, i, history);
        if (i % AM_BLOCK_TOKENS == AM_BLOCK_TOKENS - 1) check_sealed(turn, layout, open, i / AM_BLOCK_TOKENS);
    }
    am_kv_rows_save(layout, open, n_rows, wanted);
    am_kv_rows_save(layout, am_turn_open_block(turn), n_rows, found);
    if (n_rows) assert_memory_equal(wanted, found, am_kv_rows_bytes(layout, n_rows));
    free(open);
    free(wanted);
    free(found);
}

static void note(void *arg, am_status status) { *(am_status *)arg = status; }

static void nap(void) { nanosleep(&(struct timespec){0, 200000}, NULL); }

am_turn *canary_open(am_cache *cache, const am_turn_request *request) {
    am_turn *turn;
    am_error err = {0};
    am_status status;
    while ((status = am_turn_open(cache, request, &turn, &err)) == AM_AGAIN) {
        nap();
        am_cache_poll(cache);
    }
    if (status) fail_msg("turn not opened: %s", err.message);
    while (am_turn_ready(turn) == AM_AGAIN) {
        nap();
        am_cache_poll(cache);
    }
    return turn;
}

am_turn_info canary_turn(am_cache *cache, const am_kv_layout *layout, const am_turn_request *request, const int32_t *tokens, uint32_t n) {
    am_turn *turn = canary_open(cache, request);
    am_turn_info info = *am_turn_info_of(turn);
    canary_check(turn, layout, request->tenant->name, tokens);
    canary_extend(cache, turn, layout, request->tenant->name, tokens, n);
    canary_check(turn, layout, request->tenant->name, tokens);
    am_status done = AM_AGAIN;
    am_turn_commit(turn, NULL, 0, note, &done);
    while (done == AM_AGAIN) {
        am_cache_poll(cache);
        nap();
    }
    return info;
}

static am_status drop_pages(void *arg, const char *name) {
    char path[4096];
    if (am_fs_join(path, sizeof path, arg, name, NULL)) return AM_OK;
    int fd = open(path, O_RDONLY);
    if (fd < 0) return AM_OK;
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    return AM_OK;
}

void canary_drop_pages(const char *dir) { am_fs_list(dir, drop_pages, (void *)dir, NULL); }
