/* Invariant 1: on one kernel table, logits are the same bit for bit, whatever happened to the agent and whoever ran beside it.
 *
 * Eight agents have a conversation each. First every turn is computed the plainest way: alone, cold, one thread, whole blocks. Then the same
 * conversations run again on one data folder in acts; each act opens an engine with other chunk sizes, threads, parallelism and pool, runs
 * random agents' turns together (some without reuse, some under a forked name, some right after an eviction), and closes it, so the next act
 * restores from disk. Acts draft or do not; drafts come from predictions that are right for the most part, so some of a draft's rows are taken and
 * some are not. The logits of every sampled position are compared by a hash of all their bytes, and the tokens. */
#include "engine_rig.h"

#include "base/hash.h"
#include "engine/sampler.h"

#include <stdatomic.h>

enum { N_AGENTS = 8, MAX_TOKENS = 2048 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOW = 1 };
#else
enum { SLOW = 0 };
#endif

typedef struct conversation {
    int32_t ids[MAX_TOKENS];       /* the last turn's prompt with its answer */
    uint32_t n_prompt[8], n_new[8]; /* of each turn */
    uint64_t logits[MAX_TOKENS];   /* hash by position; 0: not sampled there */
    uint32_t next;                 /* turn to run */
    uint32_t n_forks;
} conversation;

static conversation talks[N_AGENTS];
static bool recording;
static atomic_uint n_compared, n_different;
static uint32_t n_vocab, n_of_tier[3], n_drafted, n_accepted, n_drafted_in_all, n_accepted_in_all;

static void see_logits(void *arg, const char *request, uint32_t position, float *logits) {
    (void)arg;
    conversation *talk = &talks[request[0] - '0'];
    uint64_t hash = am_hash64(logits, n_vocab * sizeof *logits) | 1;
    if (recording) talk->logits[position] = hash;
    atomic_fetch_add(&n_compared, 1);
    if (talk->logits[position] == hash) return;
    if (atomic_fetch_add(&n_different, 1) < 5) print_message("agent %s differs at position %u\n", request, position);
}

static uint64_t dice_state;
static uint32_t dice(uint32_t sides) { return (uint32_t)(am_draw_uniform(4711, dice_state++) * sides); }

/* What the turn was recorded to answer, with some tokens changed. */
static int32_t predictions[2 * N_AGENTS][16];
static void predict(am_request *request, uint32_t i, uint32_t turn, int32_t prediction[16]) {
    memcpy(prediction, talks[i].ids + talks[i].n_prompt[turn], talks[i].n_new[turn] * sizeof *prediction);
    for (uint32_t k = 0; k < talks[i].n_new[turn]; k++)
        if (dice(5) == 0) prediction[k] = (int32_t)dice(8000);
    request->prediction = prediction;
    request->n_prediction = talks[i].n_new[turn];
}

static void compare_tokens(const answer *a, uint32_t i, uint32_t turn) {
    assert_int_equal(a->n_tokens, talks[i].n_new[turn]);
    assert_memory_equal(a->ids, talks[i].ids + talks[i].n_prompt[turn], a->n_tokens * sizeof *a->ids);
}

static am_request turn_request(uint32_t i, uint32_t turn, const char *agent) {
    conversation *talk = &talks[i];
    am_request request = rig_request(agent, talk->ids, talk->n_prompt[turn], talk->n_new[turn]);
    request.ignore_eos = true;
    request.sampling.temperature = 0.8f;
    request.sampling.has_seed = true;
    request.sampling.seed = i;
    if (i % 3 == 1) request.sampling.repetition_penalty = 1.3f, request.sampling.presence_penalty = 0.2f, request.sampling.top_k = 500;
    if (i % 3 == 2) request.sampling.top_p = 0.9f, request.sampling.top_logprobs = 3;
    snprintf(request.id, sizeof request.id, "%u", i);
    return request;
}

