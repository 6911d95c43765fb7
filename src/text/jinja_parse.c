/* Owns the parsing of statements and what both halves of the parser share: the stream of tokens, names by number, errors. The
 * result is an immutable tree in the template's arena; parsing fails once, and every rule gives up when it has. */
#include "text/jinja_parse_int.h"

#include "base/hash.h"

#include <stdarg.h>
#include <stdio.h>

enum { MAX_NESTING = 128 }; /* of expressions and blocks in the source; AM_TEMPLATE_LIMITS.max_depth */

void *jp_alloc(jparser *p, size_t n) {
    void *m = am_arena_alloc(p->t->arena, n);
    if (!m && !p->status) p->status = am_fail(p->err, AM_ENOMEM, "no memory to compile the template");
    return m;
}

bool jp_fail(jparser *p, uint32_t line, const char *format, ...) {
    if (p->status) return false;
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    p->status = am_fail(p->err, AM_EFORMAT, "line %u: TemplateSyntaxError: %s", line, text);
    return false;
}

void jp_assert(jparser *p, uint32_t line, const char *format, ...) {
    if (p->assertion[0]) return;
    va_list args;
    va_start(args, format);
    vsnprintf(p->assertion, sizeof p->assertion, format, args);
    va_end(args);
    p->assertion_line = line;
}

void jp_refuse(jparser *p, uint32_t line, const char *what, am_str name, const char *rest) {
    if (p->refused[0]) return;
    snprintf(p->refused, sizeof p->refused, "%s%.*s%s", what, (int)(name.n < 40 ? name.n : 40), name.p, rest);
    p->refused_line = line;
}

const jtoken *jp_current(jparser *p) { return &p->tokens.v[p->at]; }

const jtoken *jp_look(jparser *p) {
    const jtoken *t = &p->tokens.v[p->at + 1 < p->tokens.n ? p->at + 1 : p->at];
    if (t->type == JT_ERROR) jp_fail(p, t->line, "%.*s", (int)t->text.n, t->text.p);
    return t;
}

const jtoken *jp_next(jparser *p) {
    const jtoken *t = jp_current(p);
    if (p->at + 1 >= p->tokens.n) return t;
    p->at++;
    if (jp_is(p, JT_ERROR)) jp_fail(p, jp_current(p)->line, "%.*s", (int)jp_current(p)->text.n, jp_current(p)->text.p);
    if (jp_is(p, JT_STRING)) jx_check_escapes(p);
    return t;
}

bool jp_is(jparser *p, jtok type) { return jp_current(p)->type == type; }
bool jp_is_name(jparser *p, const char *name) { return jp_is(p, JT_NAME) && am_str_eq(jp_current(p)->text, am_str_of(name)); }

bool jp_skip_if(jparser *p, jtok type) {
    if (!jp_is(p, type)) return false;
    jp_next(p);
    return true;
}

bool jp_skip_name(jparser *p, const char *name) {
    if (!jp_is_name(p, name)) return false;
    jp_next(p);
    return true;
}

static bool unexpected(jparser *p, const char *wanted) {
    const jtoken *t = jp_current(p);
    if (t->type == JT_ERROR) return jp_fail(p, t->line, "%.*s", (int)t->text.n, t->text.p);
    if (t->type == JT_EOF) return jp_fail(p, t->line, "unexpected end of template, expected '%s'.", wanted);
    if (t->type == JT_NAME)
        return jp_fail(p, t->line, "expected token '%s', got '%.*s'", wanted, (int)(t->text.n < 80 ? t->text.n : 80), t->text.p);
    return jp_fail(p, t->line, "expected token '%s', got '%s'", wanted, j_token_name((jtok)t->type));
}

bool jp_expect(jparser *p, jtok type) { return jp_skip_if(p, type) || unexpected(p, j_token_name(type)); }
bool jp_expect_name(jparser *p, const char *name) { return jp_skip_name(p, name) || unexpected(p, name); }

bool jp_identifier(jparser *p, am_str *out) {
    if (!jp_is(p, JT_NAME)) return unexpected(p, "name");
    *out = jp_next(p)->text;
    return true;
}

