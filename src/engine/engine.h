/* The engine: one thread that owns the model's workspace, the cache and every running sequence, and takes them forward step by step.
 *
 * Other threads submit requests, cancel them and post calls; they get events. A step is one forward pass over one decode token of each
 * running sequence plus at most one bounded prefill chunk. Which requests share a step never changes a request's logits (invariant 1).
 *
 *   submit -> QUEUED -(am_turn_open)-> RESTORING -(am_turn_ready)-> PREFILL -> DECODE -> commit -> DONE
 *             any state -(cancel, error, shutdown)-> aborted -> DONE or ERROR event                                            */
#ifndef AM_ENGINE_ENGINE_H
#define AM_ENGINE_ENGINE_H

#include "cache/cache.h"
#include "model/model.h"

typedef struct am_engine am_engine;

/* Drafts looked up in the sequence's own tokens: where measured odds and costs say that they pay, whenever there is one, never. */
typedef enum am_lookup_mode { AM_LOOKUP_AUTO, AM_LOOKUP_ON, AM_LOOKUP_OFF } am_lookup_mode;

enum { AM_MAX_STOPS = 16, AM_MAX_TOP_LOGPROBS = 20, AM_MAX_STOP_TOKENS = 16, AM_MAX_KEPT = 24, AM_MAX_PREDICTION = 65536 };

typedef struct am_logit_bias {
    int32_t token;
    float bias;
} am_logit_bias;

/* Sampling, in this order: logit_bias, penalties over prompt and answer (repetition) or the answer (frequency, presence), temperature (0: greedy), top_k,
 * typical, top_p, min_p, then one draw from a generator seeded by `seed` and the position: the same request with the same seed gives the
 * same tokens whatever else runs. */
typedef struct am_sampling {
    float temperature; /* 0: greedy */
    int32_t top_k;     /* 0: off */
    float top_p;       /* 1: off */
    float min_p;       /* 0: off */
    float typical_p;   /* 1: off */
    float repetition_penalty; /* 1: off */
    float frequency_penalty, presence_penalty;
    bool has_seed;
    uint64_t seed;
    const am_logit_bias *bias;
    uint32_t n_bias;
    int32_t top_logprobs; /* -1: no logprobs; 0..20 alternatives */
} am_sampling;
#define AM_SAMPLING ((am_sampling){.temperature = 1, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .top_logprobs = -1})

typedef enum am_finish { AM_FINISH_STOP, AM_FINISH_LENGTH, AM_FINISH_CANCELED, AM_FINISH_ERROR } am_finish;

typedef struct am_logprob {
    int32_t token;
    float logprob; /* of the model's own distribution, before temperature and truncation */
} am_logprob;

typedef enum am_event_kind {
    AM_EVENT_STARTED,  /* admitted: info is known */
    AM_EVENT_PREFILL,  /* n_done of n_total prompt tokens are in the cache */
    AM_EVENT_TOKEN,    /* text is what became certain (may be empty); with logprobs when asked for */
    AM_EVENT_DONE,     /* the last event; the head is as durable as configured */
    AM_EVENT_ERROR     /* the last event; the agent is as it was */
} am_event_kind;

typedef struct am_event {
    am_event_kind kind;
    const am_turn_info *info; /* STARTED, DONE */
    uint32_t n_done, n_total; /* PREFILL */
    int32_t token;            /* TOKEN; -1 for text that a finish released */
    am_str text;              /* TOKEN */
    float logprob;            /* TOKEN, when asked for */
    const am_logprob *top;    /* TOKEN: n_top entries, likeliest first */
    uint32_t n_top;
    am_finish finish;         /* DONE */
    am_str stop;              /* DONE: the stop string that ended it, or empty */
    uint32_t n_generated;     /* DONE: sampled tokens, the end token included */
    bool not_durable;         /* DONE: the head could not be written; it is in memory, and written when the disk takes it */
    uint32_t n_drafted, n_accepted; /* DONE: tokens that were guessed and computed, and those of them that were right */
    double prefill_ms, decode_ms, queue_ms; /* DONE */
    am_status status;         /* ERROR */
    const char *message;      /* ERROR */
} am_event;

/* Called on the engine thread; copies what it needs and returns at once. After DONE or ERROR nothing more comes. A token that ends the answer
 * (eos, stop token) comes as no TOKEN event; n_generated counts it. DONE of a request that was cancelled in the queue has no info. */
typedef void am_event_fn(void *arg, const am_event *event);

