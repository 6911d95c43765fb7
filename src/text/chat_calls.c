/* Owns how calls of functions and their results are said to a template.
 *
 * A result belongs to the call with its id, else to the next call that has none. Results stand in the order of their calls and carry the function's name,
 * since many templates show neither id nor name: then order is all there is. What a template cannot say becomes, in this order of preference,
 *
 *   several calls in one message   a message each, followed by its result
 *   text beside calls              a message before them
 *   any of it                      text of the assistant and a message of the user, in the form that the server reads calls in */
#include "text/chat_traits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A message with calls, and the results right behind it. */
typedef struct turn {
    const am_chat_traits *traits;
    const json_t *message;
    json_t *calls;        /* new reference: a copy where ids were added */
    const json_t **result; /* by call, then those of no call; NULL: none */
    size_t n_calls, n_results; /* n_results: entries of result */
    bool in_words;
} turn;

static am_str string_of(const json_t *object, const char *key) {
    const json_t *v = json_object_get(object, key);
    return json_is_string(v) ? (am_str){json_string_value(v), json_string_length(v)} : AM_STR("");
}

static const json_t *call_at(const turn *t, size_t i) { return json_array_get(t->calls, i); }
static const json_t *function_at(const turn *t, size_t i) { return json_object_get(call_at(t, i), "function"); }

/* Places each result beside its call; in linear time, as there may be many. */
static int pair(turn *t, const json_t *messages, size_t from, size_t n) {
    json_t *by_id = json_object();
    int failed = by_id ? 0 : -1;
    for (size_t i = 0; !failed && i < t->n_calls; i++) {
        const char *id = json_string_value(json_object_get(call_at(t, i), "id"));
        if (id && !json_object_get(by_id, id)) failed = json_object_set_new(by_id, id, json_integer((json_int_t)i));
    }
    size_t next = 0;
    t->n_results = t->n_calls;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; !failed && i < n; i++) {
            const json_t *result = json_array_get(messages, from + i);
            const char *id = json_string_value(json_object_get(result, "tool_call_id"));
            const json_t *at = id ? json_object_get(by_id, id) : NULL;
            size_t k = at ? (size_t)json_integer_value(at) : SIZE_MAX;
            bool known = k < t->n_calls;
            if (pass == 0 && known && !t->result[k]) t->result[k] = result;
            if (pass == 0 || (known && t->result[k] == result)) continue;
            while (next < t->n_calls && t->result[next]) next++;
            t->result[next < t->n_calls ? next : t->n_results++] = result;
        }
    }
    json_decref(by_id);
    return failed;
}

/* Calls without an id get one by their place in the conversation where the template wants ids. */
static int give_ids(turn *t, size_t n_before) {
    t->calls = json_incref(json_object_get(t->message, "tool_calls"));
    if (t->traits->any_id && t->traits->no_id) return 0;
    json_t *calls = json_array(), *call;
    size_t i;
    int failed = calls ? 0 : -1;
    json_array_foreach(t->calls, i, call) {
        char id[32];
        json_t *own = json_copy(call);
        snprintf(id, sizeof id, "call_%zu", n_before + i);
        if (!failed) failed = json_array_append_new(calls, own);
        if (!failed && !json_object_get(own, "id")) failed = json_object_set_new(own, "id", json_string(id));
    }
    json_decref(t->calls);
    t->calls = calls;
    return failed;
}

static int add(json_t *to, json_t *message) { return json_array_append_new(to, message); }

static int add_text(json_t *to, const char *role, json_t *text) {
    return add(to, text ? json_pack("{s:s, s:o}", "role", role, "content", text) : NULL);
}

static int say_result(json_t *to, const json_t *result, am_str name) {
    am_buf text;
    am_buf_init(&text, SIZE_MAX / 2);
    am_str content = am_chat_content(result);
    am_status status = am_buf_printf(&text, "<tool_response>\n");
    if (!status && name.n) status = am_buf_add(&text, name);
    if (!status && name.n) status = am_buf_add(&text, AM_STR(":\n"));
    if (!status) status = am_buf_add(&text, content);
    if (!status) status = am_buf_add(&text, AM_STR("\n</tool_response>"));
    int failed = status ? -1 : add_text(to, "user", json_stringn(text.p, text.n));
    am_buf_free(&text);
    return failed;
}

