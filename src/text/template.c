/* Owns the template as the outside sees it: compile once, render many times, with the marks of what came from the context.
 *
 * Whose text is whose: everything in the context is input, but for two things that are the model's or the server's own. The
 * special tokens (top-level strings called *_token, unless the caller hands the model's own variables over apart), and a
 * message's role when it is one of the known ones: templates make control tokens of it ('<|' + role + '|>'). */
#include "text/template.h"

#include "text/jinja_int.h"

enum { MAX_TEMPLATE_MEMORY = 256 << 20 };

void am_rendered_free(am_rendered *rendered) {
    if (!rendered) return;
    am_buf_free(&rendered->text);
    free(rendered->input);
    rendered->input = NULL;
    rendered->n_input = 0;
}

/* The source as jinja2's lexer sees it: every newline a \n, one at the very end dropped. */
static am_str normalise(am_arena *arena, am_str source) {
    char *p = am_arena_alloc(arena, source.n + 1);
    size_t n = 0;
    for (size_t i = 0; p && i < source.n; i++) {
        if (source.p[i] == '\r' && i + 1 < source.n && source.p[i + 1] == '\n') continue;
        p[n++] = source.p[i] == '\r' ? '\n' : source.p[i];
    }
    if (n && p[n - 1] == '\n') n--;
    return (am_str){p, n};
}

am_status am_template_compile(am_str source, am_template **out, am_error *err) {
    size_t bad;
    *out = NULL;
    if (!j_utf8_valid(source, &bad)) return am_fail(err, AM_EFORMAT, "the template is not UTF-8 at byte %zu", bad);
    am_arena *arena = am_arena_create(MAX_TEMPLATE_MEMORY);
    am_template *t = arena ? am_arena_alloc(arena, sizeof *t) : NULL;
    am_str text = t ? normalise(arena, source) : (am_str){0};
    if (!text.p) {
        am_arena_free(arena);
        return am_fail(err, AM_ENOMEM, "no memory to compile the template");
    }
    t->arena = arena;
    am_status status = j_parse(t, text, err);
    if (status)
        am_template_free(t);
    else
        *out = t;
    return status;
}

void am_template_free(am_template *t) {
    if (t) am_arena_free(t->arena);
}

static bool is_token_name(am_str name) { return name.n > 6 && memcmp(name.p + name.n - 6, "_token", 6) == 0; }

/* Roles of known names are the server's words, not the user's. */
static bool own_roles(jrender *r, jv messages) {
    static const char *const known[] = {"system", "user", "assistant", "tool", "developer", "function", "ipython", "model", "environment"};
    for (size_t i = 0; messages.t == J_LIST && i < messages.l->n; i++) {
        jv m = messages.l->v[i];
        for (size_t k = 0; m.t == J_DICT && k < m.d->n; k++) {
            jentry *e = &m.d->e[k];
            if (e->value.t != J_STR || !j_str_eq(e->key.s, AM_STR("role"))) continue;
            for (size_t n = 0; n < sizeof known / sizeof *known; n++) {
                if (!j_str_eq(e->value.s, am_str_of(known[n]))) continue;
                const jstr *s = j_str_c(r, known[n]);
                if (!s) return false;
                e->value = jv_str(s);
                break;
            }
        }
    }
    return true;
}

/* Puts an object's members into the variables the template uses. What it does not use is not even looked at. */
static bool set_context(jrender *r, const json_t *context, bool own, bool tokens_by_name) {
    for (uint32_t i = 0; context && i < r->t->n_atom; i++) {
        am_str name = {r->t->atom[i]->p, r->t->atom[i]->n};
        const json_t *value = json_object_getn(context, name.p, name.n);
        if (!value || (r->global[i].t != J_MISSING && !own)) continue;
        bool input = !own && !(tokens_by_name && json_is_string(value) && is_token_name(name));
        if (!jv_from_json(r, value, input, &r->global[i])) return false;
        if (am_str_eq(name, AM_STR("messages")) && !own_roles(r, r->global[i])) return false;
    }
    return true;
}

static am_status give(jout *out, am_rendered *rendered, am_error *err) {
    size_t n = out->marks.n / sizeof(am_span);
    am_span *input = am_calloc(n, sizeof *input);
    if (!input) return am_fail(err, AM_ENOMEM, "no memory for the rendered text");
    if (n) memcpy(input, out->marks.p, n * sizeof *input);
    if (!out->text.p && am_buf_reserve(&out->text, 0)) {
        free(input);
        return am_fail(err, AM_ENOMEM, "no memory for the rendered text");
    }
    out->text.p[out->text.n] = 0;
    rendered->text = out->text;
    rendered->input = input;
    rendered->n_input = n;
    out->text = (am_buf){0};
    return AM_OK;
}

am_status am_template_render_own(const am_template *t, const json_t *own, const json_t *context, const am_template_limits *limits,
                                 int64_t now_s, am_rendered *rendered, am_error *err) {
    *rendered = (am_rendered){0};
    jrender r = {.t = t, .err = err, .limits = limits ? *limits : AM_TEMPLATE_LIMITS, .now_s = now_s};
    jout out;
    j_out_init(&r, &out);
    r.out = &out;
    r.arena = am_arena_create(r.limits.max_memory_bytes);
    if (!r.arena) return am_fail(err, AM_ENOMEM, "no memory to render the template");
    r.top = j_alloc(&r, t->n_atom * sizeof *r.top);
    r.global = r.top ? j_alloc(&r, t->n_atom * sizeof *r.global) : NULL;
    bool ok = r.global && set_context(&r, own, true, false) && set_context(&r, context, false, !own) && j_set_globals(&r) &&
              j_run(&r, &t->body);
    am_status status = ok ? give(&out, rendered, err) : r.status;
    j_out_free(&out);
    am_arena_free(r.arena);
    return status;
}

am_status am_template_render(const am_template *t, const json_t *context, const am_template_limits *limits, int64_t now_s,
                             am_rendered *out, am_error *err) {
    return am_template_render_own(t, NULL, context, limits, now_s, out, err);
}
