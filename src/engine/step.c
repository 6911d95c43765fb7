/* Owns the step: one pass over the batch that was planned, and what becomes of the logits.
 *
 * A drafted token's row is computed before anybody knows whether the token is right. It becomes the sequence's when it was sampled from the row before it:
 * rows are taken one by one, in the order in which plain decoding would have computed them, each with the state that plain decoding would have had, and
 * taking ends at the first that differs. What lies behind it in the open block was never the sequence's: attention sees no row beyond a
 * query's own position, saving looks at the rows that are counted, the next pass writes over it, and a block is sealed only when
 * its last row was taken. So drafts change nothing but the time (invariant 1). */
#include "base/clock.h"
#include "base/log.h"
#include "engine/schedule.h"

#include <stdlib.h>

static void average(double *mean, double value) { *mean = *mean == 0 ? value : *mean + 0.2 * (value - *mean); }

/* Should a batch fail, each segment is tried alone, so that the fault stays with its owner. */
static void forward_alone(am_schedule *s) {
    uint32_t n_kept = 0;
    for (uint32_t i = 0; i < s->n_batch; i++) {
        am_error err = {0};
        am_status status = am_model_forward(s->options.model, s->workspace, &s->segments[i], 1, &err);
        if (status) {
            am_schedule_fail(s, s->batch[i], status, err.message[0] ? err.message : am_status_text(status));
            continue;
        }
        s->segments[n_kept] = s->segments[i];
        s->batch[n_kept++] = s->batch[i];
    }
    s->n_batch = n_kept;
}

/* Takes n rows that the pass wrote for a sequence. */
static void advance(am_schedule *s, am_seq *seq, const int32_t *tokens, uint32_t n) {
    bool seals = (am_turn_n_past(seq->turn) + n) % AM_BLOCK_TOKENS == 0;
    uint64_t start = seals ? am_now_ns() : 0;
    am_turn_advance(seq->turn, tokens, n);
    if (!seals) return;
    double ns = (double)(am_now_ns() - start);
    average(&s->seal_ns, ns);
    s->sealing_ns += ns;
}

/* AM_AGAIN: the sequence goes on. Else it has ended and is gone. */
static am_status take_logits(am_schedule *s, am_seq *seq, float *logits) {
    am_draw draw = {&seq->request.sampling, seq->history.seen ? &seq->history : NULL, seq->seed, am_turn_n_past(seq->turn)};
    am_sample sample;
    if (s->options.on_logits) s->options.on_logits(s->options.on_logits_arg, seq->request.id, (uint32_t)draw.position, logits);
    am_sampler_pick(s->sampler, &draw, logits, &sample);
    am_lookup_add(&seq->lookup, sample.token, &s->odds);
    seq->state = AM_SEQ_DECODE;
    am_status status = am_seq_accept(seq, &sample);
    if (status == AM_OK)
        am_schedule_end(s, seq);
    else if (status != AM_AGAIN)
        am_schedule_fail(s, seq, status, am_status_text(status));
    return status;
}

/* Returns how many tokens came of a decoding sequence's segment. */
static uint32_t take_decoded(am_schedule *s, am_seq *seq, const am_segment *segment) {
    uint32_t n = 0;
    am_status status;
    seq->n_drafted += segment->n_tokens - 1;
    am_metric_add_in(&am_metric_drafted_tokens, seq->meter->cells, 0, segment->n_tokens - 1);
    do {
        if (n > 0) {
            seq->n_accepted++;
            am_metric_add_in(&am_metric_accepted_tokens, seq->meter->cells, 0, 1);
        }
        advance(s, seq, segment->tokens + n, 1);
        status = take_logits(s, seq, segment->logits + (size_t)n * s->n_vocab);
        n++;
    } while (status == AM_AGAIN && n < segment->n_tokens && seq->last == segment->tokens[n] &&
             !atomic_load_explicit(&seq->cancel, memory_order_acquire));
    return n;
}

static void take_prefilled(am_schedule *s, am_seq *seq, const am_segment *segment) {
    advance(s, seq, segment->tokens, segment->n_tokens);
    am_seq_send_prefill(seq, am_turn_n_past(seq->turn));
    if (segment->n_logits) take_logits(s, seq, segment->logits);
}

/* A chunk's tokens as the pass's time knows them: the mean over its layers, where some were given up on the way. */
static uint32_t chunk_rows(const am_schedule *s, uint32_t n_chunk) { return s->n_asked ? (s->n_kept + s->n_asked / 2) / s->n_asked : n_chunk; }

static void measure(am_schedule *s, uint32_t n_rows, uint32_t n_chunk, uint32_t n_decoded, double ns) {
    if (n_chunk == 0) {
        am_pace_saw(&s->decode_pace, n_rows, ns);
        average(&s->decode_token_ns, ns / n_decoded);
    } else {
        am_pace_saw(&s->mixed_pace, n_rows + chunk_rows(s, n_chunk), ns);
        double rest = ns - (n_rows ? am_pace_ns(&s->decode_pace, n_rows) : 0);
        average(&s->prefill_token_ns, (rest > 1000 ? rest : 1000) / n_chunk);
    }
    s->stats.prefill_tokens_per_s = s->prefill_token_ns > 0 ? 1e9 / s->prefill_token_ns : 0;
    s->stats.decode_tokens_per_s = s->decode_token_ns > 0 ? 1e9 / s->decode_token_ns : 0;
}

void am_schedule_step(am_schedule *s) {
    s->step_start_ns = am_now_ns();
    s->sealing_ns = 0;
    s->n_asked = s->n_kept = 0;
    am_schedule_plan(s);
    if (s->n_batch == 0) return;
    am_error err = {0};
    for (uint32_t i = 0; i < s->n_batch; i++) am_inhand_put(s->hand, s->batch[i]->request.id, s->batch[i]->info.agent);
    am_inhand_begin(s->hand);
    if (am_model_forward(s->options.model, s->workspace, s->segments, s->n_batch, &err)) {
        am_log(AM_LOG_ERROR, "step_failed", AM_LS("reason", err.message));
        forward_alone(s);
    }
    am_inhand_done(s->hand);
    s->n_steps++;
    uint32_t n_rows = 0, n_chunk = 0, n_decoded = 0;
    for (uint32_t i = 0; i < s->n_batch; i++) {
        am_seq *seq = s->batch[i];
        if (seq->state == AM_SEQ_DECODE) {
            n_rows += s->segments[i].n_tokens;
            n_decoded += take_decoded(s, seq, &s->segments[i]);
        } else {
            n_chunk += s->segments[i].n_tokens;
            take_prefilled(s, seq, &s->segments[i]);
        }
    }
    if (s->n_batch > 0) measure(s, n_rows, n_chunk, n_decoded, (double)(am_now_ns() - s->step_start_ns) - s->sealing_ns);
}

am_status am_schedule_warm_up(am_schedule *s, am_error *err) {
    void *open = am_alloc_aligned(s->options.cache.layout.open_bytes);
    if (!open) return am_fail(err, AM_ENOMEM, "no memory to warm up");
    int32_t token = 0; /* one: it goes through all weights, and the workspace was touched when it was zeroed; a whole chunk is seconds of a large model */
    am_segment segment = {.tokens = &token, .n_tokens = 1, .open = open, .logits = s->logits, .n_logits = 1};
    am_status status = am_model_forward(s->options.model, s->workspace, &segment, 1, err);
    free(open);
    return status;
}