/* Writes the conversations while computing them the plainest way. Pairs of agents share their first 300 tokens, so blocks are shared too. */
static void record(const char *isa, uint32_t n_agents, uint32_t n_turns) {
    rig r;
    rig_open(&r, &(rig_spec){.isa = isa, .n_ctx = MAX_TOKENS, .max_parallel = 1, .lookup = AM_LOOKUP_OFF, .on_logits = see_logits});
    n_vocab = am_model_info_of(r.model)->n_vocab;
    recording = true;
    for (uint32_t i = 0; i < n_agents; i++) {
        conversation *talk = &talks[i];
        memset(talk, 0, sizeof *talk);
        rig_random_ids(talk->ids, MAX_TOKENS, 1000 + i);
        rig_random_ids(talk->ids, 300, 1000 + i / 2);
        uint32_t n = 0;
        for (uint32_t turn = 0; turn < n_turns; turn++) {
            n += turn == 0 ? 20 + 480 * i / n_agents : 10 + dice(120);
            talk->n_prompt[turn] = n;
            talk->n_new[turn] = 1 + dice(12);
            am_request request = turn_request(i, turn, NULL);
            request.no_reuse = true;
            answer *a = rig_run(&r, &request);
            assert_int_equal(a->n_tokens, talk->n_new[turn]);
            memcpy(talk->ids + n, a->ids, a->n_tokens * sizeof *a->ids);
            n += a->n_tokens;
            answer_free(a);
        }
    }
    recording = false;
    rig_close(&r);
}

typedef struct cache_call {
    char from[32], to[32];
    am_status status;
} cache_call;

static void fork_call(void *arg, am_cache *cache) {
    cache_call *c = arg;
    c->status = am_cache_fork(cache, &(am_tenant){0}, am_str_of(c->from), am_str_of(c->to), NULL);
}

static void evict_call(void *arg, am_cache *cache) {
    cache_call *c = arg;
    c->status = am_cache_evict(cache, &(am_tenant){0}, am_str_of(c->from), NULL);
}

static void agent_name(uint32_t i, char name[32]) { snprintf(name, 32, "agent %u fork %u", i, talks[i].n_forks); }

static void fork_or_evict(rig *r, uint32_t i) {
    cache_call c = {{0}, {0}, AM_OK};
    agent_name(i, c.from);
    if (talks[i].next == 0) return;
    if (dice(3) == 0) {
        talks[i].n_forks++;
        agent_name(i, c.to);
        assert_int_equal(am_engine_call(r->engine, fork_call, &c), AM_OK);
        assert_int_equal(c.status, AM_OK);
    } else if (dice(2) == 0) {
        if (dice(2)) c.from[0] = 0;
        assert_int_equal(am_engine_call(r->engine, evict_call, &c), AM_OK);
    }
}

static bool all_done(uint32_t n_agents, uint32_t n_turns) {
    for (uint32_t i = 0; i < n_agents; i++)
        if (talks[i].next < n_turns) return false;
    return true;
}

