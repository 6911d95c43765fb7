/* Layers with windows (docs/DESIGN.md, "Windows"): what is kept and what is not, what that means for turns that go on, back or another way, and
 * that nobody ever sees a wrong row. What must be kept is worked out here from what a query sees, block by block. Rows are canaries (canary.h). */
#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "cache_check.h"
#include "canary.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { N_CTX = 8192, MIXED = 5 /* layers 0 and 2 of three */, ALL = 7 };
static const am_tenant nobody;

typedef struct place {
    char root[64], dir[80];
    am_kv_layout layout;
    am_cache *cache;
    am_cache_options options;
} place;

static void reopen(place *p) {
    if (p->cache) assert_int_equal(am_cache_flush(p->cache, NULL), AM_OK);
    am_cache_close(p->cache);
    am_error err = {0};
    if (am_cache_open(&p->options, &p->cache, &err)) fail_msg("%s", err.message);
    canary_drop_pages(p->dir);
}

static void place_open(place *p, uint32_t window, uint32_t windowed) {
    *p = (place){.layout = canary_layout_windows(4, window, windowed)};
    strcpy(p->root, "/tmp/am_windows_XXXXXX");
    assert_non_null(mkdtemp(p->root));
    snprintf(p->dir, sizeof p->dir, "%s/caches", p->root);
    p->options = (am_cache_options){.dir = p->dir, .model_name = "canary", .layout = p->layout, .kernels = *am_kernels_list(), .n_turns = 4, .n_ctx = N_CTX};
    p->options.memory_bytes = 2 * am_cache_least_bytes(&p->layout, N_CTX) + 16 * p->layout.open_bytes;
    reopen(p);
}

static void place_close(place *p) {
    char command[128];
    am_cache_close(p->cache);
    snprintf(command, sizeof command, "rm -rf %s", p->root);
    assert_int_equal(system(command), 0);
}

/* Streams of tokens that share what the seeds share. */
static void fill(int32_t *t, uint32_t from, uint32_t seed) {
    for (uint32_t i = from; i < N_CTX; i++) t[i] = (int32_t)((seed * 2654435761u + i * 40503u) >> 8 & 0xffff);
}

static am_turn_info turn(place *p, const char *agent, const int32_t *tokens, uint32_t n_prompt, uint32_t n) {
    am_turn_request r = {.tenant = &nobody, .agent = am_str_of(agent), .tokens = tokens, .n_tokens = n_prompt, .n_max_new = n - n_prompt + 8};
    return canary_turn(p->cache, &p->layout, &r, tokens, n);
}

typedef struct files {
    uint32_t n[3]; /* b-, w-, heads */
} files;

static am_status count_file(void *arg, const char *name) {
    files *f = arg;
    if (strstr(name, ".safetensors")) f->n[strchr(name, '~') ? 2 : name[0] == 'w']++;
    return AM_OK;
}

static files files_of(place *p) {
    files f = {0};
    assert_int_equal(am_cache_flush(p->cache, NULL), AM_OK);
    assert_int_equal(am_fs_list(p->dir, count_file, &f, NULL), AM_OK);
    return f;
}

/* Blocks with a key that the first query behind one of these ends (in blocks) sees. */
static uint32_t blocks_seen(uint32_t window, const uint32_t *ends, size_t n_ends) {
    uint32_t n = 0;
    for (int64_t b = 0; b < N_CTX / AM_BLOCK_TOKENS; b++) {
        bool seen = false;
        for (size_t k = 0; k < n_ends; k++) {
            int64_t query = (int64_t)ends[k] * AM_BLOCK_TOKENS, oldest = query - (int64_t)window + 1;
            seen |= b < ends[k] && b * AM_BLOCK_TOKENS + AM_BLOCK_TOKENS - 1 >= oldest;
        }
        n += seen;
    }
    return n;
}

static const uint32_t widths[] = {2, 3, 100, 255, 256, 257, 258, 512, 513, 1000, 1024, 4096};
enum { N_WIDTHS = sizeof widths / sizeof *widths };