bool jp_enter(jparser *p) {
    if (p->status) return false;
    if (p->depth < MAX_NESTING) {
        p->depth++;
        return true;
    }
    p->status = am_fail(p->err, AM_ELIMIT, "line %u: the template nests more than %d levels deep", jp_current(p)->line, MAX_NESTING);
    return false;
}

jnode *jp_node(jparser *p, jkind kind, uint32_t line) {
    jnode *n = jp_alloc(p, sizeof *n);
    if (!n) return NULL;
    n->kind = (uint8_t)kind;
    n->line = line;
    n->escape = p->escape;
    return n;
}

bool jp_add(jparser *p, jnodes *list, jnode *n) {
    if (!n) return false;
    if (list->n == list->cap) {
        uint32_t cap = list->cap ? list->cap * 2 : 4;
        jnode **v = jp_alloc(p, cap * sizeof *v);
        if (!v) return false;
        if (list->n) memcpy(v, list->v, list->n * sizeof *v);
        list->v = v;
        list->cap = cap;
    }
    list->v[list->n++] = n;
    return true;
}

/* Copies: the tokens' text goes away after compile. Counted now, so that rendering never writes to it. */
const jstr *jp_string(jparser *p, am_str s) {
    char *text = jp_alloc(p, s.n + 1);
    jstr *str = text ? jp_alloc(p, sizeof *str) : NULL;
    if (!str) return NULL;
    if (s.n) memcpy(text, s.p, s.n);
    *str = (jstr){.p = text, .n = s.n, .n_chars = SIZE_MAX};
    j_str_chars(str);
    return str;
}

static bool atoms_grow(jparser *p, am_template *t) {
    uint32_t cap = t->cap_atom ? t->cap_atom * 2 : 32;
    const jstr **atom = jp_alloc(p, cap * sizeof *atom);
    uint32_t *index = atom ? jp_alloc(p, cap * 2 * sizeof *index) : NULL;
    if (!index) return false;
    if (t->n_atom) memcpy(atom, t->atom, t->n_atom * sizeof *atom);
    for (uint32_t i = 0; i < t->n_atom; i++) {
        size_t at = j_hash_str(atom[i]) & (cap * 2 - 1);
        while (index[at]) at = (at + 1) & (cap * 2 - 1);
        index[at] = i + 1;
    }
    t->atom = atom;
    t->cap_atom = cap;
    t->atom_index = index;
    t->n_atom_index = cap * 2;
    return true;
}

uint32_t jp_atom(jparser *p, am_str name) {
    am_template *t = p->t;
    if (t->n_atom == t->cap_atom && !atoms_grow(p, t)) return UINT32_MAX;
    size_t at = am_hash64(name.p, name.n) & (t->n_atom_index - 1);
    for (; t->atom_index[at]; at = (at + 1) & (t->n_atom_index - 1))
        if (j_str_eq(t->atom[t->atom_index[at] - 1], name)) return t->atom_index[at] - 1;
    const jstr *s = jp_string(p, name);
    if (!s) return UINT32_MAX;
    t->atom[t->n_atom] = s;
    t->atom_index[at] = ++t->n_atom;
    return t->n_atom - 1;
}

static bool body_until(jparser *p, const char *const *ends, jbody *out);

static bool is_end(jparser *p, const char *const *ends) {
    for (; ends && *ends; ends++)
        if (jp_is_name(p, *ends)) return true;
    return false;
}

/* "'endfor' or 'else'" of the body being read. */
static void looking_for(const jparser *p, char text[200]) {
    size_t n = 0;
    text[0] = 0;
    for (const char *const *e = p->ends ? p->ends->names : NULL; e && *e && n < 150; e++)
        n += (size_t)snprintf(text + n, 200 - n, "%s'%s'", n ? " or " : "", *e);
}

