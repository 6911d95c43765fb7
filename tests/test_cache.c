/* cache/: turns, reuse in every tier, restart, eviction, damage, tenants, agents. No model: rows are canaries (tests/canary.h). */
#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "canary.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { N_CTX = 4096 };
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
}

static int setup(void **state) {
    place *p = calloc(1, sizeof *p);
    strcpy(p->root, "/tmp/am_cache_XXXXXX");
    assert_non_null(mkdtemp(p->root));
    snprintf(p->dir, sizeof p->dir, "%s/caches", p->root);
    p->layout = canary_layout(4);
    p->options = (am_cache_options){.dir = p->dir,
                                    .model_name = "canary",
                                    .layout = p->layout,
                                    .kernels = *am_kernels_list(),
                                    .memory_bytes = 4 * p->layout.open_bytes * 4 + 40 * p->layout.sealed_bytes,
                                    .n_turns = 4,
                                    .n_ctx = N_CTX};
    reopen(p);
    *state = p;
    return 0;
}

static int teardown(void **state) {
    place *p = *state;
    am_io = &am_io_system;
    am_cache_close(p->cache);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", p->root);
    int r = system(command);
    free(p);
    return r;
}

/* Token streams that share nothing but what the seed shares. */
static int32_t *stream(uint32_t seed) {
    static int32_t tokens[8][N_CTX];
    static int at;
    int32_t *t = tokens[at++ % 8];
    for (uint32_t i = 0; i < N_CTX; i++) t[i] = (int32_t)((seed * 2654435761u + i * 40503u) >> 8 & 0xffff);
    return t;
}

static am_turn_info turn(place *p, const char *agent, const int32_t *tokens, uint32_t n_prompt, uint32_t n) {
    am_turn_request r = {.tenant = &nobody, .agent = am_str_of(agent), .tokens = tokens, .n_tokens = n_prompt, .n_max_new = n - n_prompt + 8};
    return canary_turn(p->cache, &p->layout, &r, tokens, n);
}

static void a_second_turn_is_hot(void **state) {
    place *p = *state;
    int32_t *t = stream(1);
    am_turn_info i = turn(p, "alice", t, 1000, 1040);
    assert_int_equal(i.tier, AM_COLD);
    assert_int_equal(i.miss, AM_MISS_NEW_AGENT);
    i = turn(p, "alice", t, 1100, 1110);
    assert_int_equal(i.tier, AM_HOT);
    assert_int_equal(i.n_cached, 1040);
    assert_int_equal(i.miss, AM_MISS_NONE);
}

static void after_a_restart_it_is_warm_with_every_row(void **state) {
    place *p = *state;
    int32_t *t = stream(2);
    turn(p, "a/b c\xc3\xa4", t, 700, 790);
    reopen(p);
    canary_drop_pages(p->dir);
    am_turn_info i = turn(p, "a/b c\xc3\xa4", t, 800, 810);
    assert_int_equal(i.tier, AM_WARM);
    assert_int_equal(i.n_cached, 790);
    assert_int_equal(i.miss, AM_MISS_NONE);
}

static void a_prompt_that_leaves_the_history_says_where(void **state) {
    place *p = *state;
    int32_t *t = stream(3);
    turn(p, "alice", t, 600, 620);
    int32_t *u = stream(4);
    memcpy(u, t, 530 * sizeof *t);
    u[530] = t[530] + 1;
    am_turn_info i = turn(p, "alice", u, 650, 660);
    assert_int_equal(i.n_cached, 530);
    assert_int_equal(i.miss, AM_MISS_TOKENS_DIFFER);
    assert_int_equal(i.miss_at, 530);
    char text[64];
    am_miss_text(&i, text);
    assert_string_equal(text, "tokens_differ_at:530");
}

static void without_a_name_the_longest_prefix_is_continued(void **state) {
    place *p = *state;
    int32_t *t = stream(5);
    turn(p, "short", t, 100, 120);
    turn(p, "long", t, 300, 330);
    am_turn_info i = turn(p, "", t, 400, 410);
    assert_string_equal(i.agent, "long");
    assert_int_equal(i.n_cached, 330);
    int32_t *u = stream(6);
    i = turn(p, "", u, 400, 410);
    assert_true(i.new_agent);
    assert_int_equal(strncmp(i.agent, "agent-", 6), 0);
}

static void agents_share_blocks_and_rows_of_a_common_prefix(void **state) {
    place *p = *state;
    int32_t *t = stream(7);
    turn(p, "one", t, 600, 600);
    am_turn_info i = turn(p, "two", t, 600, 610);
    assert_int_equal(i.n_cached, 599);
    assert_int_equal(i.miss, AM_MISS_NONE);
    am_cache_stats s;
    am_cache_stats_get(p->cache, &s);
    assert_int_equal(s.n_blocks_disk, 2);
}

