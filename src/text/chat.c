/* Owns which template a model folder means and what it is rendered with.
 *
 * A folder has chat_template.jinja, or a chat_template in tokenizer_config.json (a string, or a list of {name, template}), or one in chat_template.json, as
 * processors keep it; and more in additional_chat_templates/NAME.jinja. The special tokens come from tokenizer_config.json and, where
 * it has none, special_tokens_map.json; they are the model's own text, which no request can override. */
#include "text/chat_traits.h"

#include "base/fs.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TEMPLATE_BYTES = 4 << 20, MAX_CONFIG_BYTES = 64 << 20, MAX_TEMPLATES = 64 };

typedef struct named {
    char *name;
    am_template *t;
} named;

struct am_chat {
    named *list;
    size_t n;
    json_t *tokens;
    am_chat_traits traits;
};

void am_chat_free(am_chat *chat) {
    if (!chat) return;
    for (size_t i = 0; i < chat->n; i++) {
        free(chat->list[i].name);
        am_template_free(chat->list[i].t);
    }
    free(chat->list);
    json_decref(chat->tokens);
    free(chat);
}

static am_status no_memory(am_error *err) { return am_fail(err, AM_ENOMEM, "no memory for the chat template"); }

static am_chat *chat_create(void) {
    am_chat *chat = am_calloc(1, sizeof *chat);
    if (!chat) return NULL;
    chat->list = am_calloc(MAX_TEMPLATES, sizeof *chat->list);
    chat->tokens = json_object();
    if (chat->list && chat->tokens) return chat;
    am_chat_free(chat);
    return NULL;
}

static am_status add_template(am_chat *chat, am_str name, am_str source, am_error *err) {
    if (chat->n == MAX_TEMPLATES) return am_fail(err, AM_ELIMIT, "more than %d chat templates", MAX_TEMPLATES);
    if (source.n > MAX_TEMPLATE_BYTES) return am_fail(err, AM_ELIMIT, "a chat template of %zu bytes is too long", source.n);
    named *n = &chat->list[chat->n];
    am_status status = am_template_compile(source, &n->t, err);
    if (status) {
        am_error_prefix(err, "chat template '%.*s'", (int)(name.n < 60 ? name.n : 60), name.p);
        return status; /* a caller without err learns it too */
    }
    n->name = am_calloc(name.n + 1, 1);
    chat->n++; /* from here on am_chat_free takes care of t */
    if (!n->name) return no_memory(err);
    memcpy(n->name, name.p, name.n);
    return AM_OK;
}

/* A special token is a string or an object with its text in "content". */
static const json_t *token_text(const json_t *v) {
    const json_t *content = json_object_get(v, "content");
    const json_t *text = content ? content : v;
    return json_is_string(text) ? text : NULL;
}

/* Special tokens of a config: members called *_token; what is there already stays. */
static am_status add_tokens(am_chat *chat, const json_t *config, am_error *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)config, key, value) {
        size_t n = strlen(key);
        const json_t *text = token_text(value);
        if (n < 7 || strcmp(key + n - 6, "_token") != 0 || !text || json_object_get(chat->tokens, key)) continue;
        if (json_object_set(chat->tokens, key, (json_t *)text)) return no_memory(err);
    }
    return AM_OK;
}

static am_str string_of(const json_t *v) { return (am_str){json_string_value(v), json_string_length(v)}; }

/* chat_template of a config: a string, or a list of {name, template}. AM_ENOTFOUND when there is none. */
static am_status config_sources(const json_t *config, am_chat_source_fn *fn, void *arg, am_error *err) {
    const json_t *templates = json_object_get(config, "chat_template");
    if (json_is_string(templates)) return fn(arg, AM_STR("default"), string_of(templates), err);
    if (json_array_size(templates) == 0) return am_fail(err, AM_ENOTFOUND, "there is no chat template");
    size_t i;
    json_t *entry;
    json_array_foreach((json_t *)templates, i, entry) {
        const json_t *name = json_object_get(entry, "name"), *source = json_object_get(entry, "template");
        if (!json_is_string(name) || !json_is_string(source)) return am_fail(err, AM_EFORMAT, "chat_template[%zu] needs a name and a template", i);
        am_status status = fn(arg, string_of(name), string_of(source), err);
        if (status) return status;
    }
    return AM_OK;
}