static bool fail_at_end(jparser *p, const jtoken *tag) {
    char looking[200], text[380];
    looking_for(p, looking);
    size_t n = 0;
    bool known = false;
    for (const jends *e = p->ends; e && tag; e = e->up) known |= is_end(p, e->names);
    if (tag)
        n = (size_t)snprintf(text, sizeof text, "Encountered unknown tag '%.*s'.", (int)(tag->text.n < 60 ? tag->text.n : 60), tag->text.p);
    else
        n = (size_t)snprintf(text, sizeof text, "Unexpected end of template.");
    if (looking[0] && known)
        n += (size_t)snprintf(text + n, sizeof text - n,
                              " You probably made a nesting mistake. Jinja is expecting this tag, but currently looking for %s.", looking);
    else if (looking[0])
        n += (size_t)snprintf(text + n, sizeof text - n, " Jinja was looking for the following tags: %s.", looking);
    if (p->tag && n < sizeof text)
        snprintf(text + n, sizeof text - n, " The innermost block that needs to be closed is '%.*s'.",
                 (int)(p->tag->n < 40 ? p->tag->n : 40), p->tag->p);
    return jp_fail(p, jp_current(p)->line, "%s", text);
}

/* After a tag's head: its end mark, then statements until one of `ends` (left as the current token unless `drop`). */
static bool statements(jparser *p, const char *const *ends, bool drop, jbody *out) {
    jends frame = {ends, p->ends};
    jp_skip_if(p, JT_COLON);
    if (!jp_expect(p, JT_BLOCK_END)) return false;
    p->ends = &frame;
    bool ok = body_until(p, ends, out);
    if (ok && jp_is(p, JT_EOF)) ok = fail_at_end(p, NULL);
    p->ends = frame.up;
    if (ok && drop) jp_next(p);
    return ok;
}

/* A body in a scope of its own, where unknown filters are errors at once again. */
static bool hard_statements(jparser *p, const char *const *ends, bool drop, jbody *out) {
    bool soft = p->soft;
    p->soft = false;
    bool ok = statements(p, ends, drop, out);
    p->soft = soft;
    return ok;
}

static jnode *parse_set(jparser *p) {
    static const char *const ends[] = {"endset", NULL};
    uint32_t line = jp_next(p)->line;
    jnode *target = jx_target(p, true);
    if (!target) return NULL;
    bool plain = jp_skip_if(p, JT_ASSIGN);
    jnode *n = jp_node(p, plain ? JN_SET : JN_SETBLOCK, line);
    if (!n) return NULL;
    n->a = target;
    if (plain) p->code_line = line;
    if (plain) return (n->b = jx_tuple(p, 0)) ? n : NULL;
    if (jp_is(p, JT_PIPE) && !(n->b = jx_filters(p, NULL, false))) return NULL;
    return hard_statements(p, ends, true, &n->body) ? n : NULL;
}

static jnode *parse_for(jparser *p) {
    static const char *const ends[] = {"endfor", "else", NULL}, *const only_endfor[] = {"endfor", NULL};
    jnode *n = jp_node(p, JN_FOR, jp_next(p)->line);
    p->n_for++;
    if (!n || !(n->a = jx_target(p, false)) || !jp_expect_name(p, "in")) return NULL;
    if (!(n->b = jx_tuple(p, JX_NO_COND))) return NULL;
    if (jp_skip_name(p, "if") && !(n->c = jx_expression(p))) return NULL;
    n->flag = jp_skip_name(p, "recursive");
    p->n_loop++;
    bool ok = hard_statements(p, ends, false, &n->body);
    p->n_loop--;
    if (ok && !am_str_eq(jp_next(p)->text, AM_STR("endfor"))) ok = hard_statements(p, only_endfor, true, &n->other);
    p->n_for--;
    return ok ? n : NULL;
}

