/* Owns `eval`: how much a form of the cache loses against an exact one (float32), on a text: perplexity, mean Kullback-Leibler divergence
 * of the next token's distribution, share of positions whose likeliest token is the same; and recall of facts (eval_needle.c).
 *
 * All forms go through the text side by side, block by block, through the model's own pass with the block forms of the product: a token
 * sees its own block exact and earlier blocks sealed. The first block has nothing sealed before it and does not count. */
#include "main/eval.h"

#include "base/fs.h"
#include "engine/sampler.h"
#include "main/progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TEXT_BYTES = 1 << 30 };

static bool form_groups(const char *text, am_kv_spec *spec) {
    char *end;
    spec->group_k = spec->group_v = (uint32_t)strtoul(text, &end, 10);
    if (*end == ',') spec->group_v = (uint32_t)strtoul(end + 1, &end, 10);
    return end != text && *end == 0;
}

/* K,V[:GROUP[,GROUP]][:plain] */
static am_status form_parse(am_eval *e, const char *text, am_error *err) {
    char copy[48], *save, *word;
    am_eval_form *form = &e->forms[e->n_forms];
    if (e->n_forms == AM_EVAL_MAX_FORMS) return am_fail(err, AM_ELIMIT, "more than %d forms", AM_EVAL_MAX_FORMS - 1);
    if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy) goto bad;
    snprintf(form->name, sizeof form->name, "%s", text);
    uint32_t k, v;
    char after;
    if (!(word = strtok_r(copy, ":", &save)) || sscanf(word, "%u,%u%c", &k, &v, &after) != 2) goto bad;
    am_status status = am_model_kv_spec(e->model, k, v, &form->spec, err);
    while (!status && (word = strtok_r(NULL, ":", &save))) {
        if (strcmp(word, "plain") == 0) form->spec.unrotated = 1;
        else if (!form_groups(word, &form->spec)) goto bad;
    }
    form->sequence = (am_eval_sequence){.kernels = e->kernels, .model = e->model, .workers = e->workers};
    if (form->spec.shared) form->spec.group_v = form->spec.group_k; /* there is one vector a token */
    if (!status) e->n_forms++;
    return status;
bad:
    return am_fail(err, AM_EINVAL, "'%s' is not a form of cache: K,V[:GROUP[,GROUP]][:plain], as in 5,4 or 4,4:64 or 4,4:128:plain", text);
}

/* The text's tokens; without a text, tokens drawn evenly from the vocabulary, for models that have no tokenizer. */
static am_status text_load(am_eval *e, am_error *err) {
    const am_settings *s = e->settings;
    if (!s->text) {
        uint32_t n_vocab = am_model_info_of(e->model)->n_vocab;
        e->text.n = s->windows * s->window_tokens + 1;
        e->text.ids = am_calloc(e->text.n, sizeof *e->text.ids);
        if (!e->text.ids) return am_fail(err, AM_ENOMEM, "no memory for %zu tokens", e->text.n);
        for (size_t i = 0; i < e->text.n; i++) e->text.ids[i] = (int32_t)(am_draw_uniform(s->seed, i) * n_vocab);
        return AM_OK;
    }
    am_buf file;
    am_buf_init(&file, MAX_TEXT_BYTES + 1ull);
    am_status status = am_fs_read_file(s->text, &file, MAX_TEXT_BYTES, err);
    if (!status && !am_model_tokenizer(e->model)) status = am_fail(err, AM_EUNSUPPORTED, "the model has no tokenizer: leave --text out");
    if (!status) status = am_tokenizer_encode(am_model_tokenizer(e->model), am_buf_str(&file), NULL, 0, 0, &e->text, err);
    am_buf_free(&file);
    return status;
}

typedef struct compare_job {
    float *exact, *logits; /* exact: log-probabilities already */
    size_t n_vocab;
    const int32_t *next;
    double nll[AM_BLOCK_TOKENS], kld[AM_BLOCK_TOKENS], same[AM_BLOCK_TOKENS];
} compare_job;