static int calls_as_text(const turn *t, am_buf *text) {
    int failed = am_buf_add(text, am_chat_content(t->message)) ? -1 : 0;
    for (size_t i = 0; !failed && i < t->n_calls; i++) {
        const json_t *function = function_at(t, i);
        json_t *said = json_pack("{s:O?, s:O?}", "name", json_object_get(function, "name"), "arguments", json_object_get(function, "arguments"));
        if (!said || am_buf_printf(text, "%s<tool_call>\n", text->n ? "\n" : "") || am_json_dump_spaced(said, text) || am_buf_add(text, AM_STR("\n</tool_call>")))
            failed = -1;
        json_decref(said);
    }
    return failed;
}

/* The result of call i (n_calls and more: of no call). */
static int add_result(const turn *t, json_t *to, size_t i) {
    if (!t->result[i]) return 0;
    json_t *result = json_copy((json_t *)t->result[i]), *id = json_object_get(call_at(t, i), "id"), *name = json_object_get(function_at(t, i), "name");
    if (!result) return -1;
    bool ok = (!name || json_object_get(result, "name") || json_object_set(result, "name", name) == 0) &&
              (!id || json_object_get(result, "tool_call_id") || json_object_set(result, "tool_call_id", id) == 0);
    if (ok) return add(to, result);
    json_decref(result);
    return -1;
}

/* The calls in words, and the results too where the template shows none that has no calls before it. The function's name stands before a result only where order alone would have to tell. */
static int say_in_words(const turn *t, json_t *to) {
    am_buf text;
    am_buf_init(&text, SIZE_MAX / 2);
    int failed = calls_as_text(t, &text);
    json_t *message = failed ? NULL : json_copy((json_t *)t->message);
    if (!message || json_object_del(message, "tool_calls") || json_object_set_new(message, "content", json_stringn(text.p, text.n))) {
        json_decref(message);
        failed = -1;
    }
    am_buf_free(&text);
    if (!failed) failed = add(to, message);
    for (size_t i = 0; !failed && i < t->n_results; i++) {
        am_str name = i < t->n_calls && t->n_calls > 1 ? string_of(function_at(t, i), "name") : string_of(t->result[i], "name");
        if (t->n_calls < 2 && i < t->n_calls) name.n = 0;
        if (t->traits->results) failed = add_result(t, to, i);
        else if (t->result[i]) failed = say_result(to, t->result[i], name);
    }
    return failed;
}

/* The assistant's message with calls [from, from + n); what else it says only with the first. */
static int add_calls(const turn *t, json_t *to, size_t from, size_t n, bool with_text) {
    json_t *message = json_copy((json_t *)t->message), *calls = json_array();
    bool ok = message && calls;
    for (size_t i = from; ok && i < from + n; i++) ok = json_array_append(calls, (json_t *)call_at(t, i)) == 0;
    if (ok && !with_text) {
        json_object_del(message, "reasoning_content");
        ok = json_object_set_new(message, "content", json_string("")) == 0;
    }
    ok = ok && json_object_set(message, "tool_calls", calls) == 0;
    json_decref(calls);
    if (ok) return add(to, message);
    json_decref(message);
    return -1;
}

static int say_turn(const turn *t, json_t *to) {
    if (t->in_words) return say_in_words(t, to);
    int failed = 0;
    bool with_text = true;
    if (am_chat_content(t->message).n && !t->traits->call_content) {
        json_t *text = json_copy((json_t *)t->message);
        if (text) json_object_del(text, "tool_calls");
        failed = add(to, text);
        with_text = false;
    }
    size_t step = t->traits->parallel_calls ? t->n_calls : 1;
    for (size_t i = 0; !failed && i < t->n_calls; i += step, with_text = false) {
        failed = add_calls(t, to, i, step, with_text);
        for (size_t k = i; !failed && k < i + step; k++) failed = add_result(t, to, k);
    }
    for (size_t i = t->n_calls; !failed && i < t->n_results; i++) failed = add_result(t, to, i);
    return failed;
}