static am_status take_source(void *arg, am_str name, am_str source, am_error *err) { return add_template(arg, name, source, err); }

/* The end of every load. */
static am_status loaded(am_chat *chat, am_status status, am_chat **out, am_error *err) {
    if (!status && !am_chat_traits_probe(chat, &chat->traits)) status = no_memory(err);
    if (status) {
        am_chat_free(chat);
        return status;
    }
    *out = chat;
    return AM_OK;
}

static am_status not_object(const json_t *config, am_error *err) {
    return json_is_object(config) ? AM_OK : am_fail(err, AM_EFORMAT, "the tokenizer config is not an object");
}

am_status am_chat_load_json(am_str tokenizer_config, am_chat **out, am_error *err) {
    json_t *config;
    *out = NULL;
    am_status status = am_json_parse(tokenizer_config, false, &config, err);
    if (status) return status;
    am_chat *chat = chat_create();
    status = chat ? not_object(config, err) : no_memory(err);
    if (!status) status = add_tokens(chat, config, err);
    if (!status) status = config_sources(config, take_source, chat, err);
    json_decref(config);
    return loaded(chat, status, out, err);
}

am_status am_chat_load_sources(const am_chat_source *list, size_t n, const json_t *tokens, am_chat **out, am_error *err) {
    *out = NULL;
    am_chat *chat = chat_create();
    if (!chat) return no_memory(err);
    am_status status = tokens ? add_tokens(chat, tokens, err) : AM_OK;
    for (size_t i = 0; !status && i < n; i++) status = add_template(chat, list[i].name, list[i].text, err);
    if (!status && n == 0) status = am_fail(err, AM_ENOTFOUND, "there is no chat template");
    return loaded(chat, status, out, err);
}

am_status am_chat_load_source(am_str source, const json_t *tokens, am_chat **out, am_error *err) {
    return am_chat_load_sources(&(am_chat_source){AM_STR("default"), source}, 1, tokens, out, err);
}

const json_t *am_chat_tokens(const am_chat *chat) { return chat->tokens; }

typedef struct folder {
    const char *dir;
    am_chat_source_fn *fn;
    void *arg;
    am_error *err;
} folder;

/* Gives dir/file as a template of that name; AM_ENOTFOUND when there is no such file. */
static am_status give_file(const folder *f, const char *file, am_str name) {
    char path[4096];
    am_buf text;
    am_buf_init(&text, MAX_TEMPLATE_BYTES + 1);
    am_status status = am_fs_join(path, sizeof path, f->dir, file, f->err);
    if (!status) status = am_fs_read_file(path, &text, MAX_TEMPLATE_BYTES, f->err);
    if (!status) status = f->fn(f->arg, name, text.n ? am_buf_str(&text) : AM_STR(""), f->err);
    am_buf_free(&text);
    return status;
}

static am_status give_additional(void *arg, const char *file) {
    size_t n = strlen(file);
    if (n <= 6 || strcmp(file + n - 6, ".jinja") != 0) return AM_OK;
    return give_file(arg, file, (am_str){file, n - 6});
}

static am_status config_of(const char *dir, const char *name, json_t **out, am_error *err) {
    char path[4096];
    *out = NULL;
    am_status status = am_fs_join(path, sizeof path, dir, name, err);
    if (!status) status = am_json_read(path, MAX_CONFIG_BYTES, out, err);
    return status ? status : not_object(*out, err);
}