static jnode *parse_if(jparser *p) {
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const only_endif[] = {"endif", NULL};
    jnode *n = jp_node(p, JN_IF, jp_next(p)->line);
    bool soft = p->soft;
    p->soft = true;
    uint32_t cap = 0;
    for (bool last = false; n && !last;) {
        if (n->n == cap) {
            cap = cap ? cap * 2 : 2;
            jbody *arms = jp_alloc(p, cap * sizeof *arms);
            jnode **tests = arms ? jp_alloc(p, cap * sizeof *tests) : NULL;
            if (!tests) return NULL;
            if (n->n) {
                memcpy(arms, n->arms, n->n * sizeof *arms);
                memcpy(tests, n->list, n->n * sizeof *tests);
            }
            n->arms = arms;
            n->list = tests;
        }
        p->code_line = jp_current(p)->line;
        if (!(n->list[n->n] = jx_tuple(p, JX_NO_COND)) || !statements(p, ends, false, &n->arms[n->n])) return NULL;
        n->n++;
        am_str end = jp_next(p)->text;
        last = !am_str_eq(end, AM_STR("elif"));
        if (am_str_eq(end, AM_STR("else"))) {
            n->flag = true;
            if (!statements(p, only_endif, true, &n->other)) return NULL;
        }
    }
    p->soft = soft;
    return n;
}

static jnode *parse_with(jparser *p) {
    static const char *const ends[] = {"endwith", NULL};
    jp_next(p);
    jnode *n = jp_node(p, JN_WITH, p->code_line ? p->code_line : 1);
    jnodes targets = {0}, values = {0};
    uint32_t n_for = p->n_for;
    while (n && !jp_is(p, JT_BLOCK_END)) {
        if (targets.n && !jp_expect(p, JT_COMMA)) return NULL;
        p->n_for = 0; /* it may name one `loop`, as a macro may a parameter */
        bool ok = jp_add(p, &targets, jx_target(p, false));
        p->n_for = n_for;
        if (!ok || !jp_expect(p, JT_ASSIGN) || !jp_add(p, &values, jx_expression(p)))
            return NULL;
    }
    if (!n) return NULL;
    n->list = targets.v;
    n->list2 = values.v;
    n->n = targets.n;
    return hard_statements(p, ends, true, &n->body) ? n : NULL;
}

static bool signature(jparser *p, jsig *sig) {
    uint32_t cap = 0;
    jnodes dflt = {0};
    if (!jp_expect(p, JT_LPAREN)) return false;
    while (!jp_is(p, JT_RPAREN)) {
        am_str name;
        if (sig->n && !jp_expect(p, JT_COMMA)) return false;
        if (!jp_identifier(p, &name)) return false;
        if (sig->n == cap) {
            cap = cap ? cap * 2 : 4;
            uint32_t *param = jp_alloc(p, cap * sizeof *param);
            if (!param) return false;
            if (sig->n) memcpy(param, sig->param, sig->n * sizeof *param);
            sig->param = param;
        }
        if ((sig->param[sig->n] = jp_atom(p, name)) == UINT32_MAX) return false;
        for (uint32_t i = 0; i < sig->n; i++)
            if (sig->param[i] == sig->param[sig->n]) jp_refuse(p, jp_current(p)->line, "duplicate argument '", name, "' in function definition");
        if (sig->param[sig->n++] == JA_CALLER) sig->explicit_caller = true;
        if (jp_skip_if(p, JT_ASSIGN)) {
            if (!jp_add(p, &dflt, jx_expression(p))) return false;
        } else if (dflt.n) {
            return jp_fail(p, jp_current(p)->line, "non-default argument follows default argument");
        }
    }
    jp_next(p);
    sig->dflt = dflt.v;
    sig->n_dflt = dflt.n;
    return true;
}

/* The body of a macro or call block: a function of its own, so no loop is around it; notes which special names it uses. */
static bool macro_body(jparser *p, jnode *n, const char *const *ends) {
    bool outer[JA_N_FIXED];
    uint32_t n_loop = p->n_loop;
    memcpy(outer, p->uses, sizeof outer);
    memset(p->uses, 0, sizeof p->uses);
    p->n_loop = 0;
    bool ok = hard_statements(p, ends, true, &n->body);
    p->n_loop = n_loop;
    n->sig->uses_caller = p->uses[JA_CALLER] && !n->sig->explicit_caller;
    for (uint32_t i = 0; p->uses[JA_CALLER] && i + n->sig->n_dflt < n->sig->n; i++)
        if (n->sig->param[i] == JA_CALLER)
            jp_assert(p, n->line, "When defining macros or call blocks the special \"caller\" argument must be omitted or be given a default.");
    n->sig->uses_varargs = p->uses[JA_VARARGS];
    n->sig->uses_kwargs = p->uses[JA_KWARGS];
    for (int i = 0; i < JA_N_FIXED; i++) p->uses[i] |= outer[i];
    return ok;
}

