/* Owns the way of an answer's text through its parts, as it comes in pieces: what surely is text or reasoning goes out at once, what may become a mark or
 * a call is held. What turns out to be no valid call (bad JSON, no such function) is given out as the text it was: nothing the model wrote is lost. */
#include "text/answer_int.h"

#include <string.h>

enum { MAX_HELD = 16 << 20, EAGER_BYTES = 256 };

/* The form in which chat_adapt.c tells a model to call functions. */
static const am_answer_form told = {.told = true, .open = "<tool_call>", .close = "</tool_call>", .think = "<think>", .think_end = "</think>"};

/* Marks that models have which were trained to call functions so, whatever their template shows: LFM 2, Llama 4, Granite 3 and Phi 4 mini, Gemma 3. Read
 * where the template has no mark of its own. */
static const am_answer_form trained[] = {{.kind = AM_CALL_PYTHON, .open = "<|tool_call_start|>", .close = "<|tool_call_end|>"},
                                         {.kind = AM_CALL_PYTHON, .open = "<|python_start|>", .close = "<|python_end|>"},
                                         {.kind = AM_CALL_JSON, .open = "<|tool_call|>", .close = "<|/tool_call|>"},
                                         {.kind = AM_CALL_PYTHON, .open = "```tool_code", .close = "```"}};
enum { N_TRAINED = sizeof trained / sizeof *trained };
static bool is_trained(const am_answer_form *f) { return f->told || f->bare; }

const char *am_call_kind_name(am_call_kind kind) {
    static const char *const names[] = {"json", "named", "tagged", "relaxed", "python", "harmony"};
    return names[kind];
}

void am_answer_form_default(am_answer_form *form) { *form = told; }

void am_answer_init(am_answer *a, const am_answer_form *form, json_t *tools, am_str prompt) {
    *a = (am_answer){.form = form ? *form : told, .tools = json_incref(tools)};
    am_buf_init(&a->held, MAX_HELD);
    am_buf_init(&a->blanks, MAX_HELD);
    am_buf_init(&a->scratch, MAX_HELD);
    while (prompt.n && am_is_blank(prompt.p[prompt.n - 1])) prompt.n--;
    am_str think = am_str_of(a->form.think);
    a->thinking = think.n && prompt.n >= think.n && memcmp(prompt.p + prompt.n - think.n, think.p, think.n) == 0;
    a->after_thought = a->thinking;
}

void am_answer_free(am_answer *a) {
    json_decref(a->tools);
    am_buf_free(&a->held);
    am_buf_free(&a->blanks);
    am_buf_free(&a->scratch);
    a->tools = NULL;
}

void am_answer_drop(am_answer *a, size_t n) {
    if (n == 0) return;
    a->held.n -= n;
    memmove(a->held.p, a->held.p + n, a->held.n);
    a->pending = false;
    a->tried = 0;
}

void am_answer_give_text(am_answer *a, am_str text, const am_answer_sink *sink) {
    if (a->after_call || a->after_thought)
        while (text.n && am_is_blank(text.p[0])) text.p++, text.n--;
    if (text.n == 0) return;
    a->after_call = a->after_thought = false;
    size_t n = text.n;
    while (a->tools && n && am_is_blank(text.p[n - 1])) n--;
    if (n) {
        if (a->blanks.n) sink->text(sink->arg, am_buf_str(&a->blanks));
        am_buf_clear(&a->blanks);
        sink->text(sink->arg, (am_str){text.p, n});
        a->started = true;
    }
    if (n < text.n && am_buf_append(&a->blanks, text.p + n, text.n - n)) sink->text(sink->arg, (am_str){text.p + n, text.n - n});
}

/* after_thought: its first blanks are no part of it either. */
void am_answer_give_thought(am_answer *a, am_str text, const am_answer_sink *sink) {
    if (a->after_thought)
        while (text.n && am_is_blank(text.p[0])) text.p++, text.n--;
    if (text.n == 0) return;
    a->after_thought = false;
    sink->reasoning(sink->arg, text);
}

/* How far `mark` is at s: 1 all of it, -1 perhaps, more must come, 0 not. */
static int mark_at(am_str s, const char *mark, bool last) {
    am_cursor c = {.s = s, .last = last};
    if (am_cursor_take(&c, mark)) return 1;
    return c.more ? -1 : 0;
}

/* The bytes at the end of s that may be the beginning of `mark`, which has no blanks, and blanks before it. */
static size_t unsure_end(am_str s, const char *mark) {
    size_t n = strlen(mark) - 1;
    if (n > s.n) n = s.n;
    while (n && memcmp(s.p + s.n - n, mark, n)) n--;
    while (n < s.n && am_is_blank(s.p[s.n - n - 1])) n++;
    return n;
}

static bool advance_thought(am_answer *a, bool last, const am_answer_sink *sink) {
    am_str held = am_buf_str(&a->held);
    const char *end = held.n ? memmem(held.p, held.n, a->form.think_end, strlen(a->form.think_end)) : NULL;
    size_t n = end ? (size_t)(end - held.p) : last ? held.n : held.n - unsure_end(held, a->form.think_end), all = n;
    while ((end || last) && n && am_is_blank(held.p[n - 1])) n--;
    am_answer_give_thought(a, (am_str){held.p, n}, sink);
    if (end) {
        all += strlen(a->form.think_end);
        a->thinking = false;
        a->after_thought = true;
    }
    am_answer_drop(a, all);
    return end != NULL;
}

