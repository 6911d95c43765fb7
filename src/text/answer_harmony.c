/* Owns gpt-oss's form of an answer ("harmony"): messages one after the other, each with a head that says where it goes.
 *
 *   [<|start|>assistant][ to=functions.NAME]<|channel|>CHANNEL[ to=functions.NAME][ <|constrain|>json]<|message|>BODY<|end|> (or <|call|>, <|return|>)
 *
 * The channel `analysis` is reasoning; a recipient among the functions makes the body its arguments; everything else is text. A head that is none
 * (no <|message|>) is text as it stands. */
#include "text/answer_int.h"

#include <string.h>

enum { IN_HEAD, IN_TEXT, IN_THOUGHT, IN_CALL };

static bool starts_any(am_str s, const char *const *marks, size_t n, bool *partial, size_t *length) {
    for (size_t i = 0; i < n; i++) {
        size_t m = strlen(marks[i]);
        if (s.n >= m && memcmp(s.p, marks[i], m) == 0) {
            *length = m;
            return true;
        }
        *partial |= s.n < m && memcmp(s.p, marks[i], s.n) == 0;
    }
    return false;
}

/* The first of the marks that end a body; *at: how much is surely body. *length 0: none is there yet. */
static void find_end(am_str s, bool last, size_t *at, size_t *length) {
    static const char *const ends[] = {"<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>"};
    *length = 0;
    for (*at = 0; *at < s.n; ++*at) {
        bool partial = false;
        if (s.p[*at] != '<') continue;
        if (starts_any((am_str){s.p + *at, s.n - *at}, ends, sizeof ends / sizeof *ends, &partial, length) || (partial && !last)) return;
    }
}

static const char *text_after(am_str s, const char *mark) {
    const char *at = memmem(s.p, s.n, mark, strlen(mark));
    return at ? at + strlen(mark) : NULL;
}

static void read_head(am_answer *a, am_str head) {
    const char *to = text_after(head, "to="), *channel = text_after(head, "<|channel|>"), *end = head.p + head.n;
    am_str name = {0};
    if (to) {
        if (end - to > 10 && memcmp(to, "functions.", 10) == 0) to += 10;
        name.p = to;
        while (to < end && !am_is_blank(*to) && *to != '<') to++;
        name.n = (size_t)(to - name.p);
    }
    const char *tool = name.n < sizeof a->recipient ? am_answer_tool(a->tools, name) : NULL;
    a->recipient[0] = 0;
    if (tool) memcpy(a->recipient, tool, strlen(tool) + 1);
    bool analysis = channel && end - channel >= 8 && memcmp(channel, "analysis", 8) == 0;
    a->body = tool ? IN_CALL : analysis && !to ? IN_THOUGHT : IN_TEXT;
    a->after_thought = true; /* blanks before a body are no answer */
}

/* held begins with a head, or with text that has none. */
static bool advance_head(am_answer *a, bool last, const am_answer_sink *sink) {
    static const char *const begins[] = {"<|start|>", "<|channel|>", " to=", "to="};
    am_str held = am_buf_str(&a->held);
    bool partial = false;
    size_t length;
    if (held.n == 0) return false;
    if (starts_any(held, begins, sizeof begins / sizeof *begins, &partial, &length)) {
        const char *message = text_after(held, "<|message|>");
        if (!message && !last && held.n < 400) return false;
        if (message && (size_t)(message - held.p) < 400) {
            read_head(a, (am_str){held.p, (size_t)(message - held.p)});
            am_answer_drop(a, (size_t)(message - held.p));
            return true;
        }
    } else if (partial && !last) {
        return false;
    }
    a->body = IN_TEXT;
    am_answer_give_text(a, (am_str){a->held.p, 1}, sink);
    am_answer_drop(a, 1);
    return a->held.n > 0;
}

static void end_call(am_answer *a, am_str body, const am_answer_sink *sink) {
    json_t *v = NULL;
    while (body.n && am_is_blank(body.p[0])) body.p++, body.n--;
    bool empty = body.n == 0;
    if (!empty && (am_json_parse(body, false, &v, NULL) || !json_is_object(v))) am_answer_give_text(a, body, sink);
    else if (am_answer_give_call(a, a->recipient, empty ? AM_STR("{}") : body, sink)) am_buf_clear(&a->blanks);
    json_decref(v);
}

bool am_harmony_advance(am_answer *a, bool last, const am_answer_sink *sink) {
    size_t at, length;
    if (a->body == IN_HEAD) return advance_head(a, last, sink);
    am_str held = am_buf_str(&a->held);
    find_end(held, last, &at, &length);
    am_str body = {held.p, at};
    if (a->body == IN_THOUGHT) am_answer_give_thought(a, body, sink);
    else if (a->body == IN_TEXT) am_answer_give_text(a, body, sink);
    else if (length || last) end_call(a, body, sink);
    else return false;
    bool begins = length && (memcmp(held.p + at, "<|start|>", length) == 0 || memcmp(held.p + at, "<|channel|>", length) == 0);
    if (length || (last && a->body == IN_CALL)) a->body = IN_HEAD;
    a->thinking = a->body == IN_THOUGHT;
    am_answer_drop(a, at + (begins ? 0 : length));
    return length > 0;
}