static jnode *parse_macro(jparser *p) {
    static const char *const ends[] = {"endmacro", NULL};
    jnode *n = jp_node(p, JN_MACRO, jp_next(p)->line);
    am_str name;
    if (!n || !jp_identifier(p, &name) || (n->atom = jp_atom(p, name)) == UINT32_MAX) return NULL;
    if (!(n->sig = jp_alloc(p, sizeof *n->sig)) || !signature(p, n->sig)) return NULL;
    return macro_body(p, n, ends) ? n : NULL;
}

static jnode *parse_call(jparser *p) {
    static const char *const ends[] = {"endcall", NULL};
    jnode *n = jp_node(p, JN_CALLBLOCK, jp_next(p)->line);
    if (!n || !(n->sig = jp_alloc(p, sizeof *n->sig))) return NULL;
    if (jp_is(p, JT_LPAREN) && !signature(p, n->sig)) return NULL;
    if (!(n->a = jx_expression(p))) return NULL;
    if (n->a->kind != JN_CALL) {
        jp_fail(p, n->line, "expected call");
        return NULL;
    }
    return macro_body(p, n, ends) ? n : NULL;
}

static jnode *parse_filter(jparser *p) {
    static const char *const ends[] = {"endfilter", NULL};
    jnode *n = jp_node(p, JN_FILTERBLOCK, jp_next(p)->line);
    if (!n || !(n->b = jx_filters(p, NULL, true))) return NULL;
    return hard_statements(p, ends, true, &n->body) ? n : NULL;
}

/* {% generation %} (transformers' mark of what an assistant says), as a call block there: a scope without loops around. */
static jnode *parse_generation(jparser *p) {
    static const char *const ends[] = {"endgeneration", NULL};
    jnode *n = jp_node(p, JN_SCOPE, jp_next(p)->line);
    uint32_t n_loop = p->n_loop;
    p->n_loop = 0;
    bool ok = n && hard_statements(p, ends, true, &n->body);
    p->n_loop = n_loop;
    return ok ? n : NULL;
}

static jnode *parse_autoescape(jparser *p) {
    static const char *const ends[] = {"endautoescape", NULL};
    jnode *n = jp_node(p, JN_SCOPE, jp_next(p)->line);
    if (!n || !(n->a = jx_expression(p))) return NULL;
    uint8_t outer = p->escape;
    p->escape = n->a->kind != JN_CONST ? JE_ASK : jv_truth(n->a->value) ? JE_ON : JE_OFF;
    bool ok = hard_statements(p, ends, true, &n->body);
    p->escape = outer;
    return ok ? n : NULL;
}

static bool only_blanks(const jbody *body) {
    for (uint32_t i = 0; i < body->n; i++) {
        if (body->node[i]->kind != JN_DATA) return false;
        const jstr *s = body->node[i]->value.s;
        for (size_t at = 0, used; at < s->n; at += used)
            if (!j_is_space(j_decode(s->p + at, s->n - at, &used))) return false;
    }
    return true;
}

static bool add_block(jparser *p, jnode *n, am_str name) {
    if ((n->atom = jp_atom(p, name)) == UINT32_MAX) return false;
    for (uint32_t i = 0; i < p->blocks.n && !p->twice[0]; i++) {
        if (p->blocks.v[i]->atom != n->atom) continue;
        snprintf(p->twice, sizeof p->twice, "block '%.*s' defined twice", (int)(name.n < 80 ? name.n : 80), name.p);
        p->twice_line = n->line;
    }
    return jp_add(p, &p->blocks, n);
}

