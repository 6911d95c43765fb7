/* Owns admission and endings.
 *
 *   queue --am_turn_open--> RESTORING --am_turn_ready--> PREFILL --first sample--> DECODE --commit--> COMMIT --done--> released
 *     |          (admit)        |           (restore)       |                        |
 *     +---------------------- am_schedule_sweep, am_schedule_fail: abort ------------+--> released
 *
 * Order of admission: first come, first served, but a request for which there is no room now (AM_AGAIN) lets later ones pass. Each one that
 * passes is counted, and after MAX_PASSES nobody passes any more, so a large request waits a bounded time behind small ones. Opening a
 * turn hashes the prompt, so a try over the queue stops after MAX_TRIES refusals and is made only when something changed. */
#include "engine/schedule.h"


#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PASSES = 8, MAX_TRIES = 8 };

static void list_push(am_seq_list *list, am_seq *seq) {
    seq->next = NULL;
    if (list->tail)
        list->tail->next = seq;
    else
        list->head = seq;
    list->tail = seq;
    list->n++;
}

static void list_remove(am_seq_list *list, am_seq *seq) {
    am_seq *prev = NULL;
    for (am_seq *s = list->head; s != seq; s = s->next) prev = s;
    if (prev)
        prev->next = seq->next;
    else
        list->head = seq->next;
    if (list->tail == seq) list->tail = prev;
    list->n--;
}

am_status am_schedule_init(am_schedule *s, const am_engine_options *options, am_error *err) {
    const am_model_info *info = am_model_info_of(options->model);
    *s = (am_schedule){.options = *options, .n_vocab = info->n_vocab, .retry = true};
    s->hand = am_inhand_take(info->name, options->cache.kernels->name);
    bool lookup = options->lookup != AM_LOOKUP_OFF;
    uint32_t n_segments = options->max_parallel + 1, n_draft = lookup ? AM_MAX_DRAFT : 0, n_rows = n_segments + n_draft;
    size_t n_logits;
    s->running = am_calloc(options->max_parallel, sizeof *s->running);
    s->segments = am_calloc(n_segments, sizeof *s->segments);
    s->batch = am_calloc(n_segments, sizeof *s->batch);
    s->drafts = am_calloc(n_segments, sizeof *s->drafts);
    s->n_logits = n_rows;
    am_lookup_odds_init(&s->odds);
    s->logits = am_size_mul(n_rows, info->n_vocab, &n_logits) ? am_alloc_aligned(n_logits * sizeof *s->logits) : NULL;
    if (!s->running || !s->segments || !s->batch || !s->drafts || !s->logits)
        return am_fail(err, AM_ENOMEM, "no memory for %u parallel requests", options->max_parallel);
    am_status status = am_sampler_create(info->n_vocab, options->cache.kernels, &s->sampler, err);
    if (status) return status;
    return am_workspace_create(options->model, &options->cache.layout, options->workers, options->max_parallel + n_draft + options->chunk_tokens,
                               n_rows, &s->workspace, err);
}

void am_schedule_free(am_schedule *s) {
    am_inhand_give(s->hand);
    am_workspace_free(s->workspace);
    am_sampler_free(s->sampler);
    free(s->running);
    free(s->segments);
    free(s->batch);
    free(s->drafts);
    free(s->logits);
}

void am_schedule_add(am_schedule *s, am_seq *seq) {
    seq->state = AM_SEQ_QUEUED;
    seq->schedule = s;
    list_push(&s->queue, seq);
    s->retry = true;
    s->stats.n_requests++;
    am_log(AM_LOG_DEBUG, "request_queued", AM_LS("id", seq->request.id), AM_LV("agent", seq->request.agent),
           AM_LU("tokens", seq->n_prompt), AM_LU("behind", s->queue.n - 1));
}

/* Takes a sequence out of the queue or the running ones. Its turn is the caller's. */
static void leave(am_schedule *s, am_seq *seq) {
    if (seq->state == AM_SEQ_QUEUED) {
        list_remove(&s->queue, seq);
    } else {
        uint32_t at = 0;
        while (s->running[at] != seq) at++;
        memmove(&s->running[at], &s->running[at + 1], (--s->n_running - at) * sizeof *s->running);
    }
    s->retry = true;
    seq->ended_ns = am_now_ns();
}

static void abort_turn(am_seq *seq) {
    if (seq->turn) am_turn_abort(seq->turn);
    seq->turn = NULL;
}

void am_schedule_fail(am_schedule *s, am_seq *seq, am_status status, const char *message) {
    leave(s, seq);
    abort_turn(seq);
    s->stats.n_failed++;
    s->settled(s->arg);
    am_seq_send_error(seq, status, message);
    s->release(s->arg, seq);
}

/* am_cache_poll calls this when the head is durable, or could not be written: then it is still in memory, and the answer was given. */
static void commit_done(void *arg, am_status status) {
    am_seq *seq = arg;
    am_schedule *s = seq->schedule;
    list_remove(&s->committing, seq);
    seq->not_durable = status != AM_OK;
    if (status)
        am_log(AM_LOG_WARN, "head_not_durable", AM_LS("id", seq->request.id), AM_LS("agent", seq->info.agent),
               AM_LS("reason", am_status_text(status)));
    s->retry = true;
    am_seq_send_done(seq);
    s->release(s->arg, seq);
}

