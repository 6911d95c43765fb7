/* Owns the needle test of `eval`: facts are told, then comes that many tokens of other text, then each fact is asked for; a hit when
 * the greedy answer contains the value. Everything goes through the model's own chat format, phrased as in memo-28m's dialogues. */
#include "main/eval.h"

#include "base/json.h"
#include "engine/sampler.h"

#include <stdlib.h>
#include <string.h>

enum { N_FACTS = 4, N_DISTANCES = 4, MAX_ANSWER = 24, MAX_TEXT = 1 << 20 };
static const uint32_t distances[N_DISTANCES] = {500, 2000, 4000, 7000};
static const char *const places[] = {"north gate", "boat shed", "tool room", "south gate", "wine cellar", "back door",
                                     "red box",    "guest room", "garage",   "library",   "attic",       "green locker"};
enum { N_PLACES = sizeof places / sizeof places[0] };

/* One conversation: facts and filler. */
typedef struct needle {
    const char *place[N_FACTS];
    char value[N_FACTS][16];
    char facts[512];
    am_buf filler;
} needle;

/* Below `sides`; the same for the same seed and place in the sequence of draws. */
static uint32_t draw(const am_eval *e, uint32_t at, uint32_t sides) { return (uint32_t)(am_draw_uniform(e->settings->seed, at) * sides); }

static am_status needle_make(needle *n, const am_eval *e, uint32_t index, uint32_t distance, am_error *err) {
    size_t used = 0, first = e->text.n > distance ? (size_t)index * 7919 % (e->text.n - distance) : 0;
    for (uint32_t i = 0; i < N_FACTS; i++) {
        uint32_t at = index * 64 + i * 8;
        n->place[i] = places[(draw(e, index * 64 + 63, N_PLACES) + i * 5) % N_PLACES];
        if (draw(e, at, 2)) snprintf(n->value[i], sizeof n->value[i], "%05u", 10000 + draw(e, at + 1, 90000));
        else
            snprintf(n->value[i], sizeof n->value[i], "%c%c-%04u", 'A' + (int)draw(e, at + 2, 26), 'A' + (int)draw(e, at + 3, 26),
                     1000 + draw(e, at + 4, 9000));
        used += (size_t)snprintf(n->facts + used, sizeof n->facts - used, "%sThe code for the %s is %s.", i ? " " : "", n->place[i], n->value[i]);
    }
    am_buf_clear(&n->filler);
    am_status status = am_buf_add(&n->filler, AM_STR("Read this text. "));
    if (!status) status = am_tokenizer_decode(am_model_tokenizer(e->model), e->text.ids + first, distance, true, &n->filler);
    return status ? am_fail(err, status, "the text cannot be decoded") : AM_OK;
}

/* The whole conversation up to the answer about one place, as ids. */
static am_status question_encode(const am_eval *e, const needle *n, uint32_t which, am_tokens *out, am_error *err) {
    char question[96];
    am_rendered rendered = {0};
    snprintf(question, sizeof question, "What is the code for the %s?", n->place[which]);
    json_t *messages = json_pack("[{s:s,s:s},{s:s,s:s},{s:s,s:s},{s:s,s:s},{s:s,s:s}]", "role", "user", "content", n->facts, "role", "assistant",
                                 "content", "I have noted that.", "role", "user", "content", n->filler.p, "role", "assistant", "content",
                                 "I have read it.", "role", "user", "content", question);
    if (!messages) return am_fail(err, AM_EFORMAT, "the text is not UTF-8 where it was cut");
    am_chat_request request = {.messages = messages, .add_generation_prompt = true};
    am_status status = am_chat_render(am_model_chat(e->model), &request, &rendered, err);
    if (!status)
        status = am_tokenizer_encode(am_model_tokenizer(e->model), am_buf_str(&rendered.text), rendered.input, rendered.n_input, 0, out, err);
    am_rendered_free(&rendered);
    json_decref(messages);
    return status;
}

