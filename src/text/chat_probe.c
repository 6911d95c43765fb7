/* Owns the probes: conversations of marker words, each rendered once. A trait is there when the template renders without an error and every
 * marker is in the text. What a template drops without a word is found the same way as what it refuses. */
#include "text/chat_traits.h"

#include <string.h>

#define SAYS(role, content) "{\"role\":\"" role "\",\"content\":\"" content "\"}"
#define SYSTEM SAYS("system", "zsystemz")
#define SYSTEM2 SAYS("system", "zsecondz")
#define USER SAYS("user", "zuserz")
#define USER2 SAYS("user", "zotherz")
#define ANSWER SAYS("assistant", "zanswerz")
#define ANSWER2 SAYS("assistant", "zfurtherz")
#define THINKS(member) "{\"role\":\"assistant\",\"content\":\"zanswerz\",\"" member "\":\"zthoughtz\"}"
#define THOUGHT "<think>\\nzthoughtz\\n</think>\\n\\nzanswerz"
#define FUNCTION(id, n) "{" id "\"type\":\"function\",\"function\":{\"name\":\"zcall" n "z\",\"arguments\":{\"p" n "\":\"zargument" n "z\"}}}"
#define CALLS(content, more, calls) "{\"role\":\"assistant\",\"content\":\"" content "\"" more ",\"tool_calls\":[" calls "]}"
#define RESULT_OF(id, n) "{\"role\":\"tool\"," id "\"name\":\"zcall" n "z\",\"content\":\"zresult" n "z\"}"
#define ONE FUNCTION("\"id\":\"abcdef121\",", "1")
#define TWO FUNCTION("\"id\":\"abcdef122\",", "2")
#define CALL CALLS("", "", ONE)
#define CALL2 CALLS("", "", TWO)
#define RESULT RESULT_OF("\"tool_call_id\":\"abcdef121\",", "1")
#define RESULT2 RESULT_OF("\"tool_call_id\":\"abcdef122\",", "2")
#define TOOL(n)                                                                                                        \
    "{\"type\":\"function\",\"function\":{\"name\":\"zcall" n "z\",\"description\":\"zwhat" n "z\",\"parameters\":"     \
    "{\"type\":\"object\",\"properties\":{\"p" n "\":{\"type\":\"string\",\"description\":\"zthis" n "z\"}},\"required\":[\"p" n "\"]}}}"
#define TOOLS "[" TOOL("1") "," TOOL("2") "]"
#define SEEN_CALL "zuserz", "zcall1z", "zargument1z", "zresult1z"
#define SEEN_CALLS SEEN_CALL, "zcall2z", "zargument2z", "zresult2z"

enum { MAX_MARKERS = 12 };

/* Small, so that a hostile template costs little at load. */
static const am_template_limits limits = {1000 * 1000, 128, 1 << 20, 16 << 20};

typedef struct probe {
    const am_chat *chat;
    json_t *tokens; /* empty ones where the chat has none, so that a template alone can be looked at */
    am_chat_traits *can; /* what is known so far */
    bool *no_memory; /* set when a rendering had none: then nothing that was found counts */
    const json_t *documents;
    bool adapt; /* as a request would be put; if not, only ids, arguments and contents are */
} probe;

static bool render_part(const probe *p, const char *messages, const char *tools, bool prompt, am_rendered *out) {
    json_t *m = json_loads(messages, 0, NULL), *t = tools ? json_loads(tools, 0, NULL) : NULL, *put = NULL;
    am_chat_request request = {.messages = m, .tools = t, .documents = p->documents, .kwargs = p->tokens, .add_generation_prompt = prompt};
    *out = (am_rendered){0};
    am_status status = m && (t || !tools) ? AM_OK : AM_ENOMEM;
    if (!status && p->adapt) {
        am_chat_request as_is = request;
        status = am_chat_adapt(p->can, &as_is, &put, &request, NULL);
    } else if (!status && am_chat_put(p->can, m)) {
        status = AM_ENOMEM;
    }
    if (!status) status = am_chat_render_as_is(p->chat, &request, &limits, out, NULL);
    if (status) *out = (am_rendered){0};
    *p->no_memory |= status == AM_ENOMEM;
    json_decref(m);
    json_decref(t);
    json_decref(put);
    return !status;
}

