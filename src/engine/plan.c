/* Owns what goes into a step: how many drafted tokens each decoding sequence brings, and how long the chunk of a prompt is.
 *
 * A batch is one token of each decoding sequence, drafts behind some of them, and at most one chunk of one prefilling sequence, so nobody waits longer
 * for a token than one pass takes. The chunk goes to the sequence that has waited longest for one. Its length: up to the block's border, at
 * most chunk_tokens; while others decode, what fits into step_ms by the times measured so far (pace.h), and of as many chunks as the block takes all alike: a
 * short last one would cost what a pass costs, and the others' steps would be the longer for nothing. A pass that is late all the same (the machine was
 * away for a moment) gives up the chunk's last tokens on its way, and they come again in the next one.
 *
 * Drafts are worth their rows when the tokens expected of the step, over the time it is expected to take, are more than without: rows are added in
 * the order of their odds, over all sequences, and the number that gives most is taken. Beside a chunk rows are scarce: there only likely drafts
 * go along, in a share of them. None of this can change a logit (invariant 1), so the clock may decide. */
#include "base/clock.h"
#include "engine/schedule.h"

enum { MIN_CHUNK = 8, FIRST_CHUNK = 32 /* beside decoders, before any speed was measured */, DRAFT_SHARE = 4 };

static const double least_gain = 1.02;       /* expected of drafts, so that what is misjudged costs little */
static const float least_odds = 0.05f, likely = 0.7f;
static const double step_margin = 0.9;       /* of step_ms: a pass in a hundred takes a tenth longer than was expected, */
static const double late_margin = 0.95;      /* and gives up tokens from here on */

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

static double step_limit_ns(const am_schedule *s) { return step_margin * s->options.step_ms * 1e6; }

/* Rows behind the last token that may be computed: up to the block's border, and none whose logits nobody could want. */
static uint32_t draft_room(const am_seq *seq) {
    uint32_t border = AM_BLOCK_TOKENS - am_turn_n_past(seq->turn) % AM_BLOCK_TOKENS, wanted = seq->n_max_new - seq->n_generated;
    return least(least(border, wanted) - 1, AM_MAX_DRAFT);
}

/* The sequence whose next drafted token is the likeliest. */
static uint32_t likeliest_draft(const am_draft *drafts, uint32_t n, float above) {
    uint32_t best = n;
    for (uint32_t i = 0; i < n; i++) {
        const am_draft *d = &drafts[i];
        if (d->tried == d->most || d->odds[d->tried] <= above) continue;
        above = d->odds[d->tried];
        best = i;
    }
    return best;
}

static void choose_drafts(am_schedule *s, uint32_t n_seqs, bool beside_chunk) {
    double now = am_pace_ns(&s->decode_pace, n_seqs), best = n_seqs * least_gain / now, expected = n_seqs;
    uint32_t order[AM_MAX_DRAFT], n = 0, n_best = 0, most = AM_MAX_DRAFT;
    bool all = s->options.lookup == AM_LOOKUP_ON;
    if (!all && now == 0) return;
    if (beside_chunk) most /= DRAFT_SHARE;
    while (n < most) {
        uint32_t i = likeliest_draft(s->drafts, n_seqs, all ? 0 : beside_chunk ? likely : least_odds);
        if (i == n_seqs) break;
        expected += s->drafts[i].odds[s->drafts[i].tried++];
        order[n++] = i;
        double ns = am_pace_ns(&s->decode_pace, n_seqs + n);
        if (!all && ns > step_limit_ns(s)) break;
        if (all || beside_chunk || expected / ns > best) {
            best = expected / ns;
            n_best = n;
        }
    }
    for (uint32_t i = 0; i < n_best; i++) s->drafts[order[i]].n++;
}

static const am_pace *pace_beside(const am_schedule *s) { return s->mixed_pace.level > 0 ? &s->mixed_pace : &s->decode_pace; }

/* Rows of a step with a chunk that fit into the time that there is. */
static uint32_t rows_in(const am_schedule *s, double ns) {
    const am_pace *pace = pace_beside(s);
    if (pace->level == 0) return FIRST_CHUNK;
    uint32_t n = 1, most = s->options.chunk_tokens + s->n_logits;
    while (n < most && am_pace_ns(pace, n + 1) <= ns) n++;
    return n;
}