static void log_softmax(float *x, size_t n) {
    float most = -INFINITY;
    double sum = 0;
    for (size_t i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
    for (size_t i = 0; i < n; i++) sum += (double)expf(x[i] - most);
    float norm = most + (float)log(sum);
    for (size_t i = 0; i < n; i++) x[i] -= norm;
}

static void compare_task(void *arg, size_t row, size_t worker) {
    compare_job *job = arg;
    (void)worker;
    const float *p = job->exact + row * job->n_vocab;
    float *q = job->logits + row * job->n_vocab;
    log_softmax(q, job->n_vocab);
    double kld = 0;
    size_t best_p = 0, best_q = 0;
    for (size_t i = 0; i < job->n_vocab; i++) {
        if (p[i] > p[best_p]) best_p = i;
        if (q[i] > q[best_q]) best_q = i;
        if (p[i] > -30) kld += (double)expf(p[i]) * (double)(p[i] - q[i]);
    }
    job->kld[row] = kld;
    job->same[row] = best_p == best_q;
    job->nll[row] = -(double)q[job->next[row]];
}

/* One block of a window through every form. */
static am_status block_measure(am_eval *e, const int32_t *ids, bool counts, am_error *err) {
    static compare_job job; /* one evaluation a process; too large for a stack */
    for (size_t i = 0; i < e->n_forms; i++) {
        am_eval_form *form = &e->forms[i];
        float *logits = i ? e->logits : e->exact;
        am_status status = am_eval_sequence_push(&form->sequence, ids, AM_BLOCK_TOKENS, counts ? logits : NULL, counts ? AM_BLOCK_TOKENS : 0, err);
        if (status) return status;
        if (!counts) continue;
        job.exact = e->exact;
        job.logits = logits;
        job.n_vocab = am_model_info_of(e->model)->n_vocab;
        job.next = ids + 1;
        am_workers_run(e->workers, AM_BLOCK_TOKENS, compare_task, &job);
        for (size_t row = 0; row < AM_BLOCK_TOKENS; row++) {
            form->nll += job.nll[row];
            form->kld += job.kld[row];
            form->same += job.same[row];
        }
    }
    return AM_OK;
}

static void table_print(const am_eval *e, double n_rows) {
    double exact = e->forms[0].nll / n_rows;
    printf("%.0f positions, exact perplexity %.4f\n%-20s %10s %12s %10s %10s\n", n_rows, exp(exact), "K,V", "bits/value", "perplexity", "KLD", "same top");
    for (size_t i = 0; i < e->n_forms; i++) {
        const am_eval_form *f = &e->forms[i];
        const am_kv_layout *l = &f->sequence.layout;
        double values = (double)AM_BLOCK_TOKENS * l->spec.n_layer * l->spec.n_kv_head * (l->spec.head_dim_k + (l->spec.shared ? 0 : l->spec.head_dim_v));
        printf("%-20s %10.3f %+10.2f %% %10.5f %8.2f %%\n", f->name, 8 * (double)l->sealed_bytes / values, 100 * (exp(f->nll / n_rows - exact) - 1),
               f->kld / n_rows, 100 * f->same / n_rows);
    }
}

static am_status measure(am_eval *e, am_error *err) {
    uint32_t window = (uint32_t)e->settings->window_tokens / AM_BLOCK_TOKENS * AM_BLOCK_TOKENS;
    double n_rows = 0;
    am_status status = AM_OK;
    for (size_t i = 0; !status && i < e->n_forms; i++) status = am_eval_sequence_open(&e->forms[i].sequence, &e->forms[i].spec, window, err);
    for (uint64_t w = 0; !status && w < e->settings->windows; w++) {
        const int32_t *ids = e->text.ids + w * window;
        if ((w + 1) * window + 1 > e->text.n) break;
        for (size_t i = 0; i < e->n_forms; i++) e->forms[i].sequence.n_tokens = 0;
        for (uint32_t n = 0; !status && n < window; n += AM_BLOCK_TOKENS) {
            status = block_measure(e, ids + n, n > 0, err);
            n_rows += n > 0 ? AM_BLOCK_TOKENS : 0;
        }
    }
    if (!status && n_rows == 0) status = am_fail(err, AM_EINVAL, "the text has no window of %u tokens", window);
    if (!status) table_print(e, n_rows);
    return status;
}

static am_status eval_load(am_eval *e, am_error *err) {
    const am_settings *s = e->settings;
    static const char *const usual[] = {"16,16", "8,8", "5,4", "4,4"};
    am_progress progress = {0};
    am_status status = am_workers_create(s->threads ? s->threads : am_cpus_threads(), &e->workers, err);
    if (!status) status = am_kernels_pick(s->isa, &e->kernels, err);
    am_model_options options = {.kernels = e->kernels, .workers = e->workers, .progress = am_progress_update, .progress_arg = &progress};
    if (!status) status = am_model_load(s->model, &options, &e->model, err);
    am_progress_end(&progress);
    if (!status) status = text_load(e, err);
    if (!status) status = form_parse(e, "32,32", err);
    if (!status) snprintf(e->forms[0].name, sizeof e->forms[0].name, "exact (32,32)");
    size_t n = s->n_args ? (size_t)s->n_args : sizeof usual / sizeof usual[0];
    for (size_t i = 0; !status && i < n; i++) status = form_parse(e, s->n_args ? s->args[i] : usual[i], err);
    if (status) return status;
    size_t n_vocab = am_model_info_of(e->model)->n_vocab;
    e->exact = am_calloc(AM_BLOCK_TOKENS * n_vocab, sizeof *e->exact);
    e->logits = am_calloc(AM_BLOCK_TOKENS * n_vocab, sizeof *e->logits);
    return e->exact && e->logits ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for logits");
}

int am_command_eval(am_settings *settings) {
    am_error err = {0};
    am_eval *e = am_calloc(1, sizeof *e);
    if (!e) return AM_EXIT_FAILED;
    e->settings = settings;
    am_status status = eval_load(e, &err);
    if (!status && settings->windows) status = measure(e, &err);
    if (!status && settings->needles) status = am_eval_needle(e, &err);
    if (status) fprintf(stderr, "agent-memory: %s\n", err.message);
    for (size_t i = 0; i < e->n_forms; i++) am_eval_sequence_close(&e->forms[i].sequence);
    free(e->exact);
    free(e->logits);
    am_tokens_free(&e->text);
    am_model_free(e->model);
    am_workers_free(e->workers);
    free(e);
    return status ? AM_EXIT_FAILED : 0;
}