static bool render(const probe *p, const char *messages, const char *tools, am_rendered *out) { return render_part(p, messages, tools, true, out); }

static bool render_form(void *arg, const char *messages, const char *tools, bool prompt, am_rendered *out) {
    return render_part(arg, messages, tools, prompt, out);
}

/* How long the text is that shows all markers; 0: it does not. */
static size_t shows(const probe *p, const char *messages, const char *tools, const char *const markers[MAX_MARKERS]) {
    am_rendered r;
    bool ok = render(p, messages, tools, &r);
    for (size_t i = 0; ok && i < MAX_MARKERS && markers[i]; i++) ok = r.text.n && memmem(r.text.p, r.text.n, markers[i], strlen(markers[i]));
    size_t n = ok ? r.text.n : 0;
    am_rendered_free(&r);
    return n;
}

#define SHOWS(messages, tools, ...) shows(p, "[" messages "]", tools, (const char *const[MAX_MARKERS]){__VA_ARGS__})

/* Arguments as objects and empty texts come first, as most templates were written for these; but some write an empty answer of its own beside the call. */
static bool calls_shown(const probe *p) {
    for (unsigned form = 0; form < 4; form++) {
        p->can->object_arguments = !(form & 2);
        p->can->empty_content = !(form & 1);
        size_t n = SHOWS(USER "," CALL "," RESULT, TOOLS, SEEN_CALL), n_null;
        if (!n) continue;
        p->can->empty_content = false;
        n_null = form & 1 ? 0 : SHOWS(USER "," CALL "," RESULT, TOOLS, SEEN_CALL);
        p->can->empty_content = !(form & 1) && (n_null == 0 || n_null >= n);
        return true;
    }
    p->can->object_arguments = p->can->empty_content = true;
    return false;
}

static void probe_calls(const probe *p) {
    am_chat_traits *can = p->can;
    can->tools = SHOWS(USER, TOOLS, "zuserz", "zcall1z", "zwhat1z", "p1", "zcall2z", "zwhat2z", "p2");
    can->system_tools = !can->tools || SHOWS(SYSTEM "," USER, TOOLS, "zsystemz", "zuserz", "zcall1z");
    can->no_user = can->no_user && (!can->system || !can->tools || SHOWS(SYSTEM, TOOLS, "zsystemz", "zcall1z"));
    can->tool_results = calls_shown(p);
    const char *tools = can->tools ? TOOLS : NULL;
    can->results = SHOWS(USER "," ANSWER "," RESULT, tools, "zuserz", "zanswerz", "zresult1z") &&
                   SHOWS(USER "," ANSWER "," RESULT "," ANSWER2 "," USER2, tools, "zuserz", "zanswerz", "zresult1z", "zfurtherz", "zotherz");
    if (!can->tool_results) {
        can->past_calls = can->parallel_calls = can->calls_in_turns = can->call_content = can->text_then_calls = can->open_calls = false;
        return;
    }
    can->system_results = !can->system || SHOWS(SYSTEM "," USER "," CALL "," RESULT, can->system_tools ? TOOLS : NULL, "zsystemz", SEEN_CALL);
    can->past_calls = SHOWS(USER "," CALL "," RESULT "," ANSWER "," USER2, TOOLS, SEEN_CALL, "zanswerz", "zotherz");
    can->parallel_calls = SHOWS(USER "," CALLS("", "", ONE "," TWO) "," RESULT "," RESULT2, TOOLS, SEEN_CALLS);
    can->calls_in_turns = SHOWS(USER "," CALL "," RESULT "," CALL2 "," RESULT2, TOOLS, SEEN_CALLS);
#define BESIDE USER "," CALLS("zbesidez", "", ONE) "," RESULT
    can->call_content = SHOWS(BESIDE, TOOLS, SEEN_CALL, "zbesidez") && (!can->past_calls || SHOWS(BESIDE "," ANSWER "," USER2, TOOLS, SEEN_CALL, "zbesidez"));
    can->text_then_calls = SHOWS(USER "," ANSWER "," CALL "," RESULT, TOOLS, SEEN_CALL, "zanswerz") &&
                           SHOWS(USER "," ANSWER "," CALL "," RESULT "," ANSWER2 "," USER2, TOOLS, "zanswerz", "zfurtherz", "zotherz");
    can->open_calls = SHOWS(USER "," CALL, TOOLS, "zcall1z", "zargument1z") && SHOWS(USER "," CALL, NULL, "zcall1z", "zargument1z");
    can->no_id = SHOWS(USER "," CALLS("", "", FUNCTION("", "1")) "," RESULT_OF("", "1"), TOOLS, SEEN_CALL);
#define LONG_ID "call_0123456789abcdefABCDEF"
    can->any_id = SHOWS(USER "," CALLS("", "", FUNCTION("\"id\":\"" LONG_ID "\",", "1")) "," RESULT_OF("\"tool_call_id\":\"" LONG_ID "\",", "1"), TOOLS, SEEN_CALL);
}

