/* What runs, what waits, and in which order: the engine thread's own state. No locks; every function is called by that thread. The room's own. */
#ifndef AM_ENGINE_SCHEDULE_H
#define AM_ENGINE_SCHEDULE_H

#include "base/inhand.h"
#include "engine/pace.h"
#include "engine/sequence.h"

typedef struct am_seq_list {
    am_seq *head, *tail;
    uint32_t n;
} am_seq_list;

/* What a decoding sequence brings into a step: its last token and a draft of what follows. */
typedef struct am_draft {
    int32_t tokens[1 + AM_MAX_DRAFT];
    float odds[AM_MAX_DRAFT]; /* that the draft is right up to there */
    uint32_t n, tried, most;  /* drafted tokens that are taken along; that were weighed; that there are */
} am_draft;

typedef struct am_schedule {
    am_engine_options options;
    uint32_t n_vocab;
    am_cache *cache;
    am_workspace *workspace;
    am_sampler *sampler;
    am_inhand *hand; /* what a crash report says this engine was doing */

    am_seq_list queue;      /* QUEUED, in order of arrival */
    am_seq **running;       /* [max_parallel] RESTORING, PREFILL, DECODE, in order of admission */
    uint32_t n_running;
    am_seq_list committing; /* COMMIT */
    bool retry;             /* something changed since the queue was last tried */

    /* one step's batch; [max_parallel + 1]; the decoding ones first */
    am_segment *segments;
    am_seq **batch;
    am_draft *drafts;
    uint32_t n_batch;
    float *logits;        /* [n_logits][n_vocab] */
    uint32_t n_logits;
    uint64_t n_steps;
    am_lookup_odds odds;  /* of all sequences' guesses */
    am_pace decode_pace;  /* passes of decoding sequences alone, */
    am_pace mixed_pace;   /* and with a chunk */
    double sealing_ns;    /* in this step */
    uint64_t step_start_ns;
    uint32_t n_beside;    /* this step's rows beside its chunk, */
    double chunk_seal_ns; /* what sealing the block that the chunk fills should take, */
    uint32_t n_asked, n_kept; /* how often it was asked how many of its tokens go on, and the sum of the answers */
    double seal_ns;       /* moving averages: sealing a block, */
    double prefill_token_ns; /* one token of a prefill chunk, */
    double decode_token_ns;  /* one decoded token */

    am_engine_stats stats; /* counters; the engine publishes them */
    /* settled: a sequence no longer runs or waits (it may still commit). release: its last event is out; the engine frees it. */
    void (*settled)(void *arg);
    void (*release)(void *arg, am_seq *seq);
    void *arg;
} am_schedule;

/* Makes workspace, sampler and lists; the cache is set by the caller. */
am_status am_schedule_init(am_schedule *schedule, const am_engine_options *options, am_error *err);
void am_schedule_free(am_schedule *schedule); /* nothing may run any more; the cache is the caller's */

void am_schedule_add(am_schedule *schedule, am_seq *seq);
void am_schedule_sweep(am_schedule *schedule);         /* ends what was cancelled */
void am_schedule_reject_queued(am_schedule *schedule); /* with AM_ESHUTDOWN */
void am_schedule_admit(am_schedule *schedule);         /* queued -> restoring */
void am_schedule_restore(am_schedule *schedule);       /* restoring -> prefill */
bool am_schedule_runnable(const am_schedule *schedule);

/* Fills the batch: decoding sequences with their drafts, then at most one chunk (plan.c). */
void am_schedule_plan(am_schedule *schedule);
/* One forward pass (step.c). */
void am_schedule_step(am_schedule *schedule);
/* One token through the model on memory of its own: pages, caches and clocks are warm afterwards. */
am_status am_schedule_warm_up(am_schedule *schedule, am_error *err);

/* Ends a running sequence whose finish is set: commits it, or aborts it when it was cancelled or is ephemeral. */
void am_schedule_end(am_schedule *schedule, am_seq *seq);
/* Ends a queued or running sequence with an ERROR event; its agent is as it was. */
void am_schedule_fail(am_schedule *schedule, am_seq *seq, am_status status, const char *message);

#endif