static void ten_agents_in_a_pool_for_two_stay_warm(void **state) {
    place *p = *state;
    p->options.memory_bytes = 5 * p->layout.open_bytes + 20 * p->layout.sealed_bytes;
    reopen(p);
    for (uint32_t round = 0; round < 4; round++)
        for (uint32_t a = 0; a < 10; a++) {
            char name[16];
            snprintf(name, sizeof name, "agent%u", a);
            am_turn_info i = turn(p, name, stream(100 + a), 1800 + round * 100, 1880 + round * 100);
            assert_int_equal(i.n_cached, round ? 1780 + round * 100 : 0);
            if (round) assert_int_equal(i.miss, AM_MISS_NONE);
        }
}

static void tenants_never_meet(void **state) {
    place *p = *state;
    int32_t *t = stream(8);
    am_tenant a = {"a", {1}}, b = {"b", {2}};
    am_turn_request r = {.tenant = &a, .agent = AM_STR("same"), .tokens = t, .n_tokens = 600, .n_max_new = 8};
    canary_turn(p->cache, &p->layout, &r, t, 600);
    r.tenant = &b;
    am_turn_info i = canary_turn(p->cache, &p->layout, &r, t, 600);
    assert_int_equal(i.n_cached, 0);
    r.agent = AM_STR("");
    i = canary_turn(p->cache, &p->layout, &r, t, 600);
    assert_int_equal(i.n_cached, 599); /* of b itself */
    reopen(p);
    r.tenant = &nobody;
    assert_int_equal(canary_turn(p->cache, &p->layout, &r, t, 600).n_cached, 0);
}

static void an_aborted_turn_leaves_the_head(void **state) {
    place *p = *state;
    int32_t *t = stream(9);
    turn(p, "alice", t, 300, 310);
    am_turn_request r = {.tenant = &nobody, .agent = AM_STR("alice"), .tokens = t, .n_tokens = 700, .n_max_new = 8};
    am_turn *open = canary_open(p->cache, &r);
    canary_extend(p->cache, open, &p->layout, "", t, 650);
    am_turn_abort(open);
    am_agent_info info;
    assert_int_equal(am_cache_agent(p->cache, &nobody, AM_STR("alice"), &info), AM_OK);
    assert_int_equal(info.n_tokens, 310);
    assert_int_equal(turn(p, "alice", t, 700, 710).n_cached, 512); /* blocks it sealed are true and stay */
}

static void a_turn_that_can_never_fit_is_refused(void **state) {
    place *p = *state;
    int32_t *t = stream(10);
    am_turn_request r = {.tenant = &nobody, .agent = AM_STR("x"), .tokens = t, .n_tokens = 4000, .n_max_new = 1000};
    am_turn *open;
    am_error err = {0};
    assert_int_equal(am_turn_open(p->cache, &r, &open, &err), AM_EINVAL);
    r.n_max_new = 10;
    am_turn *first = canary_open(p->cache, &r), *second = canary_open(p->cache, &r);
    am_status status;
    am_turn *more[8];
    int n = 0;
    while ((status = am_turn_open(p->cache, &r, &more[n], &err)) == AM_OK) n++;
    assert_int_equal(status, AM_AGAIN);
    am_turn_abort(first);
    am_turn_abort(second);
    while (n) am_turn_abort(more[--n]);
    am_cache_stats s;
    am_cache_stats_get(p->cache, &s);
    assert_int_equal(s.n_open_used, 0);
    assert_int_equal(s.n_sealed_used, 0);
}

static am_status flip_name(void *arg, const char *name) {
    char **list = arg;
    for (int i = 0; i < 16; i++)
        if (!list[i]) {
            if (strstr(name, ".safetensors")) list[i] = strdup(name);
            break;
        }
    return AM_OK;
}

