/* What a model writes, read back: for every real chat template of the reference data that shows calls, the text that it makes of an assistant's calls is
 * given to the reader, in all ways of cutting it in two and byte by byte, and the calls come out. And what is no call stays text. */
#include "text_truth.h"

#include "text/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char tools_json[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"properties\":"
    "{\"city\":{\"type\":\"string\",\"description\":\"d\"},\"days\":{\"type\":\"integer\",\"description\":\"d\"},\"zip\":{\"type\":\"string\",\"description\":\"d\"},"
    "\"where\":{\"type\":\"object\",\"description\":\"d\"},\"list\":{\"type\":\"array\",\"description\":\"d\",\"items\":{\"type\":\"number\"}}},\"required\":[\"city\"]}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"get_weather_map\",\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"properties\":"
    "{\"city\":{\"type\":\"string\",\"description\":\"d\"},\"on\":{\"type\":\"boolean\",\"description\":\"d\"}},\"required\":[]}}}]";
#define CALL(id, name, arguments) "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"arguments\":" arguments "}}"
static const char *const arguments[] = {
    "{\"city\": \"S\\u00e3o Paulo\", \"days\": 3}",
    "{\"city\": \"a \\\"b\\\" {c} [d] </x>\", \"days\": -12, \"zip\": \"01234\", \"where\": {\"lat\": 1.5, \"tags\": [\"x\", \"y, z\"]}, \"list\": [1, 2.5, 3]}",
    "{\"city\": \"two\\nlines\\n  of it\"}",
};

typedef struct heard {
    am_buf text, reasoning, calls; /* calls: name, a blank, arguments, a newline each */
} heard;

static void on_text(void *arg, am_str text) { am_buf_add(&((heard *)arg)->text, text); }
static void on_reasoning(void *arg, am_str text) { am_buf_add(&((heard *)arg)->reasoning, text); }
static void on_call(void *arg, uint32_t index, am_str name, am_str text) {
    am_buf *b = &((heard *)arg)->calls;
    json_t *v = json_loadb(text.p, text.n, 0, NULL); /* keys in one order and no blanks, to compare */
    char *sorted = v ? json_dumps(v, JSON_SORT_KEYS | JSON_COMPACT) : NULL;
    am_buf_printf(b, "%u %.*s %s\n", index, (int)name.n, name.p, sorted ? sorted : "NO JSON");
    free(sorted);
    json_decref(v);
}

static void heard_free(heard *h) {
    am_buf_free(&h->text);
    am_buf_free(&h->reasoning);
    am_buf_free(&h->calls);
}

/* Reads text in pieces of `step` bytes after a first one of `first`. */
static heard read_all(const am_answer_form *form, json_t *tools, am_str prompt, am_str text, size_t first, size_t step) {
    heard h = {0};
    am_buf_init(&h.text, 1 << 20);
    am_buf_init(&h.reasoning, 1 << 20);
    am_buf_init(&h.calls, 1 << 20);
    am_answer_sink sink = {on_text, on_reasoning, on_call, &h};
    am_answer a;
    am_answer_init(&a, form, tools, prompt);
    for (size_t at = 0, n = first; at < text.n; at += n, n = step) {
        if (n > text.n - at) n = text.n - at;
        if (n) am_answer_push(&a, (am_str){text.p + at, n}, &sink);
    }
    am_answer_finish(&a, &sink);
    am_answer_free(&a);
    return h;
}

static const char *c_text(am_buf *b) {
    am_buf_putc(b, 0);
    return b->p;
}

/* In every split; prints the first that is wrong. */
static bool reads_as(const char *name, const am_answer_form *form, json_t *tools, am_str prompt, am_str text, const char *calls, const char *content) {
    for (size_t first = 0; first <= text.n; first++) {
        heard h = read_all(form, tools, prompt, text, first, first ? text.n : 1);
        const char *said = c_text(&h.text);
        said += strspn(said, " \n"); /* what some templates have before every answer */
        bool ok = strcmp(c_text(&h.calls), calls) == 0 && strcmp(said, content) == 0;
        if (!ok) printf("%s, cut at %zu: %.*s\n  calls: %s  wanted: %s  text: '%s', wanted '%s'\n", name, first, (int)text.n, text.p, h.calls.p, calls, h.text.p, content);
        heard_free(&h);
        if (!ok) return false;
    }
    return true;
}