am_status am_chat_sources_of_dir(const char *dir, am_chat_source_fn *fn, void *arg, am_error *err) {
    static const char *const configs[] = {"tokenizer_config.json", "chat_template.json"};
    char path[4096];
    folder f = {dir, fn, arg, err}, more = {path, fn, arg, err};
    am_status status = give_file(&f, "chat_template.jinja", AM_STR("default"));
    for (size_t i = 0; status == AM_ENOTFOUND && i < sizeof configs / sizeof *configs; i++) {
        json_t *config;
        status = config_of(dir, configs[i], &config, err);
        if (!status) status = config_sources(config, fn, arg, err);
        json_decref(config);
    }
    if (status && status != AM_ENOTFOUND) return status;
    am_status found = status;
    if ((status = am_fs_join(path, sizeof path, dir, "additional_chat_templates", err))) return status;
    status = am_fs_list(path, give_additional, &more, err);
    return status == AM_ENOTFOUND ? found : status;
}

static am_status load_dir(am_chat *chat, const char *dir, am_error *err) {
    static const char *const configs[] = {"tokenizer_config.json", "special_tokens_map.json"};
    am_status status = AM_OK;
    for (int i = 0; i < 2 && !status; i++) {
        json_t *config;
        status = config_of(dir, configs[i], &config, err);
        if (!status) status = add_tokens(chat, config, err);
        if (status == AM_ENOTFOUND) status = AM_OK;
        json_decref(config);
    }
    if (!status) status = am_chat_sources_of_dir(dir, take_source, chat, err);
    return status || chat->n ? status : am_fail(err, AM_ENOTFOUND, "%s has no chat template", dir);
}

am_status am_chat_load_dir(const char *dir, am_chat **out, am_error *err) {
    *out = NULL;
    am_chat *chat = chat_create();
    if (!chat) return no_memory(err);
    am_status status = load_dir(chat, dir, err);
    return loaded(chat, status, out, err);
}

static const am_template *template_named(const am_chat *chat, const char *name) {
    for (size_t i = 0; i < chat->n; i++)
        if (strcmp(chat->list[i].name, name) == 0) return chat->list[i].t;
    return NULL;
}

/* transformers' choice: tool_use when there are tools (and such a template), else default. rag is the same for documents. */
static const am_template *choose(const am_chat *chat, bool has_tools, bool has_documents) {
    const am_template *t = has_tools ? template_named(chat, "tool_use") : NULL;
    if (!t && has_documents) t = template_named(chat, "rag");
    if (!t) t = template_named(chat, "default");
    return t ? t : chat->list[0].t;
}

static bool reserved(const char *key) {
    static const char *const names[] = {"messages", "tools", "documents", "add_generation_prompt", "chat_template"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(key, names[i]) == 0) return true;
    return false;
}

static json_t *or_null(const json_t *v) { return v ? (json_t *)v : json_null(); }

/* The template's variables. Values are shared, not copied. */
static json_t *context_of(const am_chat *chat, const am_chat_request *request, am_status *status, am_error *err) {
    json_t *context = json_object(), *value;
    const char *key;
    bool ok = context && !json_object_set(context, "messages", or_null(request->messages)) &&
              !json_object_set(context, "tools", or_null(request->tools)) &&
              !json_object_set(context, "documents", or_null(request->documents)) &&
              !json_object_set_new(context, "add_generation_prompt", json_boolean(request->add_generation_prompt));
    json_object_foreach((json_t *)request->kwargs, key, value) {
        if (reserved(key)) {
            *status = am_fail(err, AM_EINVAL, "chat_template_kwargs cannot set '%s'", key);
            json_decref(context);
            return NULL;
        }
        if (json_object_get(chat->tokens, key)) {
            *status = am_fail(err, AM_EINVAL, "chat_template_kwargs cannot set the special token '%s'", key);
            json_decref(context);
            return NULL;
        }
        ok = ok && !json_object_set(context, key, value);
    }
    if (ok) return context;
    json_decref(context);
    *status = no_memory(err);
    return NULL;
}

const am_chat_traits *am_chat_traits_of(const am_chat *chat) { return &chat->traits; }

am_status am_chat_render_as_is(const am_chat *chat, const am_chat_request *request, const am_template_limits *limits, am_rendered *out,
                               am_error *err) {
    *out = (am_rendered){0};
    am_status status = AM_OK;
    json_t *context = context_of(chat, request, &status, err);
    if (!context) return status;
    status = am_template_render_own(choose(chat, json_array_size(request->tools) > 0, json_array_size(request->documents) > 0), chat->tokens, context, limits, request->now_s, out, err);
    json_decref(context);
    return status;
}