static void damage_is_found_before_use(void **state) {
    place *p = *state;
    int32_t *t = stream(11);
    turn(p, "alice", t, 600, 700);
    reopen(p);
    char *names[16] = {0};
    am_fs_list(p->dir, flip_name, names, NULL);
    for (int i = 0; i < 16 && names[i]; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", p->dir, names[i]);
        am_buf whole;
        am_buf_init(&whole, 1 << 24);
        assert_int_equal(am_fs_read_file(path, &whole, 1 << 24, NULL), AM_OK);
        size_t step = whole.n > 20000 ? whole.n / 37 : names[i][0] == 'b' ? 211 : 97;
        for (size_t at = 0; at < whole.n; at += step) {
            am_cache_close(p->cache);
            p->cache = NULL;
            whole.p[at] ^= (char)(1 << at % 8);
            assert_int_equal(am_fs_write_atomic(p->dir, "x.tmp", names[i], &(am_str){whole.p, whole.n}, 1, false, NULL), AM_OK);
            whole.p[at] ^= (char)(1 << at % 8);
            reopen(p);
            am_turn_request r = {.tenant = &nobody, .agent = AM_STR("alice"), .tokens = t, .n_tokens = 750, .n_max_new = 8};
            am_turn *open = canary_open(p->cache, &r);
            am_turn_info info = *am_turn_info_of(open);
            canary_check(open, &p->layout, "", t);
            assert_true(info.n_cached < 700);
            am_turn_abort(open);
            am_cache_stats s;
            am_cache_stats_get(p->cache, &s);
            assert_int_equal(s.n_refused, 1);
            turn(p, "alice", t, 690, 700); /* computed again and written again */
            assert_int_equal(am_cache_flush(p->cache, NULL), AM_OK);
            assert_int_equal(am_fs_read_file(path, &whole, 1 << 24, NULL), AM_OK);
        }
        am_buf_free(&whole);
        free(names[i]);
    }
}

static void files_may_vanish_while_running(void **state) {
    place *p = *state;
    int32_t *t = stream(12);
    turn(p, "alice", t, 900, 950);
    assert_int_equal(am_cache_flush(p->cache, NULL), AM_OK);
    assert_int_equal(am_cache_evict(p->cache, NULL, AM_STR(""), NULL), AM_OK);
    char command[160];
    snprintf(command, sizeof command, "rm -rf %s/*.safetensors", p->dir);
    assert_int_equal(system(command), 0);
    am_turn_info i = turn(p, "alice", t, 1000, 1010);
    assert_int_equal(i.n_cached, 0);
    assert_int_equal(i.miss, AM_MISS_EVICTED);
    reopen(p);
    assert_int_equal(turn(p, "alice", t, 1100, 1110).n_cached, 1010);
}

static void things_in_a_files_place_are_refused(void **state) {
    place *p = *state;
    int32_t *t = stream(13);
    turn(p, "alice", t, 300, 310);
    reopen(p);
    char *names[16] = {0}, command[1024];
    am_fs_list(p->dir, flip_name, names, NULL);
    for (int i = 0; i < 16 && names[i]; i++) {
        const char *how[] = {"mkdir", "mkfifo", "ln -s /etc/passwd", "cp /dev/null", "cp /bin/true"};
        for (size_t h = 0; h < sizeof how / sizeof *how; h++) {
            assert_int_equal(am_cache_flush(p->cache, NULL), AM_OK);
            am_cache_close(p->cache);
            p->cache = NULL;
            snprintf(command, sizeof command, "rm -rf %s/%s; %s %s/%s", p->dir, names[i], how[h], p->dir, names[i]);
            assert_int_equal(system(command), 0);
            reopen(p);
            am_turn_info info = turn(p, "alice", t, 320, 330);
            assert_true(info.n_cached < 310);
            am_cache_stats s;
            am_cache_stats_get(p->cache, &s);
            assert_int_equal(s.n_refused, 1);
        }
        free(names[i]);
    }
}

static int write_errno;
static ssize_t failing_pwrite(int fd, const void *b, size_t n, off_t at) {
    return write_errno ? -write_errno : am_io_system.pwrite(fd, b, n > 1000 ? 1000 : n, at);
}

static void a_full_disk_costs_nothing_but_durability(void **state) {
    place *p = *state;
    int32_t *t = stream(14);
    am_io_ops full = am_io_system;
    full.pwrite = failing_pwrite;
    am_io = &full;
    write_errno = ENOSPC;
    turn(p, "alice", t, 900, 950);
    am_turn_info i = turn(p, "alice", t, 1000, 1010);
    assert_int_equal(i.n_cached, 950);
    am_error err = {0};
    assert_int_equal(am_cache_flush(p->cache, &err), AM_EIO);
    for (uint32_t a = 0; a < 12; a++) { /* more than the pool holds: the oldest go, nothing hangs */
        char name[16];
        snprintf(name, sizeof name, "a%u", a);
        turn(p, name, stream(200 + a), 1500, 1510);
    }
    write_errno = 0;
    assert_int_equal(am_cache_flush(p->cache, &err), AM_OK);
    reopen(p);
    am_agent_info info;
    assert_int_equal(am_cache_agent(p->cache, &nobody, AM_STR("a11"), &info), AM_OK);
    assert_int_equal(info.n_tokens, 1510);
}