static void play_act(const char *isa, const char *dir, uint32_t n_agents, uint32_t n_turns) {
    static const uint32_t chunks[] = {1, 3, 16, 33, 100, 255, 256, 512};
    uint32_t chunk = chunks[dice(8)];
    rig r;
    rig_open(&r, &(rig_spec){.isa = isa, .dir = dir, .chunk = chunk, .n_ctx = MAX_TOKENS, .n_threads = 1 + dice(4), .step_ms = dice(2) ? 100 : 3 + dice(40),
                             .max_parallel = 1 + dice(8), .n_sealed = dice(2) ? 9 : 64, .n_open = 10,
                             .lookup = dice(2) ? AM_LOOKUP_ON : dice(2) ? AM_LOOKUP_AUTO : AM_LOOKUP_OFF, .on_logits = see_logits});
    for (uint32_t round = 0; round < (chunk < 16 ? 1 : 2); round++) {
        answer *a[2 * N_AGENTS] = {0};
        uint32_t of[2 * N_AGENTS], turn[2 * N_AGENTS];
        uint32_t n = 0, n_most = chunk < 16 ? 2 : n_agents;
        for (uint32_t i = 0; i < n_agents && n < n_most; i++) {
            if (talks[i].next >= n_turns || dice(3) == 0) continue;
            fork_or_evict(&r, i);
            char name[32];
            agent_name(i, name);
            am_request request = turn_request(i, talks[i].next, name);
            request.no_reuse = chunk >= 16 && dice(10) == 0;
            for (uint32_t twice = dice(6) == 0 ? 2 : 1; twice > 0; twice--) { /* the same turn twice at once, the second without leaving a trace */
                predict(&request, i, talks[i].next, predictions[n]);
                of[n] = i, turn[n] = talks[i].next;
                a[n++] = rig_send(&r, &request);
                request.ephemeral = true;
            }
            talks[i].next++;
        }
        for (uint32_t k = 0; k < n; k++) {
            rig_wait(a[k]);
            assert_int_equal(a[k]->status, AM_OK);
            n_of_tier[a[k]->info.tier]++;
            n_drafted += a[k]->n_drafted;
            n_accepted += a[k]->n_accepted;
            compare_tokens(a[k], of[k], turn[k]);
            answer_free(a[k]);
        }
    }
    rig_close(&r);
}

static void play(const char *isa, uint32_t n_agents, uint32_t n_turns, uint32_t n_schedules) {
    uint64_t start = am_now_ns();
    atomic_store(&n_different, 0);
    record(isa, n_agents, n_turns);
    double record_ms = am_ms_since(start);
    atomic_store(&n_compared, 0);
    memset(n_of_tier, 0, sizeof n_of_tier);
    n_drafted = n_accepted = 0;
    for (uint32_t s = 0; s < n_schedules; s++) {
        char dir[] = "/tmp/am_bits_XXXXXX", command[64];
        assert_non_null(mkdtemp(dir));
        for (uint32_t i = 0; i < n_agents; i++) talks[i].next = talks[i].n_forks = 0;
        while (!all_done(n_agents, n_turns)) play_act(isa, dir, n_agents, n_turns);
        snprintf(command, sizeof command, "rm -rf %s", dir);
        assert_int_equal(system(command), 0);
    }
    print_message("%s: %u positions compared, %u different; %u turns cold, %u warm, %u hot; %u tokens drafted, %u of them right (%.0f ms alone, %.0f ms in all)\n", isa,
                  atomic_load(&n_compared), atomic_load(&n_different), n_of_tier[AM_COLD], n_of_tier[AM_WARM], n_of_tier[AM_HOT],
                  n_drafted, n_accepted, record_ms, am_ms_since(start));
    n_drafted_in_all += n_drafted;
    n_accepted_in_all += n_accepted;
    assert_true(n_of_tier[AM_WARM] + n_of_tier[AM_HOT] > 0);
    assert_true(atomic_load(&n_compared) >= n_schedules * n_agents * n_turns);
    assert_int_equal(atomic_load(&n_different), 0);
}

static void logits_never_differ_on_any_table(void **state) {
    (void)state;
    const am_kernels *const *tables = am_kernels_list();
    const char *more = getenv("AM_TEST_ROUNDS"); /* a longer run, by hand */
    uint32_t n_rounds = more ? (uint32_t)atoi(more) : 1;
    for (size_t i = 0; tables[i]; i++) {
        bool slow = SLOW || strcmp(tables[i]->name, "scalar") == 0;
        play(tables[i]->name, slow ? 3 : N_AGENTS, slow ? 2 : 3, slow ? n_rounds : 2 * n_rounds);
    }
    /* how many there are beside chunks is up to the clock: a slow table may have none */
    assert_true(n_accepted_in_all > 0 && n_accepted_in_all < n_drafted_in_all);
}

static int setup(void **state) {
    (void)state;
    am_log_setup(AM_LOG_ERROR, false);
    const char *seed = getenv("AM_TEST_SEED");
    dice_state = seed ? strtoull(seed, NULL, 10) : 1;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    rig_models_free();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(logits_never_differ_on_any_table)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