static bool render(const am_chat *chat, const char *messages, json_t *tools, bool prompt, am_rendered *out) {
    json_t *m = json_loads(messages, 0, NULL), *put;
    char param[AM_CHAT_PARAM_BYTES];
    assert_non_null(m);
    assert_int_equal(am_chat_messages(m, &put, param, NULL), AM_OK);
    am_chat_request request = {.messages = put, .tools = tools, .add_generation_prompt = prompt, .now_s = 1752148800};
    bool ok = am_chat_render(chat, &request, out, NULL) == AM_OK;
    json_decref(m);
    json_decref(put);
    return ok;
}

static void unescape(am_buf *b) {
    for (char *p; (p = strstr(b->p, "&#34;"));) {
        *p = '"';
        memmove(p + 1, p + 5, strlen(p + 5) + 1);
        b->n -= 4;
    }
}

/* What a model has to write after `prompt` so that the conversation becomes `whole`, without the end of its turn. */
static am_str answer_of(am_buf *prompt, const am_buf *whole, const am_buf *plain) {
    const char *turn_end = strstr(plain->p, "zanswerz") + 8;
    size_t n = 0, m = 0, k = 0, end = plain->n - (size_t)(turn_end - plain->p);
    while (n < prompt->n && n < whole->n && prompt->p[n] == whole->p[n]) n++;
    if (n < prompt->n) {
        while (n && prompt->p[n] != '<' && prompt->p[n] != '[') n--;
        if (strncmp(whole->p + n, "</", 2) != 0) prompt->n = n; /* else the prompt opens what the answer closes */
    }
    while (k < plain->n && k < whole->n && plain->p[k] == whole->p[k]) k++;
    while (k && strchr(" \n", whole->p[k - 1])) k--;
    if (k > n && whole->p[k - 1] == '>' && !memmem(whole->p + n, k - n, "</", 2)) n = k; /* unless it closes a thought */
    while (m < end && m < whole->n - n && whole->p[whole->n - 1 - m] == plain->p[plain->n - 1 - m]) m++;
    while (m && m < end && !strchr("<[\n", whole->p[whole->n - m])) m--;
    const char *user = memmem(whole->p + n, whole->n - n, "zuserz", 6), *behind = strstr(prompt->p, "zuserz"); /* tools stand before it in the prompt alone */
    if (user && behind)
        for (n = (size_t)(user - whole->p); *behind && whole->p[n] == *behind; behind++) n++;
    return (am_str){whole->p + n, whole->n - n - m};
}

#define PLAIN "[{\"role\":\"user\",\"content\":\"zuserz\"},{\"role\":\"assistant\",\"content\":\"zanswerz\"}]"

static void wanted_of(char *out, size_t cap, const char *first, const char *second) {
    heard h = {0};
    am_buf_init(&h.calls, 1 << 16);
    on_call(&h, 0, AM_STR("get_weather"), am_str_of(first));
    if (second) on_call(&h, 1, AM_STR("get_weather_map"), am_str_of(second));
    snprintf(out, cap, "%s", c_text(&h.calls));
    heard_free(&h);
}

static bool round_trip(const char *name, const am_chat *chat, json_t *tools, const char *with, bool two, const char *content) {
    char messages[4096], wanted[4096];
    snprintf(messages, sizeof messages, "[{\"role\":\"user\",\"content\":\"zuserz\"},{\"role\":\"assistant\",\"content\":\"%s\",\"tool_calls\":["
             CALL("abcdef121", "get_weather", "%s") "%s]}]", content, with, two ? "," CALL("uvwxyz989", "get_weather_map", "{\"on\": true}") : "");
    wanted_of(wanted, sizeof wanted, with, two ? "{\"on\": true}" : NULL);
    am_rendered prompt, whole, plain;
    assert_true(render(chat, "[{\"role\":\"user\",\"content\":\"zuserz\"}]", tools, true, &prompt));
    assert_true(render(chat, messages, tools, false, &whole));
    assert_true(render(chat, PLAIN, tools, false, &plain));
    unescape(&whole.text);
    am_str text = answer_of(&prompt.text, &whole.text, &plain.text);
    const char *end = strstr(c_text(&plain.text), "zanswerz") + 8;
    bool two_turns = content[0] && *end && memmem(text.p, text.n, end, strlen(end)); /* what it has no turn for, it does not show as one answer */
    bool ok = two_turns || reads_as(name, &am_chat_traits_of(chat)->form, tools, am_buf_str(&prompt.text), text, wanted, content);
    am_rendered_free(&prompt);
    am_rendered_free(&whole);
    am_rendered_free(&plain);
    return ok;
}

