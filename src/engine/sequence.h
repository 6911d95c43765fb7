/* One request from submit to its last event: its own copy of what was asked, its state, its text path. The room's own. */
#ifndef AM_ENGINE_SEQUENCE_H
#define AM_ENGINE_SEQUENCE_H

#include "engine/lookup.h"
#include "engine/metrics.h"
#include "engine/sampler.h"
#include "engine/stops.h"

#include <stdatomic.h>

typedef enum am_seq_state {
    AM_SEQ_QUEUED,    /* waits for a turn */
    AM_SEQ_RESTORING, /* has a turn, its blocks are being read */
    AM_SEQ_PREFILL,
    AM_SEQ_DECODE,
    AM_SEQ_COMMIT     /* over; the head is on its way to disk */
} am_seq_state;

typedef struct am_seq {
    struct am_seq *next;                  /* the schedule's list: queue or committing */
    struct am_seq *live_next, *live_prev; /* the engine's list of all, under its lock */
    uint64_t number;
    atomic_bool cancel; /* set by any thread; everything else belongs to the engine thread after submit */
    am_seq_state state;
    void *schedule;     /* for the commit's callback */

    am_arena *arena;    /* what the request points to */
    am_request request;
    const am_model *model;
    am_engine_meter *meter;
    uint64_t seed;
    uint32_t n_passed;  /* requests behind this one that were admitted before it */

    const int32_t *prompt; /* the request's ids or `spliced` */
    uint32_t n_prompt;
    int32_t *spliced; /* stored ids up to the seam, then the request's */
    uint32_t n_max_new;

    am_turn *turn;
    am_turn_info info;
    bool has_info, not_durable;
    uint64_t last_chunk; /* step in which it prefilled last */
    int32_t last;        /* sampled, its row not yet computed */
    uint32_t n_generated, n_drafted, n_accepted;
    am_history history;
    am_lookup lookup;
    am_detok *detok;
    am_buf text; /* one token's text */
    am_stops stops;

    uint64_t submitted_ns, started_ns, first_ns, token_ns /* of the last token */, ended_ns;
    am_finish finish;
    int stop; /* index of the stop string that ended it, or -1 */
} am_seq;

typedef struct am_seq_limits {
    const am_model *model;
    uint32_t n_ctx, n_vocab;
    size_t max_piece; /* bytes of the longest token's text */
    am_engine_meter *meter;
} am_seq_limits;

/* Checks the request and copies it. AM_EINVAL, AM_ENOMEM. *out is freed with am_seq_free (which aborts a turn that is still held). */
am_status am_seq_create(const am_request *request, const am_seq_limits *limits, am_seq **out, am_error *err);
void am_seq_free(am_seq *seq);

/* Puts the agent's stored ids in place of the prompt's where their text agrees (seam.h). The prompt stays below n_ctx. */
am_status am_seq_splice(am_seq *seq, const int32_t *stored, uint32_t n_stored, uint32_t n_ctx, am_error *err);
/* Takes the memory that decoding needs; after this no step allocates for the sequence. */
am_status am_seq_prepare(am_seq *seq, uint32_t n_vocab, bool lookup, am_error *err);

/* Takes a sampled token: text, events, and whether the sequence goes on (AM_AGAIN), is over (AM_OK: finish and stop are set) or failed. */
am_status am_seq_accept(am_seq *seq, const am_sample *sample);

void am_seq_send(am_seq *seq, const am_event *event);
void am_seq_send_prefill(am_seq *seq, uint32_t n_done);
/* The last events, and the log line of the request. */
void am_seq_send_done(am_seq *seq);
void am_seq_send_error(am_seq *seq, am_status status, const char *message);

#endif