/* Rows that are in memory alone may have to make room on a full disk; the turn that misses them says so. */
static void rows_that_could_not_be_written_are_missed_aloud(void **state) {
    place *p = *state;
    char name[16];
    int32_t t[N_CTX];
    am_cache_stats s;
    am_cache_stats_get(p->cache, &s);
    memcpy(t, stream(21), sizeof t);
    am_io_ops full = am_io_system;
    full.pwrite = failing_pwrite;
    am_io = &full;
    write_errno = ENOSPC;
    turn(p, "bob", t, 300, 310);
    am_turn_info i = turn(p, "bob", t, 320, 330);
    assert_int_equal(i.n_cached, 310);
    assert_int_equal(i.miss, AM_MISS_NONE);
    for (uint32_t a = 0; a < s.n_open_slots; a++) {
        snprintf(name, sizeof name, "other%u", a);
        turn(p, name, stream(500 + a), 20, 30);
    }
    i = turn(p, "bob", t, 340, 350);
    assert_int_equal(i.n_cached, 256);
    assert_int_equal(i.miss, AM_MISS_EVICTED);
    write_errno = 0;
}

static am_status count_files(void *arg, const char *name) {
    *(int *)arg += strstr(name, ".safetensors") != NULL;
    return AM_OK;
}

static void rm_takes_only_what_was_its_own(void **state) {
    place *p = *state;
    int32_t *t = stream(15);
    turn(p, "one", t, 300, 300);
    turn(p, "two", t, 800, 810);
    assert_int_equal(am_cache_flush(p->cache, NULL), AM_OK);
    am_error err = {0};
    assert_int_equal(am_cache_rm(p->cache, &nobody, AM_STR("two"), &err), AM_OK);
    assert_int_equal(am_cache_rm(p->cache, &nobody, AM_STR("two"), &err), AM_ENOTFOUND);
    int n = 0;
    am_fs_list(p->dir, count_files, &n, NULL);
    assert_int_equal(n, 2); /* one's head and the block both had */
    assert_int_equal(turn(p, "one", t, 320, 330).n_cached, 300);
}

static void a_fork_continues_on_its_own(void **state) {
    place *p = *state;
    int32_t *t = stream(16), *u = stream(17);
    turn(p, "one", t, 600, 650);
    am_error err = {0};
    assert_int_equal(am_cache_fork(p->cache, &nobody, AM_STR("one"), AM_STR("two"), &err), AM_OK);
    assert_int_equal(am_cache_fork(p->cache, &nobody, AM_STR("one"), AM_STR("two"), &err), AM_EEXIST);
    memcpy(u, t, 650 * sizeof *t);
    am_turn_info i = turn(p, "two", u, 700, 710);
    assert_int_equal(i.n_cached, 650);
    assert_int_equal(turn(p, "one", t, 700, 710).n_cached, 650);
    reopen(p);
    assert_int_equal(turn(p, "two", u, 800, 810).n_cached, 710);
}

static void another_model_is_another_head(void **state) {
    place *p = *state;
    int32_t *t = stream(18);
    turn(p, "alice", t, 300, 310);
    p->options.model_fingerprint[0] = 1;
    reopen(p);
    am_turn_info i = turn(p, "alice", t, 320, 330);
    assert_int_equal(i.n_cached, 0);
    assert_int_equal(i.miss, AM_MISS_MODEL_CHANGED);
    p->options.model_fingerprint[0] = 0;
    reopen(p);
    assert_int_equal(turn(p, "alice", t, 320, 330).n_cached, 310);
}

static void bytes_written_are_the_new_blocks_and_the_head(void **state) {
    place *p = *state;
    int32_t *t = stream(19);
    turn(p, "alice", t, 2000, 2048);
    am_cache_flush(p->cache, NULL);
    am_cache_stats before, after;
    am_cache_stats_get(p->cache, &before);
    turn(p, "alice", t, 2100, 2400);
    am_cache_flush(p->cache, NULL);
    am_cache_stats_get(p->cache, &after);
    size_t head = am_kv_rows_bytes(&p->layout, 2400 % 256) + 2400 * 4 + 9 * 32 + 2048;
    assert_true(after.bytes_written - before.bytes_written <= p->layout.sealed_bytes * 11 / 10 + head + 2048);
}

static void the_folder_has_one_master(void **state) {
    place *p = *state;
    int fd, other;
    am_error err = {0};
    assert_int_equal(am_cache_lock_dir(p->root, "serve 127.0.0.1:8000", 0, &fd, &err), AM_OK);
    assert_int_equal(am_cache_lock_dir(p->root, "second", 0, &other, &err), AM_EBUSY);
    assert_non_null(strstr(err.message, "serve 127.0.0.1:8000"));
    am_cache_lock_release(fd);
    assert_int_equal(am_cache_lock_dir(p->root, "second", 0, &fd, &err), AM_OK);
    am_cache_lock_release(fd);
}