static void only_what_can_be_reached_is_kept(void **state) {
    (void)state;
    static int32_t t[N_CTX];
    fill(t, 0, 1);
    for (uint32_t i = 0; i < 2 * N_WIDTHS; i++) {
        place p;
        uint32_t window = widths[i / 2], windowed = i % 2 ? ALL : MIXED, n_global = windowed == ALL ? 0 : 1;
        place_open(&p, window, windowed);
        turn(&p, "alice", t, 3000, 3333);
        files f = files_of(&p);
        assert_int_equal(f.n[0], n_global * (3333 / 256));
        assert_int_equal(f.n[1], blocks_seen(window, (uint32_t[]){2999 / 256, 3333 / 256}, 2)); /* the prompt's last token is always computed */
        am_turn_info info = turn(&p, "alice", t, 5200, 6000);
        assert_int_equal(info.n_cached, 3333);
        assert_int_equal(info.tier, AM_HOT);
        f = files_of(&p);
        assert_int_equal(f.n[0], n_global * (6000 / 256));
        assert_int_equal(f.n[1], blocks_seen(window, (uint32_t[]){3333 / 256, 5199 / 256, 6000 / 256}, 3));
        reopen(&p);
        info = turn(&p, "alice", t, 6010, 6020);
        assert_int_equal(info.tier, AM_WARM);
        assert_int_equal(info.n_cached, 6000);
        assert_int_equal(info.miss, AM_MISS_NONE);
        assert_int_equal(am_cache_rm(p.cache, &nobody, AM_STR("alice"), NULL), AM_OK);
        f = files_of(&p);
        assert_int_equal(f.n[0] + f.n[1] + f.n[2], 0);
        place_close(&p);
    }
}

static void the_last_answer_and_the_last_message_can_be_had_again(void **state) {
    (void)state;
    static int32_t t[N_CTX], u[N_CTX];
    for (uint32_t i = 0; i < 2 * N_WIDTHS; i++) {
        place p;
        fill(t, 0, 2);
        place_open(&p, widths[i / 2], i % 2 ? ALL : MIXED);
        turn(&p, "alice", t, 2500, 2560);
        turn(&p, "alice", t, 4200, 5000);
        reopen(&p);
        memcpy(u, t, sizeof u);
        fill(u, 4200, 3); /* the same prompt, another answer */
        am_turn_info info = turn(&p, "alice", u, 4200, 5100);
        assert_int_equal(info.n_cached, 4199 / 256 * 256);
        assert_int_equal(info.miss, AM_MISS_NONE);
        reopen(&p);
        memcpy(t, u, sizeof t);
        fill(t, 2570, 4); /* another message */
        info = turn(&p, "alice", t, 3000, 3100);
        assert_int_equal(info.n_cached, 2560);
        assert_int_equal(info.miss, AM_MISS_TOKENS_DIFFER);
        assert_int_equal(info.miss_at, 2570);
        place_close(&p);
    }
}

