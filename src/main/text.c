/* Owns `text`: tokenizer and templates as filters of JSON lines, so that other implementations can be compared with ours. One answer a line of
 * input, in order, each written out at once; what one line gets wrong is said in its answer. */
#include "main/commands.h"

#include "base/clock.h"
#include "base/fs.h"
#include "model/text_source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEMPLATE_BYTES = 4 << 20 };

typedef struct filter {
    am_tokenizer *tokenizer;
    am_chat *chat;
    am_tokens tokens; /* reused from line to line */
    am_buf out;
    am_error broken; /* --template does not compile: the answer to every line */
} filter;

static const char *const said[] = {"false", "true"};

typedef am_status filter_fn(filter *f, const json_t *line, am_error *err);

static am_status flag(const json_t *line, const char *key, bool otherwise, bool *out, am_error *err) {
    am_status status = am_json_bool(line, key, out, err);
    if (status == AM_ENOTFOUND) *out = otherwise;
    return status == AM_ENOTFOUND ? AM_OK : status;
}

static am_status encode(filter *f, const json_t *line, am_error *err) {
    am_str text;
    bool special, add_special;
    am_status status = am_json_str(line, "text", &text, err);
    if (!status) status = flag(line, "special", true, &special, err);
    if (!status) status = flag(line, "add_special", false, &add_special, err);
    if (status) return status;
    am_span all = {0, text.n};
    status = am_tokenizer_encode(f->tokenizer, text, &all, special || text.n == 0 ? 0 : 1, AM_ENCODE_ENDS | (add_special ? AM_ENCODE_BOS_EOS : 0), &f->tokens, err);
    if (status) return status;
    am_buf_printf(&f->out, "{\"ids\":[");
    for (size_t i = 0; i < f->tokens.n; i++) am_buf_printf(&f->out, "%s%d", i ? "," : "", f->tokens.ids[i]);
    am_buf_printf(&f->out, "],\"offsets\":[");
    for (size_t i = 0; i < f->tokens.n; i++) am_buf_printf(&f->out, "%s[%u,%u]", i ? "," : "", f->tokens.offsets[i], f->tokens.ends[i]);
    am_buf_printf(&f->out, "]}");
    return AM_OK;
}

static am_status take_ids(const json_t *ids, size_t n_vocab, int32_t *out, am_error *err) {
    size_t i;
    json_t *id;
    json_array_foreach(ids, i, id) {
        json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
        if (v < 0 || (size_t)v >= n_vocab) return am_fail(err, AM_EINVAL, "ids[%zu] must be an integer from 0 to %zu", i, n_vocab - 1);
        out[i] = (int32_t)v;
    }
    return AM_OK;
}

static am_status decode(filter *f, const json_t *line, am_error *err) {
    const json_t *ids = json_object_get(line, "ids");
    bool skip;
    if (!json_is_array(ids)) return am_fail(err, AM_EINVAL, "'ids' must be a list of integers");
    am_status status = flag(line, "skip_special", false, &skip, err);
    if (status) return status;
    size_t n = json_array_size(ids);
    int32_t *list = am_calloc(n + 1, sizeof *list);
    am_buf text;
    am_buf_init(&text, SIZE_MAX / 2);
    status = list ? take_ids(ids, am_tokenizer_n_vocab(f->tokenizer), list, err) : am_fail(err, AM_ENOMEM, "out of memory");
    if (!status && (status = am_tokenizer_decode(f->tokenizer, list, n, skip, &text))) am_fail(err, status, "%s", am_status_text(status));
    if (!status) {
        am_buf_printf(&f->out, "{\"text\":");
        status = am_json_quote(text.n ? am_buf_str(&text) : AM_STR(""), &f->out);
        am_buf_putc(&f->out, '}');
    }
    am_buf_free(&text);
    free(list);
    return status;
}

static am_status render(filter *f, const json_t *line, am_error *err) {
    am_rendered rendered;
    if (f->broken.code) return am_fail(err, f->broken.code, "%s", f->broken.message);
    am_status status = am_chat_render_context(f->chat, line, (int64_t)(am_wall_ns() / 1000000000u), &rendered, err);
    if (!status) {
        am_buf_printf(&f->out, "{\"text\":");
        status = am_json_quote(rendered.text.n ? am_buf_str(&rendered.text) : AM_STR(""), &f->out);
        am_buf_putc(&f->out, '}');
    }
    am_rendered_free(&rendered);
    return status;
}

static const struct {
    const char *name;
    filter_fn *fn;
} filters[] = {{"encode", encode}, {"decode", decode}, {"render", render}};

static const char *code_of(am_status status) {
    switch (status) {
    case AM_EFORMAT: return "malformed";
    case AM_EUNSUPPORTED: return "unsupported";
    case AM_ELIMIT: return "limit";
    case AM_ENOMEM: return "out_of_memory";
    default: return "invalid";
    }
}

static void answer(filter *f, filter_fn *fn, am_str text, size_t number) {
    json_t *line = NULL;
    am_error err = {0};
    am_buf_clear(&f->out);
    am_status status = am_json_parse_exact(text, &line, &err);
    bool parsed = !status;
    if (parsed && !json_is_object(line)) status = am_fail(&err, AM_EINVAL, "a line must be a JSON object");
    if (!status) status = fn(f, line, &err);
    if (status) {
        am_buf_clear(&f->out);
        am_buf_printf(&f->out, "{\"error\":{\"code\":\"%s\",\"message\":", parsed ? code_of(status) : "invalid_json");
        am_json_quote(am_str_of(err.message[0] ? err.message : am_status_text(status)), &f->out);
        am_buf_printf(&f->out, ",\"line\":%zu}}", number);
    }
    json_decref(line);
    am_buf_putc(&f->out, '\n');
    fwrite(f->out.p, 1, f->out.n, stdout);
    fflush(stdout);
}