/* Reasoning of the last answer, of an earlier one, or before a call: a template that shows one of these knows the member and has rules of its own. */
#define KNOWS(member)                                                                                                  \
    (SHOWS(USER "," THINKS(member), NULL, "zthoughtz") || SHOWS(USER "," THINKS(member) "," USER2, NULL, "zthoughtz") || \
     SHOWS(USER "," CALLS("", ",\"" member "\":\"zthoughtz\"", ONE) "," RESULT, TOOLS, "zthoughtz"))

static void probe_reasoning(const probe *p) {
    am_chat_traits *can = p->can;
    if (KNOWS("reasoning_content")) can->reasoning = AM_REASONING_CONTENT;
    else if (KNOWS("thinking")) can->reasoning = AM_REASONING_THINKING;
    else if (KNOWS("reasoning")) can->reasoning = AM_REASONING_PLAIN;
    else if (SHOWS(USER "," SAYS("assistant", THOUGHT), NULL, "zthoughtz") || SHOWS(USER "," SAYS("assistant", THOUGHT) "," USER2, NULL, "zthoughtz"))
        can->reasoning = AM_REASONING_TEXT;
    else can->reasoning = AM_REASONING_NOWHERE;
}

static void probe_documents(probe *p) {
    json_t *documents = json_pack("[{s:s, s:s, s:s}]", "title", "ztitlez", "text", "zdocumentz", "contents", "zdocumentz");
    p->documents = documents;
    *p->no_memory |= !documents;
    p->can->documents = SHOWS(USER, NULL, "zuserz", "ztitlez", "zdocumentz");
    p->documents = NULL;
    json_decref(documents);
}

static void excerpt(const am_rendered *r, size_t at, char out[40]) {
    size_t n = r->text.n - at < 39 ? r->text.n - at : 39;
    if (n) memcpy(out, r->text.p + at, n);
    out[n] = 0;
}

/* Whether the prompt after `first` and `answer` begins with the prompt of `first` and the answer's text. */
static am_chat_history history(const probe *p, const char *first, const char *then, const char *tools, const char *answer) {
    am_chat_history h = {.appends = true};
    am_rendered a, b;
    bool ok = render(p, first, tools, &a);
    ok = render(p, then, tools, &b) && ok;
    if (ok && am_buf_add(&a.text, am_str_of(answer))) {
        *p->no_memory = true;
    } else if (ok) {
        size_t at = 0;
        while (at < a.text.n && at < b.text.n && a.text.p[at] == b.text.p[at]) at++;
        h.appends = at == a.text.n;
        h.leaves_at = h.appends ? 0 : at;
        if (!h.appends) excerpt(&a, at, h.had), excerpt(&b, at, h.has);
    }
    am_rendered_free(&a);
    am_rendered_free(&b);
    return h;
}