/* The story of docs/DESIGN.md: A alone, B pays once, C and whoever comes later does not. */
static void a_shared_prompt_is_computed_once_more_and_then_kept(void **state) {
    (void)state;
    enum { SHARED = 4096 };
    static int32_t t[4][N_CTX];
    for (uint32_t i = 0; i < 2 * N_WIDTHS; i++) {
        place p;
        char text[64], wanted[64];
        uint32_t window = widths[i / 2], windowed = i % 2 ? ALL : MIXED;
        place_open(&p, window, windowed);
        for (uint32_t k = 0; k < 4; k++) {
            fill(t[k], 0, 5);
            fill(t[k], SHARED + 1, 6 + k);
        }
        turn(&p, "A", t[0], 7600, 8100);
        turn(&p, "A", t[0], 8150, 8160);
        am_turn_info info = turn(&p, "B", t[1], 5500, 5600);
        am_miss_text(&info, text);
        uint32_t redone = info.miss == AM_MISS_WINDOW ? info.miss_at : 0;
        snprintf(wanted, sizeof wanted, redone ? "window_gone:%u" : "", redone);
        assert_string_equal(text, wanted);
        assert_int_equal(info.n_cached + redone, SHARED);
        if (window < 4000 - 256) assert_int_equal(redone, SHARED);
        info = turn(&p, "B", t[1], 7600, 7700); /* B goes on, and leaves the place */
        assert_int_equal(info.n_cached, 5600);
        info = turn(&p, "C", t[2], 4700, 4710);
        assert_int_equal(info.n_cached, SHARED);
        assert_int_equal(info.miss, AM_MISS_NONE);
        assert_int_not_equal(info.tier, AM_COLD);
        reopen(&p);
        turn(&p, "B", t[1], 7710, 7720); /* heads are written again from what was read */
        turn(&p, "C", t[2], 7800, 7810);
        reopen(&p);
        assert_int_equal(am_cache_rm(p.cache, &nobody, AM_STR("B"), NULL), AM_OK);
        info = turn(&p, "D", t[3], 4700, 4710);
        assert_int_equal(info.n_cached, SHARED);
        assert_int_equal(info.tier, AM_WARM);
        assert_int_equal(am_cache_rm(p.cache, &nobody, AM_STR("A"), NULL), AM_OK);
        assert_int_equal(am_cache_rm(p.cache, &nobody, AM_STR("C"), NULL), AM_OK);
        assert_int_equal(am_cache_rm(p.cache, &nobody, AM_STR("D"), NULL), AM_OK);
        files f = files_of(&p);
        assert_int_equal(f.n[0] + f.n[1] + f.n[2], 0);
        place_close(&p);
    }
}

static void a_long_turn_needs_few_window_parts(void **state) {
    (void)state;
    static int32_t t[N_CTX];
    fill(t, 0, 9);
    for (uint32_t i = 0; i < 2 * N_WIDTHS; i++) {
        place p;
        am_error err = {0};
        place_open(&p, widths[i / 2], i % 2 ? ALL : MIXED);
        am_cache_close(p.cache);
        p.cache = NULL;
        p.options.memory_bytes = am_cache_least_bytes(&p.layout, N_CTX) - 1;
        assert_int_equal(am_cache_open(&p.options, &p.cache, &err), AM_ELIMIT);
        p.options.memory_bytes++;
        reopen(&p);
        am_turn_info info = turn(&p, "alice", t, 6000, N_CTX - 8); /* every place a turn can keep, in the least memory */
        assert_int_equal(info.tier, AM_COLD);
        am_agent_info a;
        assert_int_equal(am_cache_agent(p.cache, &nobody, AM_STR("alice"), &a), AM_OK);
        assert_true(a.memory_bytes >= am_cache_agent_bytes(&p.layout, N_CTX - 8));
        assert_int_equal(am_cache_flush(p.cache, NULL), AM_OK);
        am_cache_evict(p.cache, NULL, (am_str){0}, NULL);
        am_cache_agent(p.cache, &nobody, AM_STR("alice"), &a);
        assert_int_equal(a.memory_bytes, 0);
        am_turn_request r = {.tenant = &nobody, .agent = AM_STR("alice"), .tokens = t, .n_tokens = N_CTX - 4, .n_max_new = 2};
        am_turn *open = canary_open(p.cache, &r);
        assert_int_equal(am_turn_info_of(open)->n_cached, N_CTX - 8);
        am_turn_abort(open);
        am_cache_agent(p.cache, &nobody, AM_STR("alice"), &a);
        assert_int_equal(a.memory_bytes, am_cache_agent_bytes(&p.layout, (N_CTX - 8) / 256 * 256)); /* what `show` says; rows are in the file */
        place_close(&p);
    }
}

static am_status remove_some(void *arg, const char *name) {
    place *p = arg;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", p->dir, name);
    if (name[0] == 'w' && strstr(name, ".safetensors") && !strchr(name, '~')) assert_int_equal(unlink(path), 0);
    return AM_OK;
}

