/* What a step of decoding must not do: wait for all threads more often than its data flow asks for, and allocate (invariant 7). malloc and its kin are replaced in this program and counted on the engine thread, from the third
 * token of an answer to its last, over a block border, with penalties, stop strings, logprobs and drafts at work. */
#include "engine_rig.h"

#include <stdatomic.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HOOKED 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HOOKED 0
#else
#define HOOKED 1
#endif
#else
#define HOOKED 1
#endif

static __thread volatile bool counting; /* volatile: compilers know that malloc reads no variable of ours */
static atomic_uint n_allocations;

#if HOOKED
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

static void count(void) {
    if (counting) atomic_fetch_add(&n_allocations, 1);
}

void *malloc(size_t n) {
    count();
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size) {
    count();
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n) {
    count();
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t alignment, size_t n) {
    count();
    return __libc_memalign(alignment, n);
}

int posix_memalign(void **p, size_t alignment, size_t n) {
    count();
    *p = __libc_memalign(alignment, n);
    return *p ? 0 : 12;
}
#endif

static void count_from_third_token(answer *a, const am_event *event) {
    const uint32_t *last = a->arg;
    if (event->kind != AM_EVENT_TOKEN) return;
    if (a->n_tokens == 2) counting = true;
    if (a->n_tokens + 2 == *last) counting = false;
}

static void decoding_allocates_nothing(void **state) {
    (void)state;
    if (!HOOKED) skip();
    am_log_setup(AM_LOG_ERROR, false);
    rig r;
    rig_open(&r, &(rig_spec){.max_parallel = 2, .lookup = AM_LOOKUP_ON});
    counting = true; /* the hook works at all */
    void *volatile p = malloc(7);
    free(p);
    counting = false;
    assert_true(atomic_exchange(&n_allocations, 0) > 0);

    int32_t ids[240];
    rig_random_ids(ids, 240, 6);
    am_str stops[] = {AM_STR("never to be seen"), AM_STR("e e e e e e e e e e e e")};
    uint32_t last = 60;
    int32_t repeated[400]; /* guesses, most of them wrong */
    rig_random_ids(repeated, 400, 9);
    am_request request = rig_request("quiet", ids, 240, last);
    request.ignore_eos = true;
    request.prediction = repeated;
    request.n_prediction = 400;
    request.sampling.temperature = 1;
    request.sampling.has_seed = true;
    request.sampling.top_k = 50;
    request.sampling.top_p = 0.9f;
    request.sampling.typical_p = 0.9f;
    request.sampling.min_p = 0.01f;
    request.sampling.repetition_penalty = 1.1f;
    request.sampling.frequency_penalty = 0.1f;
    request.sampling.top_logprobs = 20;
    request.stops = stops;
    request.n_stops = 2;
    answer *a = answer_new(&r);
    a->hook = count_from_third_token;
    a->arg = &last;
    assert_int_equal(rig_submit(a, &request, NULL), AM_OK);
    rig_wait(a);
    assert_int_equal(a->n_generated, last);
    assert_true(a->n_drafted > 0);
    assert_int_equal(atomic_load(&n_allocations), 0);
    answer_free(a);
    rig_close(&r);
    rig_models_free();
}

typedef struct waits {
    uint64_t at_first, at_last;
    uint32_t last; /* token */
} waits;

static void count_waits(answer *a, const am_event *event) {
    waits *w = a->arg;
    if (event->kind != AM_EVENT_TOKEN) return;
    if (a->n_tokens == 2) w->at_first = am_workers_runs(a->rig->workers);
    if (a->n_tokens == w->last) w->at_last = am_workers_runs(a->rig->workers);
}

static void a_step_waits_five_times_a_layer(void **state) {
    (void)state;
    enum { LAYERS = 8, STEPS = 30 };
    am_log_setup(AM_LOG_ERROR, false);
    rig r;
    rig_open(&r, &(rig_spec){.n_threads = 2, .lookup = AM_LOOKUP_OFF});
    int32_t ids[20];
    rig_random_ids(ids, 20, 6);
    am_request request = rig_request("waits", ids, 20, 2 + STEPS + 1);
    request.ignore_eos = true;
    waits w = {.last = 2 + STEPS};
    answer *a = answer_new(&r);
    a->hook = count_waits;
    a->arg = &w;
    assert_int_equal(rig_submit(a, &request, NULL), AM_OK);
    rig_wait(a);
    assert_int_equal(a->n_generated, 2 + STEPS + 1);
    /* q, k and v; attention; its output; gate and up; down. And the head. */
    assert_int_equal(w.at_last - w.at_first, STEPS * (5 * LAYERS + 1));
    answer_free(a);
    rig_close(&r);
    rig_models_free();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(decoding_allocates_nothing), cmocka_unit_test(a_step_waits_five_times_a_layer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