static void quota_drops_what_no_agent_needs_first(void **state) {
    place *p = *state;
    int32_t *t = stream(20), *u = stream(21);
    turn(p, "alice", t, 1000, 1010);
    turn(p, "alice", u, 1000, 1010); /* t's blocks belong to nobody now */
    am_cache_flush(p->cache, NULL);
    p->options.disk_bytes = 3 * p->layout.sealed_bytes + am_kv_rows_bytes(&p->layout, 1020 % 256) + (1 << 14); /* u's three and the head */
    reopen(p);
    am_cache_poll(p->cache);
    assert_int_equal(turn(p, "alice", u, 1015, 1020).n_cached, 1010);
    am_cache_flush(p->cache, NULL); /* the quota is kept when a write is done */
    am_turn_request r = {.tenant = &nobody, .agent = AM_STR("other"), .tokens = t, .n_tokens = 1000, .n_max_new = 1};
    am_turn *open = canary_open(p->cache, &r);
    assert_int_equal(am_turn_info_of(open)->n_cached, 0);
    am_turn_abort(open);
}

static bool is_there(place *p, const char *agent) {
    am_agent_info info;
    return am_cache_agent(p->cache, &nobody, am_str_of(agent), &info) == AM_OK;
}

static void agents_without_a_name_make_room_for_new_ones(void **state) {
    place *p = *state;
    const am_tenant team = {.name = "team", .salt = {1}};
    char first[AM_NAME_MAX + 1], second[AM_NAME_MAX + 1];
    am_cache_stats s;
    p->options.n_unnamed = 2;
    reopen(p);
    turn(p, "alice", stream(30), 300, 310);
    strcpy(first, turn(p, "", stream(31), 300, 310).agent);
    strcpy(second, turn(p, "", stream(32), 300, 310).agent);
    assert_string_equal(turn(p, "", stream(31), 320, 330).agent, first); /* goes on, and is the one used last */
    am_turn_request r = {.tenant = &team, .agent = AM_STR(""), .tokens = stream(33), .n_tokens = 300, .n_max_new = 8};
    canary_turn(p->cache, &p->layout, &r, r.tokens, 300); /* each tenant has its own count */
    assert_true(is_there(p, first) && is_there(p, second));
    turn(p, "", stream(34), 300, 310);
    assert_true(is_there(p, "alice") && is_there(p, first) && !is_there(p, second));
    reopen(p); /* what is without a name is so after a restart too */
    am_cache_stats_get(p->cache, &s);
    assert_int_equal(s.n_heads, 4);
    assert_int_equal(s.n_unnamed, 3);
    turn(p, first, stream(31), 340, 350); /* named once, it stays */
    turn(p, "", stream(35), 300, 310);
    turn(p, "", stream(36), 300, 310);
    turn(p, "", stream(37), 300, 310);
    assert_true(is_there(p, "alice") && is_there(p, first));
    reopen(p);
    am_cache_stats_get(p->cache, &s);
    assert_int_equal(s.n_unnamed, 3);
    assert_int_equal(s.n_heads, 5);
    assert_int_equal(s.n_blocks_disk, 5); /* blocks go with the agents that had them */
}

static void one_that_a_turn_uses_or_that_is_wanted_is_not_forgotten(void **state) {
    place *p = *state;
    am_agent_info info;
    char first[AM_NAME_MAX + 1], second[AM_NAME_MAX + 1];
    p->options.n_unnamed = 1;
    reopen(p);
    int32_t *t = stream(41), *u = stream(42);
    strcpy(first, turn(p, "", t, 300, 310).agent);
    am_turn_request r = {.tenant = &nobody, .agent = AM_STR(""), .tokens = t, .n_tokens = 320, .n_max_new = 8};
    am_turn *open = canary_open(p->cache, &r);
    strcpy(second, turn(p, "", u, 300, 310).agent);
    assert_true(is_there(p, first)); /* there are two for as long as it runs */
    am_turn_abort(open);
    assert_int_equal(turn(p, "", t, 320, 330).n_cached, 310);
    assert_true(is_there(p, first) && !is_there(p, second));
    am_str goes_on = am_cache_continues(p->cache, &nobody, t, 340);
    assert_true(am_str_eq(goes_on, am_str_of(first)));
    am_shed shed = {.tenant = &nobody, .except = am_str_of(first), .n_agents = 1, .disk_bytes = 1};
    am_cache_shed(p->cache, &shed);
    assert_true(is_there(p, first) && shed.n_agents == 1 && shed.disk_bytes == 1);
    assert_int_equal(am_cache_agent(p->cache, &nobody, am_str_of(first), &info), AM_OK);
    assert_true(info.unnamed);
    shed.except = (am_str){0};
    am_cache_shed(p->cache, &shed);
    assert_true(!is_there(p, first) && shed.n_agents == 0 && shed.disk_bytes == 0);
}

