/* Owns the step: which tokens go through the model together, and what becomes of the logits.
 *
 * A batch is one token of each decoding sequence and at most one chunk of one prefilling sequence, so nobody waits longer for a token
 * than one pass with a chunk takes. The chunk goes to the sequence that has waited longest for one. Its length: up to the
 * block's border, at most chunk_tokens; while others decode, at most what fits into step_ms by the speed measured so far. None of this can
 * change a logit (invariant 1), so the clock may decide. */
#include "base/clock.h"
#include "base/log.h"
#include "engine/schedule.h"

#include <stdlib.h>

enum { MIN_CHUNK = 16, FIRST_CHUNK = 32 /* beside decoders, before any speed was measured */ };

static void average(double *mean, double value) { *mean = *mean == 0 ? value : *mean + 0.2 * (value - *mean); }

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

static uint32_t chunk_limit(const am_schedule *s, bool others_decode) {
    uint32_t most = s->options.chunk_tokens;
    if (!others_decode) return most;
    if (s->prefill_token_ns == 0) return least(most, FIRST_CHUNK);
    double tokens = (s->options.step_ms * 1e6 - s->decode_ns) / s->prefill_token_ns;
    if (tokens >= most) return most;
    return tokens > MIN_CHUNK ? (uint32_t)tokens : least(most, MIN_CHUNK);
}

static void add_segment(am_schedule *s, am_seq *seq, const int32_t *tokens, uint32_t n, bool wants_logits) {
    s->segments[s->n_batch] = (am_segment){
        .tokens = tokens,
        .n_tokens = n,
        .n_past = am_turn_n_past(seq->turn),
        .sealed = am_turn_sealed(seq->turn),
        .open = am_turn_open_block(seq->turn),
        .logits = wants_logits ? s->logits + (size_t)s->n_batch * s->n_vocab : NULL,
        .n_logits = wants_logits,
    };
    s->batch[s->n_batch++] = seq;
}

static void build_batch(am_schedule *s) {
    am_seq *prefill = NULL;
    s->n_batch = 0;
    for (uint32_t i = 0; i < s->n_running; i++) {
        am_seq *seq = s->running[i];
        if (seq->state == AM_SEQ_DECODE) add_segment(s, seq, &seq->last, 1, true);
        if (seq->state == AM_SEQ_PREFILL && (!prefill || seq->last_chunk < prefill->last_chunk)) prefill = seq;
    }
    if (!prefill) return;
    uint32_t n_past = am_turn_n_past(prefill->turn);
    uint32_t n = least(prefill->n_prompt - n_past, AM_BLOCK_TOKENS - n_past % AM_BLOCK_TOKENS);
    n = least(n, chunk_limit(s, s->n_batch > 0));
    prefill->last_chunk = s->n_steps + 1;
    add_segment(s, prefill, prefill->prompt + n_past, n, n_past + n == prefill->n_prompt);
}

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

static void measure(am_schedule *s, uint32_t n_decode, uint32_t n_prefill, double ns) {
    if (n_prefill == 0) {
        average(&s->decode_ns, ns);
        average(&s->decode_token_ns, ns / n_decode);
    } else {
        double rest = ns - (n_decode ? s->decode_ns : 0);
        average(&s->prefill_token_ns, (rest > 1000 ? rest : 1000) / n_prefill);
    }
    s->stats.prefill_tokens_per_s = s->prefill_token_ns > 0 ? 1e9 / s->prefill_token_ns : 0;
    s->stats.decode_tokens_per_s = s->decode_token_ns > 0 ? 1e9 / s->decode_token_ns : 0;
}

static void take_logits(am_schedule *s, am_seq *seq, const float *logits) {
    am_draw draw = {&seq->request.sampling, seq->history.seen ? &seq->history : NULL, seq->seed, am_turn_n_past(seq->turn)};
    am_sample sample;
    if (s->options.on_logits) s->options.on_logits(s->options.on_logits_arg, seq->request.id, (uint32_t)draw.position, logits);
    am_sampler_pick(s->sampler, &draw, logits, &sample);
    seq->state = AM_SEQ_DECODE;
    am_status status = am_seq_accept(seq, &sample);
    if (status == AM_OK)
        am_schedule_end(s, seq);
    else if (status != AM_AGAIN)
        am_schedule_fail(s, seq, status, am_status_text(status));
}

void am_schedule_step(am_schedule *s) {
    build_batch(s);
    if (s->n_batch == 0) return;
    uint64_t start = am_now_ns();
    am_error err = {0};
    for (uint32_t i = 0; i < s->n_batch; i++) am_inhand_put(s->hand, s->batch[i]->request.id, s->batch[i]->info.agent);
    am_inhand_begin(s->hand);
    if (am_model_forward(s->options.model, s->workspace, s->segments, s->n_batch, &err)) {
        am_log(AM_LOG_ERROR, "step_failed", AM_LS("reason", err.message));
        forward_alone(s);
    }
    am_inhand_done(s->hand);
    uint32_t n_decode = 0, n_prefill = 0;
    for (uint32_t i = 0; i < s->n_batch; i++) {
        *(s->batch[i]->state == AM_SEQ_DECODE ? &n_decode : &n_prefill) += s->segments[i].n_tokens;
        am_turn_advance(s->batch[i]->turn, s->segments[i].tokens, s->segments[i].n_tokens);
    }
    s->n_steps++;
    if (s->n_batch > 0) measure(s, n_decode, n_prefill, (double)(am_now_ns() - start));
    for (uint32_t i = 0; i < s->n_batch; i++) {
        am_seq *seq = s->batch[i];
        if (seq->state == AM_SEQ_PREFILL) am_seq_send_prefill(seq, am_turn_n_past(seq->turn));
        if (s->segments[i].logits) take_logits(s, seq, s->segments[i].logits);
    }
}

am_status am_schedule_warm_up(am_schedule *s, am_error *err) {
    void *open = am_alloc_aligned(s->options.cache.layout.open_bytes);
    if (!open) return am_fail(err, AM_ENOMEM, "no memory to warm up");
    int32_t tokens[AM_BLOCK_TOKENS] = {0}; /* a whole chunk, so that the first request finds all scratch memory touched */
    am_segment segment = {.tokens = tokens, .n_tokens = s->options.chunk_tokens, .open = open, .logits = s->logits, .n_logits = 1};
    am_status status = am_model_forward(s->options.model, s->workspace, &segment, 1, err);
    free(open);
    return status;
}