static void without_its_window_files_an_agent_is_computed_again(void **state) {
    (void)state;
    static int32_t t[N_CTX];
    fill(t, 0, 10);
    for (int when = 0; when < 3; when++) {
        place p;
        place_open(&p, 600, MIXED);
        turn(&p, "alice", t, 2000, 2100);
        assert_true(files_of(&p).n[1] > 0);
        if (when == 0) reopen(&p); /* gone before they are listed, while it runs, or after they are known */
        if (when == 1) assert_int_equal(am_cache_flush(p.cache, NULL), AM_OK), am_cache_evict(p.cache, NULL, (am_str){0}, NULL);
        if (when == 2) am_cache_close(p.cache);
        am_fs_list(p.dir, remove_some, &p, NULL);
        if (when == 2) p.cache = NULL, reopen(&p);
        am_turn_info info = turn(&p, "alice", t, 2200, 2210);
        assert_int_equal(info.n_cached, 0);
        assert_int_equal(info.miss, when == 2 ? AM_MISS_WINDOW : AM_MISS_EVICTED);
        assert_int_equal(files_of(&p).n[1], blocks_seen(600, (uint32_t[]){2210 / 256}, 1)); /* all places are in one block now */
        reopen(&p);
        assert_int_equal(turn(&p, "alice", t, 2220, 2230).n_cached, 2210);
        place_close(&p);
    }
}

/* A disk that answers when the test wants it, or only after a while. */
enum { OPEN, CLOSED, BROKEN };
static atomic_int gate;

static ssize_t gated_pread(int fd, void *bytes, size_t n, off_t at) {
    while (atomic_load(&gate) == CLOSED) usleep(200);
    return atomic_load(&gate) == BROKEN ? -EIO : am_io_system.pread(fd, bytes, n, at);
}

/* One read in eight takes its time; while the disk fails, one call in so many is refused. */
static atomic_uint n_reads, n_writes, fail_reads, fail_writes;

static bool fails(atomic_uint *n_calls, atomic_uint *one_in) {
    uint32_t n = atomic_fetch_add(n_calls, 1), every = atomic_load(one_in);
    return every && (n * 2654435761u >> 16) % every == 0;
}

static ssize_t slow_pread(int fd, void *bytes, size_t n, off_t at) {
    if (fails(&n_reads, &fail_reads)) return -EIO;
    if (atomic_load(&n_reads) % 8 == 0) usleep(500);
    return am_io_system.pread(fd, bytes, n, at);
}

static ssize_t full_pwrite(int fd, const void *bytes, size_t n, off_t at) {
    return fails(&n_writes, &fail_writes) ? -ENOSPC : am_io_system.pwrite(fd, bytes, n, at);
}

static void use_pread(ssize_t (*pread)(int fd, void *bytes, size_t n, off_t at)) {
    static am_io_ops ops;
    ops = am_io_system;
    ops.pread = pread;
    ops.pwrite = full_pwrite;
    am_io = &ops;
}

/* While a turn waits for the disk, another that reuses nothing computes the same blocks, and lets go of them. The reader has not a unit to spare. */
static void what_is_being_read_may_be_computed_meanwhile(void **state) {
    (void)state;
    static int32_t t[N_CTX];
    fill(t, 0, 7);
    use_pread(gated_pread);
    for (int order = 0; order < 10; order++) {
        bool overtaken = order & 1, overtaker_ends = order & 2, reader_ends = order & 4, broken = order >= 8;
        place p;
        place_open(&p, 600, order % 3 ? MIXED : ALL);
        turn(&p, "alice", t, 2000, 2059);
        assert_int_equal(am_cache_flush(p.cache, NULL), AM_OK);
        am_cache_evict(p.cache, NULL, (am_str){0}, NULL);
        am_turn *reader, *overtaker;
        am_turn_request read = {.tenant = &nobody, .agent = AM_STR("alice"), .tokens = t, .n_tokens = 2058, .ephemeral = true};
        am_turn_request compute = {.tenant = &nobody, .agent = AM_STR("bob"), .tokens = t, .n_tokens = 2000, .n_max_new = 1000, .no_reuse = true};
        atomic_store(&gate, CLOSED);
        assert_int_equal(am_turn_open(p.cache, &read, &reader, NULL), AM_OK);
        assert_int_equal(am_turn_open(p.cache, &compute, &overtaker, NULL), AM_OK);
        assert_int_equal(am_turn_ready(reader), AM_AGAIN);
        assert_int_equal(am_turn_ready(overtaker), AM_OK);
        canary_extend(p.cache, overtaker, &p.layout, "", t, overtaken ? 2800 : 2059);
        cache_check(p.cache);
        if (reader_ends) am_turn_abort(reader);
        if (overtaker_ends) am_turn_commit(overtaker, NULL, 0, NULL, NULL);
        else canary_extend(p.cache, overtaker, &p.layout, "", t, 3000);
        cache_check(p.cache);
        atomic_store(&gate, broken ? BROKEN : OPEN);
        if (!reader_ends) {
            while (am_turn_ready(reader) == AM_AGAIN) am_cache_poll(p.cache);
            cache_check(p.cache);
            if (!broken) assert_int_equal(am_turn_n_past(reader), 2057);
            canary_check(reader, &p.layout, "", t);
            canary_extend(p.cache, reader, &p.layout, "", t, 2058);
            canary_check(reader, &p.layout, "", t);
            am_turn_abort(reader);
        }
        if (!overtaker_ends) {
            canary_check(overtaker, &p.layout, "", t);
            am_turn_abort(overtaker);
        }
        atomic_store(&gate, OPEN);
        am_cache_flush(p.cache, NULL);
        am_cache_trim(p.cache, true);
        am_cache_stats s;
        am_cache_stats_get(p.cache, &s);
        assert_int_equal(s.n_sealed_used, 0);
        place_close(&p);
    }
    am_io = &am_io_system;
}