static void the_disk_s_quota_takes_agents_without_a_name_first(void **state) {
    place *p = *state;
    am_cache_stats s;
    int32_t *t = stream(51);
    turn(p, "alice", t, 1000, 1010); /* the least recently used, and kept */
    for (uint32_t i = 0; i < 4; i++) turn(p, "", stream(60 + i), 600, 610);
    am_cache_flush(p->cache, NULL);
    am_cache_stats_get(p->cache, &s);
    p->options.disk_bytes = s.disk_bytes / 2;
    reopen(p);
    am_cache_poll(p->cache);
    am_cache_stats_get(p->cache, &s);
    assert_in_range(s.n_shed, 2, 3);
    assert_in_range(s.disk_bytes, 1, p->options.disk_bytes);
    assert_int_equal(turn(p, "alice", t, 1015, 1020).n_cached, 1010);
}

static void count_done(void *arg, am_status status) { *(int *)arg += status == AM_OK; }

/* A head that is to be written again is forgotten: who waits for that writing hears so. */
static void nobody_waits_for_what_was_forgotten(void **state) {
    place *p = *state;
    int n_done = 0;
    for (int i = 0; i < 3; i++) {
        am_turn_request r = {.tenant = &nobody, .agent = AM_STR("x"), .tokens = stream(70), .n_tokens = 100 + 10 * (uint32_t)i, .n_max_new = 8};
        am_turn *open = canary_open(p->cache, &r);
        canary_extend(p->cache, open, &p->layout, "", r.tokens, r.n_tokens);
        am_turn_commit(open, NULL, 0, count_done, &n_done);
    }
    assert_int_equal(am_cache_rm(p->cache, &nobody, AM_STR("x"), NULL), AM_OK);
    am_cache_flush(p->cache, NULL);
    assert_int_equal(n_done, 3);
}

/* A model of what each agent must remember, driven at random with a pool far too small. */
static void random_schedules_never_show_a_wrong_row(void **state) {
    place *p = *state;
    enum { AGENTS = 12 };
    p->options.memory_bytes = 6 * p->layout.open_bytes + 22 * p->layout.sealed_bytes;
    p->options.n_unnamed = 3;
    reopen(p);
    static int32_t history[AGENTS][N_CTX];
    uint32_t n[AGENTS] = {0};
    unsigned seed = 12345;
    for (int step = 0; step < 1500; step++) {
        unsigned a = (unsigned)rand_r(&seed) % AGENTS, what = (unsigned)rand_r(&seed) % 100;
        char name[16];
        snprintf(name, sizeof name, "r%u", a);
        if (what < 70) { /* a turn that goes on, or leaves its history somewhere */
            uint32_t keep = what < 60 ? n[a] : n[a] / 2, more = 1 + (uint32_t)rand_r(&seed) % 300, answer = (uint32_t)rand_r(&seed) % 300;
            if (keep + more + answer + 8 > N_CTX / 2) keep = 0;
            for (uint32_t i = keep; i < keep + more + answer; i++) history[a][i] = rand_r(&seed) % 5;
            turn(p, name, history[a], keep + more, keep + more + answer);
            n[a] = keep + more + answer;
        } else if (what < 75) {
            am_cache_evict(p->cache, &nobody, what < 73 ? am_str_of(name) : AM_STR(""), NULL);
        } else if (what < 80) {
            am_cache_rm(p->cache, &nobody, am_str_of(name), NULL);
            n[a] = 0;
        } else if (what < 85) {
            unsigned b = (a + 1) % AGENTS;
            char to[16];
            snprintf(to, sizeof to, "r%u", b);
            if (am_cache_fork(p->cache, &nobody, am_str_of(name), am_str_of(to), NULL) == AM_OK) {
                memcpy(history[b], history[a], sizeof history[a]);
                n[b] = n[a];
            }
        } else if (what < 95 && n[a] > 10) { /* begun, cancelled at any place, also before it is ready */
            am_turn_request r = {.tenant = &nobody, .agent = am_str_of(name), .tokens = history[a], .n_tokens = n[a], .n_max_new = 300};
            am_turn *open;
            if (am_turn_open(p->cache, &r, &open, NULL) == AM_OK) {
                if (what & 1) am_cache_poll(p->cache);
                am_turn_abort(open);
            }
        } else if (what >= 97 && n[a] > 10) { /* without a name, from somewhere in a history */
            turn(p, "", history[a], n[a] / (what - 96), n[a]);
        } else if (what == 96) {
            reopen(p);
        }
        am_cache_poll(p->cache);
    }
    am_cache_flush(p->cache, NULL);
    am_cache_evict(p->cache, NULL, AM_STR(""), NULL);
    am_cache_stats s;
    am_cache_stats_get(p->cache, &s);
    assert_int_equal(s.n_sealed_used, 0);
    assert_int_equal(s.n_open_used, 0);
    assert_int_equal(s.n_refused, 0);
}