static jnode *parse_block(jparser *p) {
    static const char *const ends[] = {"endblock", NULL};
    jnode *n = jp_node(p, JN_BLOCK, jp_next(p)->line);
    am_str name;
    if (!n || !jp_identifier(p, &name) || !add_block(p, n, name)) return NULL;
    n->flag = jp_skip_name(p, "scoped");
    n->n = jp_skip_name(p, "required");
    if (jp_is(p, JT_SUB)) {
        jp_fail(p, n->line, "Block names in Jinja have to be valid Python identifiers and may not contain hyphens, use an "
                            "underscore instead.");
        return NULL;
    }
    uint32_t n_loop = p->n_loop;
    uint8_t escape = p->escape;
    bool uses[JA_N_FIXED]; /* jinja2 compiles blocks apart from what is around them */
    memcpy(uses, p->uses, sizeof uses);
    p->n_loop = 0;
    p->escape = JE_OFF;
    bool ok = hard_statements(p, ends, true, &n->body);
    memcpy(p->uses, uses, sizeof uses);
    p->n_loop = n_loop;
    p->escape = escape;
    if (ok && n->n && !only_blanks(&n->body)) ok = jp_fail(p, jp_current(p)->line, "Required blocks can only contain comments or whitespace");
    if (ok && jp_is(p, JT_NAME) && am_str_eq(jp_current(p)->text, name)) jp_next(p);
    return ok ? n : NULL;
}

static jnode *parse_print(jparser *p) {
    jnode *n = jp_node(p, JN_PRINT, jp_next(p)->line);
    jnodes items = {0};
    while (n && !jp_is(p, JT_BLOCK_END)) {
        if (items.n && !jp_expect(p, JT_COMMA)) return NULL;
        if (!jp_add(p, &items, jx_expression(p))) return NULL;
    }
    if (!n) return NULL;
    n->list = items.v;
    n->n = items.n;
    return n;
}

static jnode *parse_jump(jparser *p) {
    const jtoken *t = jp_next(p);
    bool is_break = am_str_eq(t->text, AM_STR("break"));
    if (p->n_loop == 0) jp_refuse(p, t->line, is_break ? "'break' outside loop" : "'continue' not properly in loop", AM_STR(""), "");
    return jp_node(p, is_break ? JN_BREAK : JN_CONTINUE, t->line);
}

/* include, import, from, extends: parsed loosely to the tag's end; running one is an error, since there is no loader. */
static jnode *parse_loader(jparser *p) {
    jnode *n = jp_node(p, JN_LOADER, jp_next(p)->line);
    if (!n || !jx_expression(p)) return NULL;
    while (!jp_is(p, JT_BLOCK_END) && !jp_is(p, JT_EOF) && !jp_is(p, JT_ERROR)) jp_next(p);
    return n;
}

static jnode *statement(jparser *p) {
    static const struct {
        const char *tag;
        jnode *(*parse)(jparser *);
    } tags[] = {{"set", parse_set},         {"for", parse_for},     {"if", parse_if},         {"macro", parse_macro},
                {"call", parse_call},       {"filter", parse_filter}, {"with", parse_with},   {"generation", parse_generation},
                {"break", parse_jump},      {"continue", parse_jump}, {"print", parse_print}, {"block", parse_block},
                {"autoescape", parse_autoescape}, {"include", parse_loader}, {"import", parse_loader},
                {"from", parse_loader},     {"extends", parse_loader}};
    const jtoken *t = jp_current(p);
    if (t->type != JT_NAME) {
        if (t->type == JT_ERROR)
            unexpected(p, "name");
        else
            jp_fail(p, t->line, "tag name expected");
        return NULL;
    }
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        if (!am_str_eq(t->text, am_str_of(tags[i].tag))) continue;
        const am_str *outer = p->tag;
        p->tag = &t->text;
        bool notes = tags[i].parse != parse_with && tags[i].parse != parse_generation && tags[i].parse != parse_block && tags[i].parse != parse_autoescape;
        uint32_t line = t->line;
        if (notes && tags[i].parse != parse_filter && tags[i].parse != parse_call && tags[i].parse != parse_set) p->code_line = line;
        jnode *n = jp_enter(p) ? tags[i].parse(p) : NULL;
        if (n && (n->kind == JN_FILTERBLOCK || n->kind == JN_CALLBLOCK || n->kind == JN_SETBLOCK || (n->kind == JN_FOR && n->flag))) p->code_line = line; /* used behind their bodies */
        p->depth--;
        p->tag = outer;
        return n;
    }
    fail_at_end(p, t);
    return NULL;
}