typedef struct am_request {
    char id[64];               /* for the log */
    am_tenant tenant;
    am_str agent;              /* may be empty */
    /* The prompt, as tokens with their text, so that history that tokenises differently from what the model itself wrote still matches
     * (the seam: engine/seam.c). text and input may be empty when only ids are known. */
    am_tokens tokens;
    am_str text;
    const am_span *input;
    size_t n_input;
    const int32_t *prediction; /* [n_prediction] tokens that much of the answer may equal: a source of drafts, nothing else */
    uint32_t n_prediction;     /* at most AM_MAX_PREDICTION are looked at */
    am_sampling sampling;
    uint32_t max_tokens;       /* 0: as many as the context allows */
    const am_str *stops;       /* stop strings: the answer ends before the first that appears */
    uint32_t n_stops;
    int32_t stop_tokens[AM_MAX_STOP_TOKENS]; /* besides the model's eos */
    uint32_t n_stop_tokens;
    bool ignore_eos;
    bool keep_special;         /* show control tokens in the text */
    int32_t kept[AM_MAX_KEPT]; /* else only these: what marks calls and thoughts */
    uint32_t n_kept;
    bool ephemeral, no_reuse;
    am_event_fn *on_event;
    void *arg;
} am_request;

typedef struct am_engine_options {
    const am_model *model;
    am_workers *workers;
    am_cache_options cache;    /* wake is set by the engine; n_turns from max_parallel */
    uint32_t n_ctx;            /* longest sequence; at most the model's */
    uint32_t max_parallel;     /* sequences that run at once (16) */
    uint32_t max_queue;        /* requests that wait (256) */
    uint32_t chunk_tokens;     /* longest prefill chunk (256, at most AM_BLOCK_TOKENS) */
    uint32_t step_ms;          /* aim for a step's time while others decode (100): shortens chunks by measured speed */
    am_lookup_mode lookup;
    uint64_t seed;             /* base for requests without one; 0: from the system */
    struct am_engine_meter *meter; /* engine/metrics.h; outlives the engine. NULL: nobody asks for its counts */
    /* For tests of invariant 1: sees the logits [n_vocab] of every position that is sampled, on the engine thread. A script may change them, so
     * that an answer is known beforehand. May be NULL. */
    void (*on_logits)(void *arg, const char *request, uint32_t position, float *logits);
    void *on_logits_arg;
} am_engine_options;

/* Opens the cache (am_cache_lock_dir is the caller's), makes the workspace, runs one pass to warm up, starts the thread. */
am_status am_engine_start(const am_engine_options *options, am_engine **out, am_error *err);

/* Thread-safe. Everything the request points to is copied. AM_ELIMIT: the queue is full; AM_EINVAL: prompt empty or prompt (+ 1) longer than
 * n_ctx; AM_ESHUTDOWN: draining. *id names it for cancel. */
am_status am_engine_submit(am_engine *engine, const am_request *request, uint64_t *id, am_error *err);
void am_engine_cancel(am_engine *engine, uint64_t id); /* its slots are free before the next step; ends with DONE, AM_FINISH_CANCELED */

/* Runs fn on the engine thread between steps and waits for it: the only way for others to look into the cache. AM_ESHUTDOWN; AM_EBUSY on the
 * engine thread itself (from an event), which cannot wait for itself. */
am_status am_engine_call(am_engine *engine, void (*fn)(void *arg, am_cache *cache), void *arg);

/* Requests without a seed of their own draw from this one from now on, the first as the first did that came after a start with it. 0: from the system. */
void am_engine_seed(am_engine *engine, uint64_t seed);

/* Paused: no step is taken and nothing is admitted; calls, cancels and the cache's writes go on. */
void am_engine_pause(am_engine *engine, bool paused);
/* Cancels whatever waits or runs now; what is submitted later is not touched. */
void am_engine_cancel_all(am_engine *engine);

typedef struct am_engine_stats {
    uint32_t n_queued, n_running, max_queue, max_parallel, n_ctx;
    uint64_t n_steps, n_requests, n_prompt_tokens, n_cached_tokens, n_generated_tokens, n_canceled, n_failed;
    uint64_t last_step_ns;     /* monotonic time of the last step or idle wake: liveness */
    double prefill_tokens_per_s, decode_tokens_per_s; /* moving averages */
    size_t workspace_bytes; /* scratch of the forward pass and its logits */
    const void *logits;     /* where the latter are: rows that no step has needed yet have no pages (am_footprint_resident) */
    size_t logits_bytes;
    am_cache_stats cache;
} am_engine_stats;
void am_engine_stats_get(const am_engine *engine, am_engine_stats *out); /* thread-safe, as of the last step */

/* The stages of shutdown that are the engine's; each returns when it is done. stop_admitting: submit says AM_ESHUTDOWN from now on and queued
 * requests end with ERROR AM_ESHUTDOWN. drain: waits until nothing runs, at most timeout_ms (or until *hurry becomes nonzero), then cancels what
 * is left. persist: every dirty head and block. stop: ends the thread, closes the cache, frees everything. */
void am_engine_stop_admitting(am_engine *engine);
void am_engine_drain(am_engine *engine, uint32_t timeout_ms, const volatile int *hurry);
am_status am_engine_persist(am_engine *engine, am_error *err);
void am_engine_stop(am_engine *engine);

#endif
