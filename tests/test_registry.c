/* agents/registry: states and leases, who waits, room for another, the way back when a model cannot be had, idle ones, the gate, the end. */
#include "agents/registry.h"
#include "base/fault.h"
#include "base/log.h"
#include "tiny_model.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64], paths[3][128], caches[128];
static am_cache_folder folder;

static int setup(void **state) {
    (void)state;
    const test_tiny_model shape = {.n_layer = 2, .n_vocab = 128, .n_embd = 64, .n_ff = 128, .n_head = 2, .n_kv_head = 1, .head_dim = 32};
    am_log_setup(AM_LOG_OFF, false);
    strcpy(dir, "/tmp/am_registry_XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(caches, sizeof caches, "%s/caches", dir);
    mkdir(caches, 0700);
    for (unsigned i = 0; i < 3; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/model%u", dir, i);
        mkdir(paths[i], 0700);
        test_tiny_model_write(&shape, paths[i], i + 1);
    }
    folder = (am_cache_folder){0};
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(folder.n_open, 0);
    return system(command);
}

enum { KV_BYTES = 8 << 20 };

/* a, b and c, and one that is nowhere; memory_bytes is for all. */
static am_registry *make(uint64_t memory_bytes, uint32_t keep_alive_ms) {
    static const char *const of_a[] = {"small", "gpt-*"};
    am_model_entry entries[4];
    static const char *const names[] = {"a", "b", "c", "nowhere"};
    for (int i = 0; i < 4; i++) {
        entries[i] = AM_MODEL_ENTRY;
        entries[i].name = names[i];
        entries[i].path = i < 3 ? paths[i] : "/nowhere/at/all";
    }
    entries[0].aliases = of_a;
    entries[0].n_aliases = 2;
    const am_kernels *kernels;
    am_error err = {0};
    am_registry *r = NULL;
    assert_int_equal(am_kernels_pick(NULL, &kernels, &err), AM_OK);
    am_registry_options o = {.instance = {.data_dir = dir, .cache_dir = caches, .folder = &folder, .kernels = kernels, .n_ctx = 512,
                                          .kv_memory_bytes = KV_BYTES, .n_threads = 1, .max_parallel = 2},
                             .entries = entries, .n_entries = 4, .memory_bytes = memory_bytes, .keep_alive_ms = keep_alive_ms, .drain_ms = 50};
    if (am_registry_create(&o, &r, &err)) fail_msg("%s", err.message);
    return r;
}

static am_op_result operate(am_registry *r, am_op_kind kind, const char *model) {
    am_op op = {.kind = kind, .timeout_ms = UINT32_MAX, .any_tenant = true};
    am_op_result result;
    snprintf(op.model, sizeof op.model, "%s", model);
    am_registry_do(r, &op, &result);
    return result;
}

static am_model_view view_of(am_registry *r, const char *name) {
    am_model_view v;
    assert_true(am_registry_find(r, am_str_of(name), &v));
    return v;
}
static void expect_state(am_registry *r, const char *name, am_model_state state) {
    assert_string_equal(am_model_state_name(view_of(r, name).state), am_model_state_name(state));
}

/* What a request that waits is told. */
typedef struct told {
    pthread_mutex_t lock; /* protects the rest */
    pthread_cond_t changed;
    unsigned n;
    am_instance *instance;
    am_status status;
} told;
#define TOLD ((told){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER})

static void on_acquired(void *arg, am_instance *instance, am_status status, const char *why) {
    told *t = arg;
    (void)why;
    pthread_mutex_lock(&t->lock);
    t->n++;
    t->instance = instance;
    t->status = status;
    pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static am_instance *acquire(am_registry *r, const char *name) {
    told t = TOLD;
    am_error err = {0};
    am_instance *out;
    am_status status = am_registry_acquire(r, am_str_of(name), on_acquired, &t, &out, &err);
    if (status == AM_OK) return out;
    assert_int_equal(status, AM_AGAIN);
    pthread_mutex_lock(&t.lock);
    while (t.n == 0) pthread_cond_wait(&t.changed, &t.lock);
    pthread_mutex_unlock(&t.lock);
    assert_int_equal(t.n, 1);
    return t.instance;
}

static void names_and_aliases(void **state) {
    (void)state;
    am_registry *r = make(0, 0);
    am_model_view v;
    am_error err = {0};
    am_instance *out;
    told t = TOLD;
    assert_string_equal(am_registry_default(r), "a");
    assert_true(am_registry_has(r, AM_STR("gpt-4o")) && am_registry_has(r, AM_STR("small")) && am_registry_has(r, AM_STR("")));
    assert_false(am_registry_has(r, AM_STR("gpt")));
    assert_true(am_registry_find(r, AM_STR("gpt-4o"), &v));
    assert_string_equal(v.entry->name, "a");
    assert_int_equal(v.facts.n_layer, 2);
    assert_int_equal(am_registry_acquire(r, AM_STR("x"), on_acquired, &t, &out, &err), AM_ENOTFOUND);
    assert_non_null(strstr(err.message, "'nowhere'"));
    am_model_entry again = AM_MODEL_ENTRY;
    again.name = "b";
    assert_int_equal(am_registry_add(r, &again, &err), AM_EEXIST);
    am_registry_free(r);
}

static void a_lease_keeps_a_model(void **state) {
    (void)state;
    am_registry *r = make(0, 0);
    expect_state(r, "a", AM_MODEL_ABSENT);
    am_instance *in = acquire(r, "gpt-x");
    assert_string_equal(am_instance_info(in)->name, "a");
    expect_state(r, "a", AM_MODEL_READY);
    assert_int_equal(view_of(r, "a").n_leases, 1);
    am_op op = {.kind = AM_OP_UNLOAD, .model = "a", .timeout_ms = 60000};
    assert_int_equal(am_registry_submit(r, &op, NULL), AM_OK);
    while (view_of(r, "a").state == AM_MODEL_READY) usleep(1000);
    expect_state(r, "a", AM_MODEL_DRAINING);
    told t = TOLD;
    am_instance *out;
    assert_int_equal(am_registry_acquire(r, AM_STR("a"), on_acquired, &t, &out, NULL), AM_AGAIN); /* no new lease while it drains */
    assert_true(am_registry_forget(r, &t));
    assert_false(am_registry_forget(r, &t));
    am_registry_release(r, in);
    operate(r, AM_OP_PERSIST, ""); /* after the unloading */
    expect_state(r, "a", AM_MODEL_ABSENT);
    assert_int_equal(t.n, 0);
    am_registry_free(r);
}

static void the_least_recently_used_leaves(void **state) {
    (void)state;
    am_registry *r = make(0, 0);
    am_registry_release(r, acquire(r, "a"));
    uint64_t one = view_of(r, "a").bytes;
    am_registry_free(r);
    r = make(2 * one + one / 2, 0);
    am_registry_release(r, acquire(r, "a"));
    am_registry_release(r, acquire(r, "b"));
    am_registry_release(r, acquire(r, "a"));
    am_registry_release(r, acquire(r, "c"));
    expect_state(r, "a", AM_MODEL_READY);
    expect_state(r, "b", AM_MODEL_ABSENT);
    expect_state(r, "c", AM_MODEL_READY);
    am_registry_free(r);
}

static void what_cannot_be_loaded_changes_nothing(void **state) {
    (void)state;
    am_registry *r = make(KV_BYTES + (KV_BYTES >> 1), 0);
    assert_int_equal(operate(r, AM_OP_LOAD, "a").status, AM_OK);
    am_op_result result = operate(r, AM_OP_SWAP, "nowhere");
    assert_int_not_equal(result.status, AM_OK);
    assert_false(result.rolled_back);
    expect_state(r, "nowhere", AM_MODEL_FAILED);
    expect_state(r, "a", AM_MODEL_READY);
    assert_int_equal(view_of(r, "a").n_loads, 1);
    assert_string_equal(am_registry_default(r), "a");
    am_registry_free(r);
}

/* Fails an allocation of the newcomer after the other one left, at many places. */
static void what_fails_late_is_undone(void **state) {
    (void)state;
    unsigned n_undone = 0;
    am_registry *r = make(KV_BYTES + (KV_BYTES >> 1), 0);
    assert_int_equal(operate(r, AM_OP_LOAD, "a").status, AM_OK);
    for (long at = 5; at < 400 && n_undone < 8; at += 7) {
        am_fault_alloc_at(at);
        am_op_result result = operate(r, AM_OP_SWAP, "b");
        am_fault_alloc_at(0);
        if (result.status == AM_OK) {
            assert_int_equal(operate(r, AM_OP_SWAP, "a").status, AM_OK);
            continue;
        }
        n_undone += result.rolled_back;
        expect_state(r, "a", AM_MODEL_READY);
        assert_string_equal(am_registry_default(r), "a");
    }
    assert_true(n_undone > 0);
    am_registry_free(r);
}

static void idle_models_leave(void **state) {
    (void)state;
    am_registry *r = make(0, 100);
    am_registry_release(r, acquire(r, "a"));
    for (int i = 0; i < 500 && view_of(r, "a").state != AM_MODEL_ABSENT; i++) usleep(10000);
    expect_state(r, "a", AM_MODEL_ABSENT);
    am_registry_release(r, acquire(r, "a"));
    assert_int_equal(view_of(r, "a").n_loads, 2);
    am_registry_free(r);
}

static void the_gate(void **state) {
    (void)state;
    am_registry *r = make(0, 0);
    am_instance *out;
    told t = TOLD;
    am_registry_release(r, acquire(r, "a"));
    assert_int_equal(am_registry_pause(r), AM_GATE_OPEN);
    am_registry_release(r, acquire(r, "a"));
    assert_int_equal(am_registry_resume(r), AM_GATE_PAUSED);
    assert_int_equal(operate(r, AM_OP_DRAIN, "").status, AM_OK);
    assert_int_equal(am_registry_gate(r), AM_GATE_DRAINED);
    assert_int_equal(am_registry_acquire(r, AM_STR("a"), on_acquired, &t, &out, NULL), AM_ESHUTDOWN);
    assert_int_equal(am_registry_resume(r), AM_GATE_DRAINED);
    am_registry_release(r, acquire(r, "a"));
    assert_int_equal(operate(r, AM_OP_CLEAR_POOL, "").status, AM_OK);
    assert_int_equal(operate(r, AM_OP_CLEAR, "").status, AM_OK);
    assert_int_equal(operate(r, AM_OP_UNLOAD, "").n_models, 1);
    am_registry_free(r);
}

typedef struct crowd {
    am_registry *r;
    unsigned seed;
} crowd;

static void *come_and_go(void *arg) {
    crowd *c = arg;
    static const char *const names[] = {"a", "b", "c"};
    for (int i = 0; i < 40; i++) {
        am_instance *in = acquire(c->r, names[rand_r(&c->seed) % 3]);
        if (!in) continue;
        assert_non_null(am_instance_engine(in));
        if (rand_r(&c->seed) % 4 == 0) usleep(500);
        am_registry_release(c->r, in);
    }
    return NULL;
}

static void many_at_once(void **state) {
    (void)state;
    am_registry *r = make(2 * KV_BYTES + KV_BYTES, 0);
    pthread_t threads[4];
    crowd crowds[4];
    for (unsigned i = 0; i < 4; i++) {
        crowds[i] = (crowd){r, i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &crowds[i]), 0);
    }
    for (int i = 0; i < 6; i++) operate(r, i % 2 ? AM_OP_SWAP : AM_OP_EVICT, i % 2 ? (i % 4 == 1 ? "b" : "a") : "");
    for (unsigned i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    static const char *const names[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) assert_int_equal(view_of(r, names[i]).n_leases, 0);
    am_registry_free(r);
}

static void the_end_tells_who_waits(void **state) {
    (void)state;
    am_registry *r = make(0, 0);
    told t = TOLD;
    am_instance *out;
    am_status status = am_registry_acquire(r, AM_STR("a"), on_acquired, &t, &out, NULL);
    am_registry_begin_end(r);
    assert_int_equal(status, AM_AGAIN);
    assert_int_equal(t.n, 1);
    if (t.instance) am_registry_release(r, t.instance);
    else assert_int_equal(t.status, AM_ESHUTDOWN);
    assert_int_equal(am_registry_acquire(r, AM_STR("a"), on_acquired, &t, &out, NULL), AM_ESHUTDOWN);
    assert_int_equal(operate(r, AM_OP_LOAD, "a").status, AM_ESHUTDOWN);
    am_registry_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_aliases),
        cmocka_unit_test(a_lease_keeps_a_model),
        cmocka_unit_test(the_least_recently_used_leaves),
        cmocka_unit_test(what_cannot_be_loaded_changes_nothing),
        cmocka_unit_test(what_fails_late_is_undone),
        cmocka_unit_test(idle_models_leave),
        cmocka_unit_test(the_gate),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(the_end_tells_who_waits),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