static void kill_9_at_any_moment_forgets_no_finished_turn(void **state) {
    place *p = *state;
    am_cache_close(p->cache);
    p->cache = NULL;
    int32_t *t = stream(22);
    uint32_t known = 0;
    unsigned seed = 7;
    for (int round = 0; round < 50; round++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        if (child == 0) { /* grows one agent, telling after each finished turn how far it is */
            reopen(p);
            for (uint32_t n = known + 1; n < N_CTX - 400; n += 37) {
                turn(p, "alice", t, n, n + 20);
                uint32_t done = n + 20;
                if (write(pipes[1], &done, sizeof done) != sizeof done) break;
            }
            _exit(0);
        }
        usleep(5000 + (unsigned)rand_r(&seed) % 60000);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        close(pipes[1]);
        uint32_t done;
        while (read(pipes[0], &done, sizeof done) == sizeof done) known = done;
        close(pipes[0]);
        am_error err = {0};
        if (am_cache_open(&p->options, &p->cache, &err)) fail_msg("%s", err.message);
        am_agent_info info;
        am_status status = am_cache_agent(p->cache, &nobody, AM_STR("alice"), &info);
        if (known) {
            assert_int_equal(status, AM_OK);
            assert_true(info.n_tokens >= known);
            am_turn_request r = {.tenant = &nobody, .agent = AM_STR("alice"), .tokens = t, .n_tokens = info.n_tokens + 1, .n_max_new = 1};
            am_turn *open = canary_open(p->cache, &r);
            canary_check(open, &p->layout, "", t);
            am_turn_abort(open);
            known = info.n_tokens;
        }
        am_cache_stats s;
        am_cache_stats_get(p->cache, &s);
        assert_int_equal(s.n_refused, 0);
        am_cache_close(p->cache);
        p->cache = NULL;
        if (known > N_CTX - 800) break;
    }
    reopen(p);
}

static atomic_bool opens_wait;

static int patient_open(const char *path, int flags, mode_t mode) {
    while (!(flags & (O_WRONLY | O_RDWR)) && strstr(path, "alice") && atomic_load(&opens_wait)) usleep(200);
    return am_io_system.open(path, flags, mode);
}

/* Somebody wants rows of an agent's file, and before it is opened another, shorter one has its name. */
static void a_file_that_was_replaced_is_not_refused(void **state) {
    place *p = *state;
    static am_io_ops ops;
    int32_t *t = stream(71), *u = stream(72);
    am_cache_stats stats;
    turn(p, "alice", t, 190, 200);
    reopen(p);
    ops = am_io_system;
    ops.open = patient_open;
    am_io = &ops;
    atomic_store(&opens_wait, true);
    am_turn_request r = {.tenant = &nobody, .agent = AM_STR("bob"), .tokens = t, .n_tokens = 195, .n_max_new = 8};
    am_turn *bob;
    assert_int_equal(am_turn_open(p->cache, &r, &bob, NULL), AM_OK);
    assert_int_equal(am_turn_ready(bob), AM_AGAIN);
    turn(p, "alice", u, 10, 20);
    atomic_store(&opens_wait, false);
    while (am_turn_ready(bob) == AM_AGAIN) {
        usleep(200);
        am_cache_poll(p->cache);
    }
    assert_int_equal(am_turn_n_past(bob), 0);
    am_turn_abort(bob);
    am_cache_stats_get(p->cache, &stats);
    assert_int_equal(stats.n_refused, 0);
    reopen(p);
    const int32_t *tokens;
    uint32_t n;
    assert_int_equal(am_cache_tokens(p->cache, &nobody, AM_STR("alice"), &tokens, &n), AM_OK);
    assert_int_equal(n, 20);
}

static atomic_bool writes_wait;

static ssize_t patient_pwrite(int fd, const void *bytes, size_t n, off_t at) {
    while (atomic_load(&writes_wait)) usleep(200);
    return am_io_system.pwrite(fd, bytes, n, at);
}