static uint32_t chunk_tokens(const am_schedule *s, const am_seq *seq, uint32_t n_rows) {
    uint32_t n_past = am_turn_n_past(seq->turn), border = AM_BLOCK_TOKENS - n_past % AM_BLOCK_TOKENS;
    uint32_t left = least(seq->n_prompt - n_past, border), most = least(left, s->options.chunk_tokens);
    if (n_rows == 0) return most; /* nobody waits for a token */
    uint32_t fit = rows_in(s, step_limit_ns(s));
    most = least(most, fit > n_rows + MIN_CHUNK ? fit - n_rows : MIN_CHUNK);
    uint32_t n_chunks = (left + most - 1) / most, n = (left + n_chunks - 1) / n_chunks;
    if (n < border || n <= MIN_CHUNK) return n;
    fit = rows_in(s, step_limit_ns(s) - s->seal_ns); /* the step that fills the block seals it too */
    return fit >= n_rows + n ? n : n - MIN_CHUNK / 2;
}

/* Of n tokens of the chunk, those that the layers from `layer` on have time for. */
static uint32_t keep_in_time(void *arg, uint32_t layer, uint32_t n) {
    am_schedule *s = arg;
    const am_pace *pace = pace_beside(s);
    double left = late_margin * s->options.step_ms * 1e6 - s->chunk_seal_ns - (double)(am_now_ns() - s->step_start_ns);
    double share = 1 - (double)layer / s->options.cache.layout.spec.n_layer;
    while (n > 1 && share * am_pace_ns(pace, s->n_beside + n) > left) n--;
    s->n_kept += n;
    s->n_asked++;
    return n;
}

static void add_segment(am_schedule *s, am_seq *seq, const int32_t *tokens, uint32_t n, uint32_t n_logits) {
    s->segments[s->n_batch] = (am_segment){
        .tokens = tokens,
        .n_tokens = n,
        .n_past = am_turn_n_past(seq->turn),
        .sealed = am_turn_sealed(seq->turn),
        .open = am_turn_open_block(seq->turn),
        .n_logits = n_logits,
    };
    s->batch[s->n_batch++] = seq;
}

/* The chunk just added goes beside n_rows that wait for their tokens, and ends before position `end`. */
static void keep_time(am_schedule *s, uint32_t n_rows, uint32_t end) {
    am_segment *chunk = &s->segments[s->n_batch - 1];
    chunk->keep = keep_in_time;
    chunk->keep_arg = s;
    s->n_beside = n_rows;
    s->chunk_seal_ns = end % AM_BLOCK_TOKENS == 0 ? s->seal_ns : 0;
}

/* Each segment's logits behind those of the one before. */
static void place_logits(am_schedule *s) {
    float *at = s->logits;
    for (uint32_t i = 0; i < s->n_batch; i++) {
        uint32_t n = s->segments[i].n_logits;
        s->segments[i].logits = n ? at : NULL;
        at += (size_t)n * s->n_vocab;
    }
}

void am_schedule_plan(am_schedule *s) {
    am_seq *prefill = NULL;
    uint32_t n_seqs = 0, n_rows = 0;
    s->n_batch = 0;
    for (uint32_t i = 0; i < s->n_running; i++) {
        am_seq *seq = s->running[i];
        if (seq->state == AM_SEQ_PREFILL && (!prefill || seq->last_chunk < prefill->last_chunk)) prefill = seq;
        if (seq->state != AM_SEQ_DECODE) continue;
        am_draft *draft = &s->drafts[n_seqs];
        draft->tokens[0] = seq->last;
        draft->most = am_lookup_draft(&seq->lookup, &s->odds, draft_room(seq), draft->tokens + 1, draft->odds);
        draft->n = draft->tried = 0;
        s->batch[n_seqs++] = seq;
    }
    choose_drafts(s, n_seqs, prefill != NULL);
    for (uint32_t i = 0; i < n_seqs; i++) {
        const am_draft *draft = &s->drafts[i];
        add_segment(s, s->batch[i], draft->tokens, 1 + draft->n, 1 + draft->n);
        n_rows += 1 + draft->n;
    }
    if (prefill) {
        uint32_t n_past = am_turn_n_past(prefill->turn), n = chunk_tokens(s, prefill, n_rows);
        prefill->last_chunk = s->n_steps + 1;
        add_segment(s, prefill, prefill->prompt + n_past, n, n_past + n == prefill->n_prompt);
        if (n_rows > 0 && n > MIN_CHUNK) keep_time(s, n_rows, n_past + n);
    }
    place_logits(s);
}