static am_chat *chat_of(am_str source) {
    json_t *tokens = json_pack("{s:s, s:s}", "bos_token", "<s>", "eos_token", "</s>");
    am_chat *chat = NULL;
    am_error err;
    if (am_chat_load_source(source, tokens, &chat, &err)) chat = NULL;
    json_decref(tokens);
    return chat;
}

typedef struct tally {
    json_t *tools; /* from the first template on */
    size_t n, n_wrong;
} tally;

static void read_back(void *arg, const char *name, am_str source) {
    tally *t = arg;
    if (!t->tools) t->tools = json_loads(tools_json, 0, NULL);
    am_chat *chat = chat_of(source);
    const am_chat_traits *can = chat ? am_chat_traits_of(chat) : NULL;
    am_rendered plain;
    if (chat && !render(chat, PLAIN, NULL, false, &plain)) can = NULL; /* for requests with tools alone; its sibling is probed */
    else if (chat) am_rendered_free(&plain);
    if (can && !render(chat, PLAIN, t->tools, false, &plain)) can = NULL; /* wants variables of its own */
    else if (can) am_rendered_free(&plain);
    for (size_t i = 0; can && can->open_calls && i < sizeof arguments / sizeof *arguments; i++) {
        t->n++;
        t->n_wrong += !round_trip(name, chat, t->tools, arguments[i], false, "");
        if (can->parallel_calls) t->n++, t->n_wrong += !round_trip(name, chat, t->tools, arguments[i], true, "");
        if (can->call_content) t->n++, t->n_wrong += !round_trip(name, chat, t->tools, arguments[i], false, "Let me see.");
    }
    am_chat_free(chat);
}

static void real_templates_are_read_back(void **state) {
    (void)state;
    json_t *truth = truth_json("testdata/templates/goldens.json"), *one;
    tally t = {0};
    const char *sha;
    json_object_foreach(json_object_get(truth, "templates"), sha, one) read_back(&t, sha, am_str_of(json_string_value(json_object_get(one, "template"))));
    json_decref(t.tools);
    json_decref(truth);
    printf("%zu answers with calls, %zu read wrongly\n", t.n, t.n_wrong);
    assert_true(t.n > 200);
    assert_int_equal(t.n_wrong, 0);
}

static void more_templates_are_read_back(void **state) {
    (void)state;
    tally t = {0};
    truth_more_templates(read_back, &t);
    json_decref(t.tools);
    printf("%zu answers with calls, %zu read wrongly\n", t.n, t.n_wrong);
    assert_int_equal(t.n_wrong, 0);
}

/* The ways in which templates write Python's form: Llama 4's (everything within quotes), Llama 3.2's (nothing is), LFM 2.5's, OLMo 3's, Gemma 3's. */
#define TURN(content) "{%- if message.role == 'assistant' and message.tool_calls %}<|a|>" content "<|end|>{% else %}<|{{ message.role[0] }}|>{{ message.content }}<|end|>{% endif %}"
#define CALLS_OF(between, value) \
    "{%- for c in message.tool_calls %}{{- c.function.name }}({% for k, v in c.function.arguments|items %}{{ k }}=" value "{{ ', ' if not loop.last }}{% endfor %})" \
    "{{ '" between "' if not loop.last }}{% endfor %}"
#define TEMPLATE(content) \
    "{%- if tools %}<|s|>Functions: {{ tools|tojson }}<|end|>{% endif %}{% for message in messages %}" TURN(content) "{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}"
#define PYTHON "{% if v is string %}'{{ v|replace('\\\\', '\\\\\\\\')|replace('\\'', '\\\\\\'')|replace('\\n', '\\\\n') }}'{% else %}{{ v }}{% endif %}"