/* Turns of several agents side by side, at random, in a pool that holds little more than one. */
enum { AGENTS = 8, RUNNING = 3, N_STEPS = 800 };

typedef struct running {
    am_turn *turn;
    uint32_t agent, n_prompt, n_most;
    bool ready;
    int32_t tokens[N_CTX];
} running;

typedef struct play {
    place p;
    unsigned seed;
    running run[RUNNING];
    int32_t history[AGENTS][N_CTX];
    uint32_t n[AGENTS], n_of_tier[3], n_window_misses, n_failures;
    bool faults; /* disk and memory fail now and then */
} play;

static uint32_t dice(play *g, uint32_t sides) { return (uint32_t)rand_r(&g->seed) % sides; }

static void agent_name(uint32_t a, char name[16]) { snprintf(name, 16, "r%u", a); }

/* Continues its history, goes back in it, or leaves another's somewhere. */
static void begin(play *g, running *r) {
    uint32_t a = r->agent = dice(g, AGENTS), from = dice(g, 3) ? a : dice(g, AGENTS), keep = dice(g, 3) ? g->n[from] : dice(g, g->n[from] + 1);
    char name[16];
    if (keep > N_CTX - 2000) keep = dice(g, 3000);
    memcpy(r->tokens, g->history[from], keep * sizeof *r->tokens);
    for (uint32_t i = keep; i < N_CTX; i++) r->tokens[i] = (int32_t)dice(g, 1 << 16);
    r->n_prompt = keep + 1 + dice(g, dice(g, 4) ? 200 : 1200);
    r->n_most = r->n_prompt + dice(g, 600);
    agent_name(a, name);
    am_turn_request q = {.tenant = &nobody, .agent = am_str_of(name), .tokens = r->tokens, .n_tokens = r->n_prompt, .n_max_new = r->n_most - r->n_prompt + 8,
                         .ephemeral = dice(g, 8) == 0, .no_reuse = dice(g, 12) == 0};
    if (dice(g, 10) == 0) q.agent = (am_str){0};
    am_error err = {0};
    am_status status = am_turn_open(g->p.cache, &q, &r->turn, &err);
    bool alone = true;
    for (int i = 0; i < RUNNING; i++) alone &= !g->run[i].turn || &g->run[i] == r;
    if (status == AM_AGAIN && alone) { /* what was being written can go now, and nothing else is in the way */
        am_cache_flush(g->p.cache, NULL);
        status = am_turn_open(g->p.cache, &q, &r->turn, &err);
    }
    g->n_failures += status == AM_ENOMEM;
    if (status == AM_ENOMEM && g->faults) return;
    if (status && (status != AM_AGAIN || alone)) fail_msg("%s", err.message);
    r->ready = false;
}