static bool print_tag(jparser *p, jnodes *list) {
    jnode *n = jp_node(p, JN_PRINT, jp_next(p)->line);
    jnodes items = {0};
    if (!n || !jp_add(p, &items, jx_tuple(p, 0)) || !jp_expect(p, JT_VAR_END)) return false;
    if (p->slices && jx_is_constant(items.v[0], 0)) jx_mark_constant(items.v[0]);
    n->list = items.v;
    n->n = 1;
    if (n->escape == JE_ASK && jx_is_constant(items.v[0], 0)) n->escape = JE_OFF; /* folded when nobody knows yet */
    if (!jx_is_constant(items.v[0], 0)) p->code_line = items.v[0]->line;
    return jp_add(p, list, n);
}

static bool data(jparser *p, jnodes *list) {
    const jtoken *t = jp_next(p);
    jnode *n = jp_node(p, JN_DATA, t->line);
    const jstr *s = n ? jp_string(p, t->text) : NULL;
    if (!s) return false;
    n->value = jv_str(s);
    return jp_add(p, list, n);
}

static bool body_until(jparser *p, const char *const *ends, jbody *out) {
    jnodes list = {0};
    bool ok = true;
    while (ok && !jp_is(p, JT_EOF)) {
        switch (jp_current(p)->type) {
        case JT_DATA: ok = data(p, &list); break;
        case JT_VAR_BEGIN: ok = print_tag(p, &list); break;
        case JT_BLOCK_BEGIN:
            jp_next(p);
            if (ends && is_end(p, ends)) {
                *out = (jbody){list.v, list.n};
                return true;
            }
            ok = jp_add(p, &list, statement(p)) && jp_expect(p, JT_BLOCK_END);
            break;
        default: ok = unexpected(p, "begin of statement block"); break;
        }
    }
    *out = (jbody){list.v, list.n};
    return ok;
}

am_status j_parse(am_template *t, am_str source, am_error *err) {
    static const char *const fixed[] = {[JA_LOOP] = "loop", [JA_CALLER] = "caller", [JA_VARARGS] = "varargs", [JA_KWARGS] = "kwargs", [JA_SELF] = "self", [JA_SUPER] = "super"};
    jparser p = {.t = t, .err = err};
    p.status = j_lex(source, &p.tokens, err);
    for (int i = 0; !p.status && i < JA_N_FIXED; i++) jp_atom(&p, am_str_of(fixed[i]));
    if (!p.status) body_until(&p, NULL, &t->body);
    t->block = p.blocks.v;
    t->n_block = p.blocks.n;
    if (!p.status && p.twice[0]) p.status = am_fail(err, AM_EFORMAT, "line %u: TemplateAssertionError: %s", p.twice_line, p.twice);
    if (!p.status && p.assertion[0])
        p.status = am_fail(err, AM_EFORMAT, "line %u: TemplateAssertionError: %s", p.assertion_line, p.assertion);
    if (!p.status && p.slices) jx_mark_folded(&t->body);
    const char *type = !p.status && p.bad_keys ? jx_bad_key(&t->body) : NULL;
    if (type) p.status = am_fail(err, AM_EFORMAT, "TypeError: unhashable type: '%s'", type);
    if (!p.status && p.refused[0]) p.status = am_fail(err, AM_EFORMAT, "line %u: SyntaxError: %s", p.refused_line, p.refused);
    free(p.tokens.v);
    return p.status;
}