static void python_calls_are_read_back(void **state) {
    (void)state;
    static const struct {
        const char *name, *template, *kind;
        bool bare;
    } cases[] = {
        {"all quoted", TEMPLATE("{{ message.content }}[" CALLS_OF(", ", "\"{{ '%s'|format(v) }}\"") "]"), "python", true},
        {"none quoted", TEMPLATE("[" CALLS_OF(", ", "{{ '%s'|format(v) }}") "]"), "python", true},
        {"marks", TEMPLATE("{{ message.content }}<|tool_call_start|>[" CALLS_OF(", ", "{% if v is string %}'{{ v }}'{% elif v is mapping %}{{ v|tojson }}{% else %}{{ v }}{% endif %}") "]<|tool_call_end|>"), "python", false},
        {"lines", TEMPLATE("<function_calls>\n" CALLS_OF("\n", "{% if v is string %}'{{ v }}'{% else %}{{ v|tojson }}{% endif %}") "\n</function_calls>"), "python", false},
        {"json values", TEMPLATE("[" CALLS_OF(", ", "{{ v|tojson }}") "]"), "python", true},
        {"python values", TEMPLATE("<|python_start|>[" CALLS_OF(",\n ", PYTHON) "]<|python_end|>"), "python", false},
    };
    json_t *tools = json_loads(tools_json, 0, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_chat *chat = chat_of(am_str_of(cases[i].template));
        assert_non_null(chat);
        const am_chat_traits *can = am_chat_traits_of(chat);
        assert_string_equal(am_call_kind_name(can->form.kind), cases[i].kind);
        assert_int_equal(can->form.bare, cases[i].bare);
        for (size_t k = 0; k < sizeof arguments / sizeof *arguments; k++) {
            assert_true(round_trip(cases[i].name, chat, tools, arguments[k], false, ""));
            assert_true(round_trip(cases[i].name, chat, tools, arguments[k], true, ""));
            if (can->call_content) assert_true(round_trip(cases[i].name, chat, tools, arguments[k], true, "Let me see."));
        }
        am_chat_free(chat);
    }
    json_decref(tools);
}

#define PLAIN_TURN "<|a|>{{ message.content }}<|end|>"
#define JSON_CALL "{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments|tojson }}}"
#define TURNS(calls, plain, begin) \
    "{%- for message in messages %}{% if message.role != 'assistant' %}<|{{ message.role }}|>{{ message.content }}<|end|>{% elif message.tool_calls %}" calls "{% else %}" plain "{% endif %}{% endfor %}" \
    "{% if add_generation_prompt %}" begin "{% endif %}"

/* What some few templates do, and nothing of the reference data. */
static void rare_forms_are_found(void **state) {
    (void)state;
    static const struct {
        const char *template, *open, *close, *think, *think_end;
    } cases[] = {
        /* GigaChat 3: the mark of calls is a role in words */
        {TURNS("<|a|>{{ message.content }}{% for c in message.tool_calls %}<|sep|>\n\nfunction call<|role|>\n" JSON_CALL "<|sep|>\n\n{% endfor %}", "<|a|>{{ message.content }}<|sep|>\n\n", "<|a|>"),
         "<|sep|>\n\nfunction call<|role|>", "", "<think>", "</think>"},
        /* Apriel: the prompt begins the thought in words, and its end is no tag */
        {TURNS("\n<|a|>\n{{ message.content }}\n<calls>[{% for c in message.tool_calls %}" JSON_CALL "{{ ', ' if not loop.last }}{% endfor %}]</calls>\n",
               "\n<|a|>\n{% if message.reasoning_content %}{{ message.reasoning_content }}\n[BEGIN FINAL RESPONSE]\n{% endif %}{{ message.content }}\n", "\n<|a|>\nHere are my reasoning steps:\n"),
         "<calls>", "</calls>", "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"},
        /* DeepSeek R1: an empty content beside calls would be an answer of its own */
        {TURNS("<|a|><calls>{% for c in message.tool_calls %}<call>" JSON_CALL "</call>{% endfor %}</calls><|end|>{% if message.content is not none %}" PLAIN_TURN "{% endif %}", PLAIN_TURN, "<|a|>"),
         "<call>", "</call>", "<think>", "</think>"},
    };
    json_t *tools = json_loads(tools_json, 0, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_chat *chat = chat_of(am_str_of(cases[i].template));
        assert_non_null(chat);
        const am_answer_form *form = &am_chat_traits_of(chat)->form;
        assert_string_equal(form->open, cases[i].open);
        assert_string_equal(form->close, cases[i].close);
        assert_string_equal(form->think, cases[i].think);
        assert_string_equal(form->think_end, cases[i].think_end);
        am_chat_free(chat);
    }
    json_decref(tools);
}