/* The way through a conversation. */
typedef struct walk {
    const am_chat_traits *traits;
    json_t *messages, *to;
    size_t at, last_user, n_calls; /* n_calls: of messages before at */
} walk;

static bool must_be_words(const walk *w, const turn *t) {
    const am_chat_traits *can = w->traits;
    for (size_t i = 0; can->object_arguments && i < t->n_calls; i++)
        if (!json_is_object(json_object_get(function_at(t, i), "arguments"))) return true; /* what the model wrote was no JSON */
    if (!can->open_calls && w->at + 1 == json_array_size(w->messages)) return true;
    bool text = am_chat_content(t->message).n > 0 || (w->at > 0 && am_chat_is(json_array_get(w->messages, w->at - 1), "assistant"));
    return !can->tool_results || (w->at < w->last_user && !can->past_calls) || (t->n_calls > 1 && !can->parallel_calls && !can->calls_in_turns) ||
           (text && !can->call_content && !can->text_then_calls);
}

/* The message at w->at, which has calls, and the results behind it. */
static int say_calls(walk *w) {
    turn t = {.traits = w->traits, .message = json_array_get(w->messages, w->at)};
    size_t n = 0;
    while (am_chat_is(json_array_get(w->messages, w->at + 1 + n), "tool")) n++;
    int failed = give_ids(&t, w->n_calls);
    t.n_calls = json_array_size(t.calls);
    t.in_words = must_be_words(w, &t);
    if (!failed && !(t.result = am_calloc(t.n_calls + n + 1, sizeof *t.result))) failed = -1;
    if (!failed) failed = pair(&t, w->messages, w->at + 1, n);
    if (!failed) failed = say_turn(&t, w->to);
    w->n_calls += t.n_calls;
    w->at += n;
    free(t.result);
    json_decref(t.calls);
    return failed;
}

/* Reasoning as text, as the models that think write it. */
static int think_aloud(const am_chat_traits *traits, json_t *message) {
    am_str reasoning = string_of(message, "reasoning_content");
    if (traits->reasoning != AM_REASONING_TEXT || !reasoning.n) return 0;
    json_t *open = am_chat_joined(AM_STR("<think>"), "\n", reasoning), *text = NULL;
    if (open) text = am_chat_joined((am_str){json_string_value(open), json_string_length(open)}, "\n", AM_STR("</think>"));
    json_decref(open);
    json_t *whole = text ? am_chat_joined((am_str){json_string_value(text), json_string_length(text)}, "\n\n", am_chat_content(message)) : NULL;
    json_decref(text);
    return json_object_set_new(message, "content", whole) || json_object_del(message, "reasoning_content");
}

int am_chat_say_calls(const am_chat_traits *traits, const json_t *messages, json_t *to) {
    walk w = {.traits = traits, .messages = json_array(), .to = to};
    int failed = w.messages ? 0 : -1;
    size_t i;
    json_t *message;
    json_array_foreach((json_t *)messages, i, message) {
        json_t *copy = json_copy(message);
        if (!failed) failed = json_array_append_new(w.messages, copy);
        else json_decref(copy);
        if (!failed) failed = think_aloud(traits, copy);
        if (am_chat_is(message, "user")) w.last_user = i;
    }
    for (; !failed && w.at < json_array_size(w.messages); w.at++) {
        message = json_array_get(w.messages, w.at);
        if (am_chat_is(message, "assistant") && am_chat_has_calls(message)) failed = say_calls(&w);
        else if (am_chat_is(message, "tool") && !traits->results) failed = say_result(to, message, string_of(message, "name"));
        else failed = json_array_append(to, message);
    }
    json_decref(w.messages);
    return failed;
}