/* What follows the end of a text that goes on is cut off: found by a word that no prompt holds, as transformers does it. */
static const char end_mark[] = "CONTINUE_FINAL_MESSAGE_TAG ";

static am_status mark_end(json_t *messages, am_error *err) {
    json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    am_str content = am_chat_content(last);
    if (!am_chat_is(last, "assistant") || am_chat_has_calls(last) || content.n == 0)
        return am_fail(err, AM_EINVAL, "a final message goes on only when it is the assistant's, with a text and without tool calls");
    if (json_object_set_new(last, "content", am_chat_joined(content, "", am_str_of(end_mark)))) return no_memory(err);
    return AM_OK;
}

static am_status cut_at_mark(am_rendered *out, am_error *err) {
    size_t n = sizeof end_mark - 2, at = out->text.n; /* the blank at its end may have been trimmed */
    while (at > 0 && (out->text.n - at < n || memcmp(out->text.p + at, end_mark, n) != 0)) at--;
    if (out->text.n < n || memcmp(out->text.p + at, end_mark, n) != 0) {
        am_rendered_free(out);
        return am_fail(err, AM_EINVAL, "the chat template leaves the final message out, so it cannot go on");
    }
    bool trimmed = at + n == out->text.n || out->text.p[at + n] != ' ';
    while (trimmed && at > 0 && memchr(" \t\r\n", out->text.p[at - 1], 4)) at--;
    out->text.n = at;
    out->text.p[at] = 0;
    while (out->n_input && out->input[out->n_input - 1].begin >= at) out->n_input--;
    if (out->n_input && out->input[out->n_input - 1].end > at) out->input[out->n_input - 1].end = at;
    return AM_OK;
}

static am_status render_adapted(const am_chat *chat, const am_chat_traits *traits, const am_chat_request *request, am_rendered *out, am_error *err) {
    am_chat_request adapted = *request;
    json_t *messages;
    *out = (am_rendered){0};
    am_status status = am_chat_adapt(traits, request, &messages, &adapted, err);
    if (status) return status;
    if (request->continue_final) {
        adapted.add_generation_prompt = false;
        status = mark_end(messages, err);
    }
    if (!status) status = am_chat_render_as_is(chat, &adapted, NULL, out, err);
    if (!status && request->continue_final) status = cut_at_mark(out, err);
    json_decref(messages);
    return status;
}

/* What no probe foresaw and the template refuses is tried with less asked of it; the first refusal is what a client reads when nothing helps. */
am_status am_chat_render(const am_chat *chat, const am_chat_request *request, am_rendered *out, am_error *err) {
    am_status status = render_adapted(chat, &chat->traits, request, out, err);
    for (int level = 1; level < AM_CHAT_LEVELS && (status == AM_EINVAL || status == AM_EFORMAT); level++) {
        am_chat_traits traits = am_chat_traits_lowered(&chat->traits, level);
        if (render_adapted(chat, &traits, request, out, NULL) == AM_OK) return AM_OK;
    }
    return status;
}

/* `chat_template` names one of several, as the argument of transformers' apply_chat_template does. */
am_status am_chat_render_context(const am_chat *chat, const json_t *context, int64_t now_s, am_rendered *out, am_error *err) {
    *out = (am_rendered){0};
    const char *name = json_string_value(json_object_get(context, "chat_template"));
    const json_t *tools = json_object_get(context, "tools");
    const am_template *t = name ? template_named(chat, name) : choose(chat, tools && !json_is_null(tools), json_array_size(json_object_get(context, "documents")) > 0);
    if (!t) return am_fail(err, AM_ENOTFOUND, "there is no chat template called '%.100s'", name);
    json_t *all = json_copy(chat->tokens);
    if (!all || json_object_update(all, (json_t *)context)) {
        json_decref(all);
        return no_memory(err);
    }
    am_status status = am_template_render(t, all, NULL, now_s, out, err);
    json_decref(all);
    return status;
}