/* Forms as the templates of these families give them. */
static const am_answer_form hermes = {.open = "<tool_call>", .close = "</tool_call>", .think = "<think>", .think_end = "</think>"};
static const am_answer_form llama = {.bare = true, .open = "<|python_tag|>", .think = "<think>", .think_end = "</think>"};
static const am_answer_form mistral = {.kind = AM_CALL_NAMED, .open = "[TOOL_CALLS]", .after_name = "[ARGS]", .think = "[THINK]", .think_end = "[/THINK]"};
static const am_answer_form coder = {.kind = AM_CALL_TAGGED, .open = "<tool_call>\n<function=", .close = "</function>\n</tool_call>", .after_name = ">", .param = "<parameter=",
                                     .value = ">\n", .param_end = "\n</parameter>\n", .think = "<think>", .think_end = "</think>"};
static const am_answer_form python = {.kind = AM_CALL_PYTHON, .bare = true};
static const am_answer_form silent = {.told = true, .open = "<tool_call>", .close = "</tool_call>", .think = "<think>", .think_end = "</think>"};
static const am_answer_form harmony = {.kind = AM_CALL_HARMONY};

static void what_is_no_call_stays_text(void **state) {
    (void)state;
    static const struct {
        const am_answer_form *form;
        const char *text;
    } cases[] = {
        {&hermes, "Write <tool_call> and then JSON, as in <tool_call>{\"name\": \"x\"}</tool_call>."},
        {&hermes, "<tool_call>{\"name\": \"get_weather\", \"arguments\": [1]}</tool_call>"},
        {&hermes, "<tool_call>{\"name\": \"get_weather\", \"arguments\": {</tool_call>"},
        {&hermes, "a < b and <tool"},
        {&hermes, "{\"name\": \"get_weather\", \"arguments\": {}}"}, /* no mark, and this model has one */
        {&llama, "{\"temperature\": 20, \"name\": \"get_weather\"}"},
        {&llama, "{\"name\": \"get_weather_of\", \"parameters\": {}}"},
        {&llama, "For example {\"name\": \"get_weather\", \"parameters\": {}}"},
        {&llama, "[1, 2] and {3}"},
        {&mistral, "[TOOL_CALLS]get_weather is a mark. [T [TOOL"},
        {&mistral, "[TOOL_CALLS]get_weathers[ARGS]{}"},
        {&coder, "<tool_call>\n<function=nothing>\n</function>\n</tool_call>"},
        {&coder, "x <function=get_weather> y"},
        {&harmony, "no head at all <|end"},
        {&python, "[get_weathers(city=\"x\")] or [get_weather] or [get_weather(city=x, or"},
        {&python, "[get_weather(city=\"x\"), nothing()]"},
        {&python, "get_weather(city=\"x\")"},
        {&python, "[get_weather(city=f(1))]. See [1], (2) and [get"},
        {&python, "[get_weather(city=\"x\" days=3)]"},
        {&python, "[get_weather(\"x\", 1, \"y\", {}, [], 6)]"}, /* more than it has parameters */
        {&llama, "[get_weather is one, get_weather_map(x)]"},
        {&hermes, "```tool_code\nget_weather(city='x')\n```"}, /* its template has a form of its own */
        {&silent, "```tool_code\nprint(1)\n``` and <|python_start|>x<|python_end|>"},
    };
    json_t *tools = json_loads(tools_json, 0, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_true(reads_as("text", cases[i].form, tools, AM_STR(""), am_str_of(cases[i].text), "", cases[i].text));
    json_decref(tools);
}

static void calls_as_models_vary_them(void **state) {
    (void)state;
    static const char one[] = "0 get_weather {\"city\":\"x\"}\n";
    static const struct {
        const am_answer_form *form;
        const char *text, *calls, *content;
    } cases[] = {
        {&hermes, "<tool_call>{\"name\":\"get_weather\",\"arguments\":{\"city\":\"x\"}}", one, ""},
        {&hermes, "Sure.\n\n<tool_call>\n{\"arguments\": {\"city\": \"x\"}, \"name\": \"get_weather\"}\n</tool_call>\n", one, "Sure."},
        {&hermes, "<tool_call>{\"name\":\"get_weather\",\"arguments\":\"{\\\"city\\\":\\\"x\\\"}\"}</tool_call>", one, ""},
        {&hermes, "<tool_call>[{\"function\":{\"name\":\"get_weather\",\"arguments\":{\"city\":\"x\"}}}]</tool_call> done", one, "done"},
        {&llama, "<|python_tag|>{\"type\": \"function\", \"name\": \"get_weather\", \"parameters\": {\"city\": \"x\"}}", one, ""},
        {&llama, "\n\n{\"name\": \"get_weather\", \"parameters\": {\"city\": \"x\"}}; {\"name\": \"get_weather_map\", \"parameters\": {}}",
         "0 get_weather {\"city\":\"x\"}\n1 get_weather_map {}\n", ""},
        {&mistral, "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"x\"}[TOOL_CALLS]get_weather_map[ARGS]{}", "0 get_weather {\"city\":\"x\"}\n1 get_weather_map {}\n", ""},
        {&coder, "I look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\n7\n</parameter>\n<parameter=days>\n7\n</parameter>\n</function>\n</tool_call>",
         "0 get_weather {\"city\":\"7\",\"days\":7}\n", "I look."},
        {&coder, "<tool_call>\n<function=get_weather>\n<parameter=city>\na </parameter> b\n</parameter>\n</function>\n</tool_call>",
         "0 get_weather {\"city\":\"a </parameter> b\"}\n", ""},
        {&coder, "<tool_call>\n<function=get_weather>\n<parameter=city>\n'x'\n</parameter>\n<parameter=where>\n{'a': True, 'b': ('x', None)}\n</parameter>\n</function>\n</tool_call>",
         "0 get_weather {\"city\":\"'x'\",\"where\":{\"a\":true,\"b\":[\"x\",null]}}\n", ""}, /* Seed-OSS shows values as Python prints them */
        {&coder, "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"x\"}}\n</tool_call>", one, ""}, /* the form told in words */
        {&harmony, "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\":\"x\"}<|call|>", one, ""},
        {&harmony, "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{\"city\":\"x\"}", one, "I look."},
        {&harmony, "<|channel|>final<|message|>Hello <b>you<|return|>", "", "Hello <b>you"},
        {&harmony, "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary<|message|>I look.\n<|end|>"
                   "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\":\"x\"}<|call|>", one, "I look."},
        {&harmony, "<|channel|>final<|message|>I look.<|end|><|start|>assistant<|channel|>analysis to=functions.get_weather code<|message|>{\"city\":\"x\"}<|call|>"
                   "<|start|>assistant<|channel|>final<|message|> And more.<|return|>", one, "I look.And more."},
        {&python, "[get_weather(city=\"x\")]", one, ""},
        {&python, "\n [ get_weather ( city = 'x' , ) ,get_weather_map(on=True),] ", "0 get_weather {\"city\":\"x\"}\n1 get_weather_map {\"on\":true}\n", ""},
        {&python, "I look: [get_weather(city=\"x\")]", one, "I look:"},
        {&python, "[get_weather('x', 3)]", "0 get_weather {\"city\":\"x\",\"days\":3}\n", ""},
        {&python, "[get_weather(city='it\\'s \\u00e9\\x41\\n' \"b\", where={'a': (1, 2,), \"b\": (3), 4: None, 'c': [.5, -1., 1_000, 0x10, +2, 1e-3]})]",
         "0 get_weather {\"city\":\"it's \u00e9A\\nb\",\"where\":{\"4\":null,\"a\":[1,2],\"b\":3,\"c\":[0.5,-1.0,1000,16,2,0.001]}}\n", ""},
        {&python, "[get_weather(city=\"\"\"a \"b\" c\"\"\", zip=r'\\d')]", "0 get_weather {\"city\":\"a \\\"b\\\" c\",\"zip\":\"\\\\d\"}\n", ""},
        {&python, "[get_weather(city='it's \"x\", y', days='3', zip=12)]", "0 get_weather {\"city\":\"it's \\\"x\\\", y\",\"days\":3,\"zip\":\"12\"}\n", ""},
        {&python, "<|python_start|>[get_weather(city=\"x\")]<|python_end|>", one, ""},
        {&llama, "[get_weather(city=\"x\")]", one, ""},
        {&llama, "[{\"name\": \"get_weather\", \"parameters\": {\"city\": \"x\"}}]", one, ""},
        {&llama, "<|python_tag|>[get_weather(city=\"x\")]", one, ""},
        {&hermes, "<tool_call>[get_weather(city=\"x\")]</tool_call>", one, ""},
        {&silent, "<|tool_call_start|>[get_weather(city=\"x\")]<|tool_call_end|>I look.", one, "I look."},
        {&silent, "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"x\"}}]", one, ""},
        {&silent, "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"x\"}}]<|/tool_call|>", one, ""},
        {&silent, "So:\n```tool_code\nget_weather(city='x')\n```", one, "So:"},
        {&silent, "```tool_code\nget_weather(city='x')\nget_weather_map()\n```\n", "0 get_weather {\"city\":\"x\"}\n1 get_weather_map {}\n", ""},
    };
    json_t *tools = json_loads(tools_json, 0, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_true(reads_as("call", cases[i].form, tools, AM_STR(""), am_str_of(cases[i].text), cases[i].calls, cases[i].content));
    json_decref(tools);
}

/* No digit of a number is lost on the way. */
static void keep_text(void *arg, uint32_t index, am_str name, am_str text) {
    (void)index;
    (void)name;
    am_buf_add(arg, text);
}

static void arguments_keep_their_spelling(void **state) {
    (void)state;
    am_buf got;
    am_buf_init(&got, 1 << 16);
    json_t *tools = json_loads(tools_json, 0, NULL);
    am_answer_sink sink = {.call = keep_text, .arg = &got};
    am_answer a;
    am_answer_init(&a, &hermes, tools, AM_STR(""));
    am_answer_push(&a, AM_STR("<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"days\": 12345678901234567890123, \"list\": [0.10]}}</tool_call>"), &sink);
    am_answer_finish(&a, &sink);
    am_answer_free(&a);
    assert_string_equal(c_text(&got), "{\"days\":12345678901234567890123,\"list\":[0.10]}");
    am_buf_free(&got);
    json_decref(tools);
}

static void thoughts_are_apart(void **state) {
    (void)state;
    static const struct {
        const am_answer_form *form;
        const char *prompt, *text, *thought, *content;
    } cases[] = {
        {&hermes, "", "<think>\na b\n</think>\n\nc", "a b", "c"},
        {&hermes, "<|assistant|><think>\n", "a < b\n</think>\n\nc", "a < b", "c"},
        {&hermes, "", "\n<think>never ends", "never ends", ""},
        {&hermes, "", "say <think>this</think>", "", "say <think>this</think>"},
        {&hermes, "", "</think>c", "", "c"},
        {&mistral, "", "[THINK]x[/THINK]y", "x", "y"},
        {&harmony, "", "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>", "a", "b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_str text = am_str_of(cases[i].text);
        for (size_t first = 0; first <= text.n; first++) {
            heard h = read_all(cases[i].form, NULL, am_str_of(cases[i].prompt), text, first, first ? text.n : 1);
            assert_string_equal(c_text(&h.reasoning), cases[i].thought);
            assert_string_equal(c_text(&h.text), cases[i].content);
            heard_free(&h);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(real_templates_are_read_back), cmocka_unit_test(more_templates_are_read_back), cmocka_unit_test(python_calls_are_read_back), cmocka_unit_test(rare_forms_are_found), cmocka_unit_test(what_is_no_call_stays_text),
                                       cmocka_unit_test(calls_as_models_vary_them), cmocka_unit_test(arguments_keep_their_spelling), cmocka_unit_test(thoughts_are_apart)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