static void put_mark(am_buf *out, const char *name, const char *mark) {
    if (!mark[0]) return;
    am_buf_printf(out, ",\"%s\":", name);
    am_json_quote(am_str_of(mark), out);
}

/* `report`: what the template can say, in which form its model's answers are read, and which histories only grow, as one JSON object. */
static void report(filter *f) {
    const am_chat_traits *t = am_chat_traits_of(f->chat);
    am_buf *out = &f->out;
#define TRAIT(name) am_buf_printf(out, "\"" #name "\":%s,", said[t->name]);
#define HISTORY(name) #name,
    static const char *const histories[] = {AM_CHAT_HISTORIES(HISTORY)};
    am_buf_putc(out, '{');
    AM_CHAT_TRAITS(TRAIT)
    am_buf_printf(out, "\"reasoning\":\"%s\",\"histories\":{", am_chat_reasoning_name(t->reasoning));
    for (size_t i = 0; i < AM_N_HISTORIES; i++) {
        const am_chat_history *h = &t->history[i];
        am_buf_printf(out, "%s\"%s\":{\"appends\":%s", i ? "," : "", histories[i], said[h->appends]);
        if (!h->appends) {
            am_buf_printf(out, ",\"leaves_at\":%zu,\"had\":", h->leaves_at);
            am_json_quote(am_str_of(h->had), out);
            am_buf_printf(out, ",\"has\":");
            am_json_quote(am_str_of(h->has), out);
        }
        am_buf_putc(out, '}');
    }
    am_buf_printf(out, "},\"answers\":{\"calls\":\"%s\",\"bare\":%s,\"told\":%s", am_call_kind_name(t->form.kind), said[t->form.bare], said[t->form.told]);
#define MARK(name) put_mark(out, #name, t->form.name);
    AM_ANSWER_MARKS(MARK)
    am_buf_printf(out, "}}\n");
    fwrite(out->p, 1, out->n, stdout);
}

static int run(filter *f, filter_fn *fn) {
    char *line = NULL;
    size_t cap = 0, number = 0;
    ssize_t n;
    errno = 0;
    while (!ferror(stdout) && (n = getline(&line, &cap, stdin)) >= 0) {
        number++;
        while (n && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
        if (n) answer(f, fn, (am_str){line, (size_t)n}, number);
    }
    bool failed = ferror(stdin) || ferror(stdout) || errno == ENOMEM;
    if (failed) fprintf(stderr, "agent-memory: line %zu: %s\n", number + 1, strerror(errno));
    free(line);
    return failed ? AM_EXIT_FAILED : 0;
}

/* The template of a file takes the place of the tokenizer's own; the special tokens stay. */
static am_status use_template(filter *f, const char *path, am_error *err) {
    am_buf source;
    am_buf_init(&source, MAX_TEMPLATE_BYTES + 1);
    am_chat *chat = NULL;
    am_status status = am_fs_read_file(path, &source, MAX_TEMPLATE_BYTES, err);
    if (!status) status = am_chat_load_source(source.n ? am_buf_str(&source) : AM_STR(""), f->chat ? am_chat_tokens(f->chat) : NULL, &chat, err);
    am_buf_free(&source);
    if (status) return status;
    am_chat_free(f->chat);
    f->chat = chat;
    return AM_OK;
}

static am_status prepare(filter *f, const am_settings *settings, bool renders, am_error *err) {
    bool alone = settings->template && !settings->tokenizer; /* a template needs no tokenizer */
    am_status status = alone ? AM_OK : am_text_source_open(settings->tokenizer, &f->tokenizer, &f->chat, err);
    if (!status && settings->template) {
        status = use_template(f, settings->template, err);
        if (status == AM_EFORMAT || status == AM_ELIMIT) f->broken = *err;
    }
    if (status) return status;
    const char *path = settings->tokenizer ? settings->tokenizer : "";
    if (renders && !f->chat) return am_fail(err, AM_ENOTFOUND, "%s has no chat template; name one with --template", path);
    if (!renders && !f->tokenizer) return am_fail(err, AM_ENOTFOUND, "%s has no tokenizer", path);
    return AM_OK;
}

int am_command_text(am_settings *settings) {
    am_error err = {0};
    filter f = {0};
    am_buf_init(&f.out, SIZE_MAX / 2);
    size_t which = 0;
    bool reports = strcmp(settings->args[0], "report") == 0;
    while (!reports && which < sizeof filters / sizeof *filters && strcmp(filters[which].name, settings->args[0]) != 0) which++;
    int code = AM_EXIT_USAGE;
    if (which == sizeof filters / sizeof *filters) {
        fprintf(stderr, "agent-memory: text does not know '%s'; it has encode, decode, render and report\n", settings->args[0]);
    } else if (prepare(&f, settings, reports || filters[which].fn == render, &err)) {
        fprintf(stderr, "agent-memory: %s\n", err.message);
        if (f.broken.code && !reports) run(&f, filters[which].fn);
        code = AM_EXIT_FAILED;
    } else if (reports) {
        report(&f);
        code = 0;
    } else {
        code = run(&f, filters[which].fn);
    }
    am_tokens_free(&f.tokens);
    am_buf_free(&f.out);
    am_tokenizer_free(f.tokenizer);
    am_chat_free(f.chat);
    return code;
}