static void probe_histories(const probe *p) {
#define HISTORY(before, answer, tools, text) history(p, "[" before "]", "[" before "," answer "," USER2 "]", tools, text)
    am_chat_history *h = p->can->history;
    h[AM_HISTORY_plain] = HISTORY(USER, ANSWER, NULL, "zanswerz");
    h[AM_HISTORY_system] = HISTORY(SYSTEM "," USER, ANSWER, NULL, "zanswerz");
    h[AM_HISTORY_tools] = HISTORY(SYSTEM "," USER, ANSWER, TOOLS, "zanswerz");
    h[AM_HISTORY_calls] = HISTORY(USER "," CALL "," RESULT, ANSWER, TOOLS, "zanswerz");
    h[AM_HISTORY_reasoning] = HISTORY(USER, SAYS("assistant", THOUGHT), NULL, "<think>\nzthoughtz\n</think>\n\nzanswerz");
}

static void everything(am_chat_traits *out) {
#define CAN(name) .name = true,
    *out = (am_chat_traits){AM_CHAT_TRAITS(CAN).reasoning = AM_REASONING_CONTENT};
    for (size_t i = 0; i < AM_N_HISTORIES; i++) out->history[i].appends = true;
    am_answer_form_default(&out->form);
}

static bool speaks(const probe *p) {
    if (SHOWS(USER, NULL, "zuserz")) return true;
    p->can->strings = false;
    return SHOWS(USER, NULL, "zuserz");
}

static json_t *missing_tokens(const am_chat *chat) {
    static const char *const names[] = {"bos_token", "eos_token", "pad_token", "unk_token"};
    json_t *tokens = json_object();
    bool ok = tokens != NULL;
    for (size_t i = 0; ok && i < sizeof names / sizeof *names; i++)
        ok = json_object_get(am_chat_tokens(chat), names[i]) || json_object_set_new(tokens, names[i], json_string("")) == 0;
    if (ok) return tokens;
    json_decref(tokens);
    return NULL;
}

am_chat_traits am_chat_traits_lowered(const am_chat_traits *traits, int level) {
    am_chat_traits t = *traits;
    if (level > 0) t.tool_results = t.results = false;
    if (level > 1) t.system = t.systems = t.late_system = t.same_role = t.assistant_first = t.no_user = t.tools = t.documents = false;
    return t;
}

static void probe_roles(const probe *p) {
    am_chat_traits *out = p->can;
    out->system = SHOWS(SYSTEM "," USER, NULL, "zsystemz", "zuserz");
    out->systems = out->system && SHOWS(SYSTEM "," SYSTEM2 "," USER, NULL, "zsystemz", "zsecondz", "zuserz");
    out->late_system = SHOWS(USER "," ANSWER "," SYSTEM2 "," USER2, NULL, "zuserz", "zanswerz", "zsecondz", "zotherz") &&
                       (!out->system || SHOWS(SYSTEM "," USER "," ANSWER "," SYSTEM2 "," USER2, NULL, "zsystemz", "zsecondz"));
    out->same_role = SHOWS(USER "," USER2, NULL, "zuserz", "zotherz") &&
                     SHOWS(USER "," ANSWER "," ANSWER2 "," USER2, NULL, "zuserz", "zanswerz", "zfurtherz", "zotherz");
    out->assistant_first = SHOWS(ANSWER "," USER, NULL, "zanswerz", "zuserz");
    out->no_user = !out->system || SHOWS(SYSTEM, NULL, "zsystemz");
}

bool am_chat_traits_probe(const am_chat *chat, am_chat_traits *out) {
    bool no_memory = false;
    probe p = {.chat = chat, .can = out, .tokens = missing_tokens(chat), .no_memory = &no_memory};
    everything(out);
    if (speaks(&p)) {
        probe_roles(&p);
        probe_calls(&p);
        probe_reasoning(&p);
        probe_documents(&p);
        am_chat_form_probe(render_form, &p, &out->form);
        p.adapt = true;
        probe_histories(&p);
    } else {
        everything(out);
    }
    no_memory |= !p.tokens;
    json_decref(p.tokens);
    return !no_memory;
}

const char *am_chat_reasoning_name(am_chat_reasoning reasoning) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning", "text", "nowhere"};
    return names[reasoning];
}