void am_schedule_end(am_schedule *s, am_seq *seq) {
    leave(s, seq);
    s->stats.n_generated_tokens += seq->n_generated;
    if (seq->finish == AM_FINISH_CANCELED) s->stats.n_canceled++;
    bool commit = seq->finish != AM_FINISH_CANCELED && !seq->request.ephemeral;
    if (!commit) abort_turn(seq);
    s->settled(s->arg);
    if (!commit) {
        am_seq_send_done(seq);
        s->release(s->arg, seq);
        return;
    }
    am_turn *turn = seq->turn;
    seq->turn = NULL;
    seq->state = AM_SEQ_COMMIT;
    list_push(&s->committing, seq);
    am_turn_commit(turn, &seq->last, 1, commit_done, seq);
}

static void end_if_canceled(am_schedule *s, am_seq *seq) {
    if (!atomic_load_explicit(&seq->cancel, memory_order_acquire)) return;
    seq->finish = AM_FINISH_CANCELED;
    am_schedule_end(s, seq);
}

void am_schedule_sweep(am_schedule *s) {
    for (am_seq *seq = s->queue.head, *next; seq; seq = next) {
        next = seq->next;
        end_if_canceled(s, seq);
    }
    for (uint32_t i = s->n_running; i-- > 0;) end_if_canceled(s, s->running[i]);
}

void am_schedule_reject_queued(am_schedule *s) {
    while (s->queue.head) am_schedule_fail(s, s->queue.head, AM_ESHUTDOWN, "the server is shutting down");
}

/* AM_AGAIN: no room, or stored tokens are still being read. */
static am_status open_turn(am_schedule *s, am_seq *seq, am_error *err) {
    const am_request *r = &seq->request;
    if (r->agent.n > 0 && !r->no_reuse && r->text.n > 0) {
        const int32_t *stored;
        uint32_t n_stored;
        am_status status = am_cache_tokens(s->cache, &r->tenant, r->agent, &stored, &n_stored);
        if (status == AM_AGAIN) return status;
        if (status == AM_OK) status = am_seq_splice(seq, stored, n_stored, s->options.n_ctx, err);
        if (status && status != AM_ENOTFOUND) return status;
    }
    uint32_t room = s->options.n_ctx - seq->n_prompt;
    seq->n_max_new = r->max_tokens && r->max_tokens < room ? r->max_tokens : room;
    am_turn_request request = {.tenant = &r->tenant,
                               .agent = r->agent,
                               .tokens = seq->prompt,
                               .n_tokens = seq->n_prompt,
                               .n_max_new = seq->n_max_new,
                               .no_reuse = r->no_reuse,
                               .ephemeral = r->ephemeral};
    am_status status = am_turn_open(s->cache, &request, &seq->turn, err);
    return status ? status : am_seq_prepare(seq, s->n_vocab, s->options.lookup != AM_LOOKUP_OFF, err);
}

static void start_restoring(am_schedule *s, am_seq *seq) {
    list_remove(&s->queue, seq);
    seq->state = AM_SEQ_RESTORING;
    seq->started_ns = am_now_ns();
    am_metric_observe_in(&am_metric_queue_time, seq->meter->cells, 0, seq->started_ns - seq->submitted_ns);
    s->running[s->n_running++] = seq;
    am_log(AM_LOG_DEBUG, "request_admitted", AM_LS("id", seq->request.id), AM_LU("tokens", seq->n_prompt),
           AM_LU("may_follow", seq->n_max_new));
}

void am_schedule_admit(am_schedule *s) {
    if (!s->retry) return;
    s->retry = false;
    uint32_t n_tries = 0;
    am_seq *seq = s->queue.head, *next;
    for (; seq && s->n_running < s->options.max_parallel && n_tries < MAX_TRIES; seq = next) {
        next = seq->next;
        am_error err = {0};
        am_status status = open_turn(s, seq, &err);
        if (status == AM_OK) {
            for (am_seq *before = s->queue.head; before != seq; before = before->next) before->n_passed++;
            start_restoring(s, seq);
        } else if (status == AM_AGAIN) {
            n_tries++;
            if (seq->n_passed >= MAX_PASSES) return;
        } else {
            am_schedule_fail(s, seq, status, err.message[0] ? err.message : am_status_text(status));
        }
    }
}

void am_schedule_restore(am_schedule *s) {
    for (uint32_t i = 0; i < s->n_running; i++) {
        am_seq *seq = s->running[i];
        if (seq->state != AM_SEQ_RESTORING || am_turn_ready(seq->turn) == AM_AGAIN) continue;
        seq->info = *am_turn_info_of(seq->turn);
        seq->has_info = true;
        seq->state = AM_SEQ_PREFILL;
        s->stats.n_prompt_tokens += seq->n_prompt;
        s->stats.n_cached_tokens += seq->info.n_cached;
        am_log(AM_LOG_DEBUG, "request_started", AM_LS("id", seq->request.id), AM_LS("agent", seq->info.agent),
               AM_LS("tier", am_tier_name(seq->info.tier)), AM_LU("cached", seq->info.n_cached),
               AM_LF("restore_ms", seq->info.restore_ms));
        am_metrics_of_turn(seq->meter, &seq->info);
        am_seq_send(seq, &(am_event){.kind = AM_EVENT_STARTED, .info = &seq->info});
    }
}

bool am_schedule_runnable(const am_schedule *s) {
    for (uint32_t i = 0; i < s->n_running; i++)
        if (s->running[i]->state != AM_SEQ_RESTORING) return true;
    return false;
}