static void end(play *g, running *r, bool commit) {
    const am_turn_info *info = am_turn_info_of(r->turn);
    uint32_t n = am_turn_n_past(r->turn), a = AGENTS;
    if (sscanf(info->agent, "r%u", &a) == 1 && commit && r->ready) {
        memcpy(g->history[a], r->tokens, n * sizeof *r->tokens);
        g->n[a] = n;
    }
    if (commit && r->ready)
        am_turn_commit(r->turn, NULL, 0, NULL, NULL);
    else
        am_turn_abort(r->turn);
    r->turn = NULL;
}

static void go_on(play *g, running *r) {
    if (!r->ready) {
        if (am_turn_ready(r->turn) == AM_AGAIN) return;
        const am_turn_info *info = am_turn_info_of(r->turn);
        r->ready = true;
        g->n_of_tier[info->tier]++;
        g->n_window_misses += info->miss == AM_MISS_WINDOW;
    }
    uint32_t n = am_turn_n_past(r->turn) + 1 + dice(g, 700);
    canary_check(r->turn, &g->p.layout, "", r->tokens);
    canary_extend(g->p.cache, r->turn, &g->p.layout, "", r->tokens, n < r->n_most ? n : r->n_most);
    canary_check(r->turn, &g->p.layout, "", r->tokens);
    if (am_turn_n_past(r->turn) >= r->n_most) end(g, r, true);
}

static void remove_a_file(play *g) {
    char command[256];
    snprintf(command, sizeof command, "ls %s | grep safetensors$ | shuf -n 2 --random-source=<(yes %u) | (cd %s && xargs -r rm -f)", g->p.dir, dice(g, 1 << 20), g->p.dir);
    char bash[400];
    snprintf(bash, sizeof bash, "bash -c '%s'", command);
    assert_int_equal(system(bash), 0);
}

static void all_end(play *g) {
    for (int i = 0; i < RUNNING; i++)
        if (g->run[i].turn) end(g, &g->run[i], dice(g, 2));
}

/* Everything works again, and what was not written is. */
static void mend(play *g) {
    am_fault_alloc_at(0);
    atomic_store(&fail_reads, 0);
    atomic_store(&fail_writes, 0);
    am_cache_flush(g->p.cache, NULL); /* writes that were under way may fail once more */
    assert_int_equal(am_cache_flush(g->p.cache, NULL), AM_OK);
}

static void break_something(play *g) {
    static const uint32_t one_in[] = {0, 2, 3, 5, 30};
    uint32_t what = dice(g, 8);
    if (what == 0) mend(g);
    else if (what < 3) am_fault_alloc_at(1 + dice(g, 60));
    else atomic_store(what < 5 ? &fail_reads : &fail_writes, one_in[dice(g, 5)]);
}

static void what_else(play *g) {
    uint32_t a = dice(g, AGENTS), what = dice(g, 10);
    char name[16], other[16];
    am_agent_info info;
    agent_name(a, name);
    agent_name(dice(g, AGENTS), other);
    if (what < 3) am_cache_evict(g->p.cache, &nobody, what ? am_str_of(name) : (am_str){0}, NULL);
    if (what == 3 && am_cache_rm(g->p.cache, &nobody, am_str_of(name), NULL) == AM_OK) g->n[a] = 0;
    if (what == 4) am_cache_trim(g->p.cache, dice(g, 2));
    if (what == 5 || what == 6) remove_a_file(g);
    if (what == 7) am_cache_fork(g->p.cache, &nobody, am_str_of(name), am_str_of(other), NULL);
    if (what == 8) {
        all_end(g);
        mend(g);
        reopen(&g->p);
    }
    for (a = 0; a < AGENTS; a++) { /* a head may be gone, or be a fork of another's */
        agent_name(a, name);
        const int32_t *tokens;
        if (am_cache_agent(g->p.cache, &nobody, am_str_of(name), &info)) g->n[a] = 0;
        else if (am_cache_tokens(g->p.cache, &nobody, am_str_of(name), &tokens, &g->n[a]) == AM_OK) memcpy(g->history[a], tokens, g->n[a] * sizeof *tokens);
    }
}