/* Appends the rest of a question and looks for the value in the greedy answer. */
static am_status ask(const am_eval *e, am_eval_sequence *s, const int32_t *ids, uint32_t n, const char *value, bool *hit, am_error *err) {
    const am_model_info *info = am_model_info_of(e->model);
    int32_t answer[MAX_ANSWER];
    am_buf text;
    am_buf_init(&text, MAX_TEXT);
    am_status status = am_eval_sequence_push(s, ids, n, e->logits, 1, err);
    uint32_t n_answer = 0;
    for (bool over = false; !status && !over && n_answer < MAX_ANSWER;) {
        int32_t id = answer[n_answer++] = am_likeliest(e->logits, info->n_vocab);
        for (uint32_t i = 0; i < info->n_eos; i++) over |= info->eos[i] == id;
        if (!over) status = am_eval_sequence_push(s, &id, 1, e->logits, 1, err);
    }
    if (!status) status = am_tokenizer_decode(am_model_tokenizer(e->model), answer, n_answer, true, &text);
    *hit = !status && text.p && strstr(text.p, value);
    am_buf_free(&text);
    return status;
}

/* All questions of one conversation: what they share is read once, then the open block is put back before each. */
static am_status converse(const am_eval *e, am_eval_sequence *s, const needle *n, void *open, uint32_t *n_hits, am_error *err) {
    am_tokens ids[N_FACTS] = {0};
    am_status status = AM_OK;
    for (uint32_t i = 0; !status && i < N_FACTS; i++) status = question_encode(e, n, i, &ids[i], err);
    uint32_t common = 0;
    while (!status && common + 1 < ids[0].n && common + 1 < ids[1].n && ids[0].ids[common] == ids[1].ids[common]) common++;
    s->n_tokens = 0;
    if (!status) status = am_eval_sequence_push(s, ids[0].ids, common, NULL, 0, err);
    memcpy(open, s->open, s->layout.open_bytes);
    for (uint32_t i = 0; !status && i < N_FACTS; i++) {
        bool hit = false;
        uint32_t same = 0; /* places may begin alike in more than two questions */
        while (same < common && ids[i].ids[same] == ids[0].ids[same]) same++;
        if (same < common) status = am_fail(err, AM_EINVAL, "the chat format changes what came before a question");
        s->n_tokens = common;
        memcpy(s->open, open, s->layout.open_bytes);
        if (!status) status = ask(e, s, ids[i].ids + common, (uint32_t)ids[i].n - common, n->value[i], &hit, err);
        *n_hits += hit;
    }
    for (uint32_t i = 0; i < N_FACTS; i++) am_tokens_free(&ids[i]);
    return status;
}

static am_status form_recall(const am_eval *e, const am_eval_form *form, uint32_t distance, uint32_t *n_hits, am_error *err) {
    uint32_t n_needles = (uint32_t)e->settings->needles;
    am_eval_sequence s = {.kernels = e->kernels, .model = e->model, .workers = e->workers};
    needle n = {0};
    am_buf_init(&n.filler, MAX_TEXT);
    am_status status = am_eval_sequence_open(&s, &form->spec, distance + distance / 4 + 1024, err);
    void *open = status ? NULL : am_alloc_aligned(s.layout.open_bytes);
    if (!status && !open) status = am_fail(err, AM_ENOMEM, "no memory for a block");
    for (uint32_t i = 0; !status && i < n_needles; i++) {
        status = needle_make(&n, e, i, distance, err);
        if (!status) status = converse(e, &s, &n, open, n_hits, err);
    }
    free(open);
    am_buf_free(&n.filler);
    am_eval_sequence_close(&s);
    return status;
}

am_status am_eval_needle(am_eval *e, am_error *err) {
    uint32_t n_ctx = am_model_info_of(e->model)->n_ctx, n_asked = (uint32_t)e->settings->needles * N_FACTS;
    if (!am_model_chat(e->model)) return am_fail(err, AM_EUNSUPPORTED, "the model has no chat format to ask in");
    printf("\nrecall of %u facts told N tokens before\n%-20s", n_asked, "K,V");
    for (uint32_t d = 0; d < N_DISTANCES; d++)
        if (distances[d] + 500 < n_ctx && distances[d] < e->text.n) printf(" %8u", distances[d]);
    puts("");
    for (size_t i = 0; i < e->n_forms; i++) {
        printf("%-20s", e->forms[i].name);
        for (uint32_t d = 0; d < N_DISTANCES; d++) {
            uint32_t n_hits = 0;
            if (distances[d] + 500 >= n_ctx || distances[d] >= e->text.n) continue;
            am_status status = form_recall(e, &e->forms[i], distances[d], &n_hits, err);
            if (status) return status;
            printf(" %6.1f %%", 100.0 * n_hits / n_asked);
            fflush(stdout);
        }
        puts("");
    }
    return AM_OK;
}