/* What may follow a call and means nothing more. */
static bool skip_ends(am_answer *a, bool last, bool *wait) {
    const char *ends[5 + N_TRAINED] = {a->form.close, a->form.section_end, told.close, a->form.kind == AM_CALL_JSON ? ";" : "", a->form.kind == AM_CALL_JSON ? "," : ""};
    for (size_t i = 0; i < N_TRAINED; i++) ends[5 + i] = is_trained(&a->form) ? trained[i].close : "";
    am_cursor c = {.s = am_buf_str(&a->held), .last = last};
    *wait = false;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (!ends[i][0]) continue;
        c.more = false;
        if (am_cursor_take(&c, ends[i])) {
            am_answer_drop(a, c.at);
            return true;
        }
        *wait |= c.more;
    }
    return false;
}

/* A call at the very front of held, in either form. */
static am_found read_front(am_answer *a, bool bare, bool last, const am_answer_sink *sink) {
    const am_answer_form *forms[2 + N_TRAINED] = {&a->form, &told};
    am_found found = AM_NO_CALL;
    for (size_t i = 0; i < N_TRAINED; i++) forms[2 + i] = &trained[i];
    for (int i = 0; i < (is_trained(&a->form) ? 2 + N_TRAINED : 2) && found != AM_CALL_READ; i++) {
        am_cursor c = {.s = am_buf_str(&a->held), .last = last};
        if (forms[i]->kind == AM_CALL_HARMONY || (bare && !forms[i]->bare)) continue;
        if (!bare && forms[i]->section[0]) am_cursor_take(&c, forms[i]->section);
        am_found one = !bare && forms[i]->open[0] && !am_cursor_take(&c, forms[i]->open) ? AM_NO_CALL : am_answer_read_call(a, forms[i], &c, sink);
        if (one == AM_CALL_READ) {
            am_buf_clear(&a->blanks);
            am_answer_drop(a, c.at);
            a->after_call = true;
        }
        if (one == AM_NO_CALL && c.more && !last) one = AM_CALL_MORE;
        if (one != AM_NO_CALL) found = one;
    }
    return found;
}

/* Whether it is worth another try: something came that may end a call, or it is short enough to find out soon that it is none. */
static bool worth_trying(const am_answer *a, bool last) {
    if (last || a->held.n < EAGER_BYTES || a->tried == 0) return true;
    for (size_t i = a->tried; i < a->held.n; i++)
        if (strchr("}])>", a->held.p[i])) return true;
    return false;
}

/* Whether a list of calls without a mark begins at held[at]: 1 it may, -1 more must come. */
static int list_at(const am_answer *a, size_t at, bool last) {
    am_cursor c = {.s = am_buf_str(&a->held), .at = at + 1, .last = last};
    return am_answer_take_name(a, &c) && am_cursor_take(&c, "(") ? 1 : c.more ? -1 : 0;
}

/* The first place in held where a call begins or may begin; held.n: nowhere. *whole: its mark is all there. */
static size_t find_mark(const am_answer *a, bool last, bool *whole) {
    const char *marks[4 + N_TRAINED] = {a->form.section, strlen(a->form.open) > 1 ? a->form.open : "", told.open, a->n_calls ? a->form.section_end : ""};
    for (size_t i = 0; i < N_TRAINED; i++) marks[4 + i] = is_trained(&a->form) ? trained[i].open : "";
    am_str held = am_buf_str(&a->held);
    for (size_t i = 0; i < held.n; i++) {
        int listed = a->form.kind == AM_CALL_PYTHON && a->form.bare && held.p[i] == '[' ? list_at(a, i, last) : 0;
        if (listed) return *whole = listed > 0, i;
        for (size_t k = 0; k < sizeof marks / sizeof *marks; k++) {
            if (!marks[k][0] || held.p[i] != marks[k][0]) continue;
            int at = mark_at((am_str){held.p + i, held.n - i}, marks[k], last);
            if (!at) continue;
            *whole = at > 0;
            return i;
        }
    }
    return held.n;
}

/* The beginning of an answer: a thought, or a call without a mark. 1: something was read, -1: more must come, 0: it is text. */
static int begin(am_answer *a, bool last, const am_answer_sink *sink) {
    am_str held = am_buf_str(&a->held);
    size_t n = 0;
    while (n < held.n && am_is_blank(held.p[n])) n++;
    if (n == held.n) return last ? 0 : -1;
    int think = a->form.think[0] && !a->n_calls ? mark_at(held, a->form.think, last) : 0;
    if (think > 0) {
        am_answer_drop(a, n + strlen(a->form.think));
        a->thinking = a->after_thought = true;
        return 1;
    }
    int ended = a->form.think[0] && !a->n_calls ? mark_at(held, a->form.think_end, last) : 0;
    if (ended > 0) { /* an empty thought that the prompt had begun in its own way */
        am_answer_drop(a, n + strlen(a->form.think_end));
        a->after_thought = true;
        return 1;
    }
    if (a->tools && a->form.bare && (held.p[n] == '{' || held.p[n] == '[')) {
        if (!worth_trying(a, last)) return -1;
        a->tried = a->held.n;
        am_found found = read_front(a, true, last, sink);
        if (found == AM_CALL_READ) return 1;
        if (found == AM_CALL_MORE) return -1;
    }
    return think | ended;
}