static void play_one(uint32_t window, uint32_t windowed, uint64_t disk_bytes, unsigned seed, bool faults, uint32_t n_of_tier[3]) {
    play *g = calloc(1, sizeof *g);
    g->seed = seed;
    g->faults = faults;
    place_open(&g->p, window, windowed);
    g->p.options.memory_bytes = am_cache_least_bytes(&g->p.layout, N_CTX) * 5 / 4 + 4 * g->p.layout.open_bytes;
    g->p.options.disk_bytes = disk_bytes;
    reopen(&g->p);
    for (uint32_t step = 0; step < N_STEPS; step++) {
        running *r = &g->run[dice(g, RUNNING)];
        if (!r->turn) begin(g, r);
        else if (dice(g, 25) == 0) end(g, r, false);
        else go_on(g, r);
        if (dice(g, 12) == 0) what_else(g);
        if (faults && dice(g, 12) == 0) break_something(g);
        am_cache_poll(g->p.cache);
        cache_check(g->p.cache);
    }
    all_end(g);
    cache_check(g->p.cache);
    mend(g);
    am_cache_trim(g->p.cache, true);
    am_cache_stats s;
    am_cache_stats_get(g->p.cache, &s);
    assert_int_equal(s.n_sealed_used, 0);
    assert_int_equal(s.n_open_used, 0);
    assert_int_equal(s.n_refused, 0);
    print_message("window %u of layers %x: %u cold, %u warm, %u hot, %u computed for want of a window part, %u writes and %u allocations failed\n", window, windowed,
                  g->n_of_tier[AM_COLD], g->n_of_tier[AM_WARM], g->n_of_tier[AM_HOT], g->n_window_misses, (unsigned)s.n_write_failures, g->n_failures);
    for (int i = 0; i < 3; i++) n_of_tier[i] += g->n_of_tier[i];
    uint32_t n_busy;
    am_cache_clear(g->p.cache, NULL, &n_busy);
    reopen(&g->p);
    files f = files_of(&g->p);
    assert_int_equal(f.n[0] + f.n[1] + f.n[2], 0);
    place_close(&g->p);
    free(g);
}

static void play_all(bool faults) {
    const char *more = getenv("AM_TEST_ROUNDS"), *seed = getenv("AM_TEST_SEED");
    uint32_t n_rounds = more ? (uint32_t)atoi(more) : 1, n_of_tier[3] = {0};
    use_pread(slow_pread);
    for (uint32_t round = 0; round < n_rounds; round++)
        for (uint32_t i = 0; i < 6; i++) {
            static const uint32_t some[] = {100, 256, 300, 600, 1000, 1500};
            play_one(some[i], i % 2 ? ALL : MIXED, i == 2 ? 1 << 20 : 0, (seed ? (unsigned)atoi(seed) : 1) + 100 * round + i, faults, n_of_tier);
            play_one(some[i], i % 2 ? MIXED : ALL, 0, (seed ? (unsigned)atoi(seed) : 1) + 100 * round + i + 50, faults, n_of_tier);
        }
    for (int i = 0; i < 3; i++) assert_true(n_of_tier[i] > 0);
    am_io = &am_io_system;
}

static void random_schedules_never_show_a_wrong_row(void **state) {
    (void)state;
    play_all(false);
}

static void nor_do_they_while_disk_and_memory_fail(void **state) {
    (void)state;
    play_all(true);
}

int main(void) {
    am_log_setup(AM_LOG_OFF, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_can_be_reached_is_kept),
        cmocka_unit_test(the_last_answer_and_the_last_message_can_be_had_again),
        cmocka_unit_test(a_shared_prompt_is_computed_once_more_and_then_kept),
        cmocka_unit_test(a_long_turn_needs_few_window_parts),
        cmocka_unit_test(without_its_window_files_an_agent_is_computed_again),
        cmocka_unit_test(what_is_being_read_may_be_computed_meanwhile),
        cmocka_unit_test(random_schedules_never_show_a_wrong_row),
        cmocka_unit_test(nor_do_they_while_disk_and_memory_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