/* A turn ends while the one before is being written, and there is no memory for its image: it must be written all the same, when there is. */
static void what_found_no_memory_while_another_was_written_is_written(void **state) {
    place *p = *state;
    static am_io_ops ops;
    ops = am_io_system;
    ops.pwrite = patient_pwrite;
    am_io = &ops;
    for (long k = 1; k < 24; k++) {
        int32_t *t = stream(100 + (uint32_t)k);
        char name[16];
        snprintf(name, sizeof name, "a%ld", k);
        am_turn_request r = {.tenant = &nobody, .agent = am_str_of(name), .tokens = t, .n_tokens = 20, .n_max_new = 100};
        am_turn *turn = canary_open(p->cache, &r);
        canary_extend(p->cache, turn, &p->layout, "", t, 30);
        atomic_store(&writes_wait, true);
        am_turn_commit(turn, NULL, 0, NULL, NULL);
        r.n_tokens = 40;
        turn = canary_open(p->cache, &r);
        canary_extend(p->cache, turn, &p->layout, "", t, 50);
        am_fault_alloc_at(k);
        am_turn_commit(turn, NULL, 0, NULL, NULL);
        am_fault_alloc_at(0);
        atomic_store(&writes_wait, false);
        assert_int_equal(am_cache_flush(p->cache, NULL), AM_OK);
        reopen(p);
        const int32_t *tokens;
        uint32_t n;
        assert_int_equal(am_cache_tokens(p->cache, &nobody, am_str_of(name), &tokens, &n), AM_OK);
        assert_true(n == 50 || n == 30); /* 30: there was no memory to take the turn at all */
        assert_memory_equal(tokens, t, n * sizeof *t);
    }
}

/* Wherever memory fails while an agent is made: it is refused, or its file has the name that a start looks for. */
static void an_agent_made_while_memory_fails_is_found_after_a_restart(void **state) {
    place *p = *state;
    int n_failed = 0;
    for (long k = 1; k < 40; k++) {
        int32_t *t = stream(200 + (uint32_t)k);
        char name[64];
        snprintf(name, sizeof name, "an agent with a name of some length, %ld", k);
        am_turn_request r = {.tenant = &nobody, .agent = am_str_of(name), .tokens = t, .n_tokens = 20, .n_max_new = 100};
        am_turn *turn = canary_open(p->cache, &r);
        canary_extend(p->cache, turn, &p->layout, "", t, 30);
        am_fault_alloc_at(k);
        am_turn_commit(turn, NULL, 0, NULL, NULL);
        am_fault_alloc_at(0);
        const int32_t *tokens;
        uint32_t n, n_found;
        bool made = am_cache_tokens(p->cache, &nobody, am_str_of(name), &tokens, &n) == AM_OK;
        n_failed += !made;
        am_cache_flush(p->cache, NULL);
        reopen(p);
        am_cache_stats stats;
        am_cache_stats_get(p->cache, &stats);
        assert_int_equal(stats.n_refused, 0);
        assert_int_equal(am_cache_tokens(p->cache, &nobody, am_str_of(name), &tokens, &n_found) == AM_OK, made);
        if (made) assert_int_equal(n_found, n);
    }
    assert_true(n_failed > 0);
}

int main(void) {
    am_log_setup(AM_LOG_OFF, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_second_turn_is_hot, setup, teardown),
        cmocka_unit_test_setup_teardown(after_a_restart_it_is_warm_with_every_row, setup, teardown),
        cmocka_unit_test_setup_teardown(a_prompt_that_leaves_the_history_says_where, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_name_the_longest_prefix_is_continued, setup, teardown),
        cmocka_unit_test_setup_teardown(agents_share_blocks_and_rows_of_a_common_prefix, setup, teardown),
        cmocka_unit_test_setup_teardown(ten_agents_in_a_pool_for_two_stay_warm, setup, teardown),
        cmocka_unit_test_setup_teardown(tenants_never_meet, setup, teardown),
        cmocka_unit_test_setup_teardown(an_aborted_turn_leaves_the_head, setup, teardown),
        cmocka_unit_test_setup_teardown(a_turn_that_can_never_fit_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_found_before_use, setup, teardown),
        cmocka_unit_test_setup_teardown(files_may_vanish_while_running, setup, teardown),
        cmocka_unit_test_setup_teardown(things_in_a_files_place_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_costs_nothing_but_durability, setup, teardown),
        cmocka_unit_test_setup_teardown(rows_that_could_not_be_written_are_missed_aloud, setup, teardown),
        cmocka_unit_test_setup_teardown(rm_takes_only_what_was_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(a_fork_continues_on_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(another_model_is_another_head, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes_written_are_the_new_blocks_and_the_head, setup, teardown),
        cmocka_unit_test_setup_teardown(the_folder_has_one_master, setup, teardown),
        cmocka_unit_test_setup_teardown(quota_drops_what_no_agent_needs_first, setup, teardown),
        cmocka_unit_test_setup_teardown(agents_without_a_name_make_room_for_new_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_a_turn_uses_or_that_is_wanted_is_not_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(the_disk_s_quota_takes_agents_without_a_name_first, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_waits_for_what_was_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_was_replaced_is_not_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(what_found_no_memory_while_another_was_written_is_written, setup, teardown),
        cmocka_unit_test_setup_teardown(an_agent_made_while_memory_fails_is_found_after_a_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(random_schedules_never_show_a_wrong_row, setup, teardown),
        cmocka_unit_test_setup_teardown(kill_9_at_any_moment_forgets_no_finished_turn, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