static bool advance_text(am_answer *a, bool last, const am_answer_sink *sink) {
    bool wait = false, whole = false;
    if (a->held.n == 0) return false;
    if (a->after_call && skip_ends(a, last, &wait)) return a->held.n > 0;
    if (wait) return false;
    int begun = a->started || (a->blanks.n && !a->tools) ? 0 : begin(a, last, sink);
    if (begun) return begun > 0;
    if (!a->tools) {
        am_answer_give_text(a, am_buf_str(&a->held), sink);
        am_answer_drop(a, a->held.n);
        return false;
    }
    if (a->pending && !worth_trying(a, last)) return false;
    size_t at = find_mark(a, last, &whole);
    am_answer_give_text(a, (am_str){a->held.p, at}, sink);
    am_answer_drop(a, at);
    if (a->held.n == 0 || !whole) return false;
    am_cursor c = {.s = am_buf_str(&a->held), .last = last};
    if (a->n_calls && a->form.section_end[0] && am_cursor_take(&c, a->form.section_end)) { /* where text stands between a call and it */
        am_answer_drop(a, c.at);
        return true;
    }
    am_found found = read_front(a, false, last, sink);
    if (found == AM_CALL_READ) return true;
    a->pending = found == AM_CALL_MORE;
    a->tried = a->held.n;
    if (a->pending) return false;
    am_answer_give_text(a, (am_str){a->held.p, 1}, sink); /* no call: its first character is text, and then it is no mark any more */
    am_answer_drop(a, 1);
    return true;
}

static void advance(am_answer *a, bool last, const am_answer_sink *sink) {
    bool on = true;
    while (on) {
        if (a->form.kind == AM_CALL_HARMONY) on = am_harmony_advance(a, last, sink);
        else if (a->thinking) on = advance_thought(a, last, sink);
        else on = advance_text(a, last, sink);
    }
}

static void thought_as_text(void *arg, am_str text) {
    const am_answer_sink *sink = arg;
    sink->text(sink->arg, text);
}
static void pass_text(void *arg, am_str text) { thought_as_text(arg, text); }
static void pass_call(void *arg, uint32_t index, am_str name, am_str arguments) {
    const am_answer_sink *sink = arg;
    sink->call(sink->arg, index, name, arguments);
}

/* plain: thoughts stay in the text, marks and all. */
static void unmark(am_answer *a) {
    if (!a->plain) return;
    a->thinking = a->after_thought = false;
    a->form.think[0] = 0;
}

void am_answer_push(am_answer *a, am_str text, const am_answer_sink *sink) {
    const am_answer_sink all_text = {pass_text, thought_as_text, pass_call, (void *)sink};
    unmark(a);
    if (a->plain || !sink->reasoning) sink = &all_text;
    if (am_buf_add(&a->held, text)) {
        am_answer_finish(a, sink); /* out of room: what was held is text, and so is this */
        am_answer_give_text(a, text, sink);
        return;
    }
    advance(a, false, sink);
}

void am_answer_finish(am_answer *a, const am_answer_sink *sink) {
    const am_answer_sink all_text = {pass_text, thought_as_text, pass_call, (void *)sink};
    unmark(a);
    if (a->plain || !sink->reasoning) sink = &all_text;
    advance(a, true, sink);
    if (a->held.n) am_answer_give_text(a, am_buf_str(&a->held), sink);
    am_buf_clear(&a->held);
    if (a->blanks.n && !a->after_call) sink->text(sink->arg, am_buf_str(&a->blanks));
    am_buf_clear(&a->blanks);
}

am_status am_answer_marks(const am_answer_form *f, bool with_calls, am_buf *out) {
    static const char harmony[] = "<|channel|><|message|><|end|><|start|><|constrain|><|call|><|return|>";
    const char *const thoughts[] = {f->think, f->think_end, f->kind == AM_CALL_HARMONY ? harmony : ""};
    const char *const calls[] = {f->section, f->section_end, f->open, f->close, f->after_name, f->args, f->param, f->value, f->json_value, f->param_end, told.open, told.close};
    am_status status = AM_OK;
    for (size_t i = 0; !status && with_calls && is_trained(f) && i < N_TRAINED; i++) status = am_buf_printf(out, "%s%s", trained[i].open, trained[i].close);
    for (size_t i = 0; !status && i < sizeof thoughts / sizeof *thoughts; i++) status = am_buf_add(out, am_str_of(thoughts[i]));
    for (size_t i = 0; !status && with_calls && i < sizeof calls / sizeof *calls; i++) status = am_buf_add(out, am_str_of(calls[i]));
    return status;
}
