/* Owns the parsing of expressions, rule by rule as jinja2's parser has them (parse_condexpr down to parse_primary). Chains of
 * one precedence ("a + b - c", "x and y and z") become one node with a list, so that a long chain costs no depth. */
#include "text/jinja_parse_int.h"
#include "text/utf8.h"

#include <errno.h>
#include <stdio.h>

static jnode *unary(jparser *p, bool with_filter);

/* The operators of a chain, collected while parsing. */
typedef struct chain {
    jnodes nodes;
    uint8_t *ops;
    uint32_t n_ops, cap;
} chain;

static bool chain_op(jparser *p, chain *c, jop op) {
    if (c->n_ops == c->cap) {
        uint32_t cap = c->cap ? c->cap * 2 : 4;
        uint8_t *ops = jp_alloc(p, cap);
        if (!ops) return false;
        if (c->n_ops) memcpy(ops, c->ops, c->n_ops);
        c->ops = ops;
        c->cap = cap;
    }
    c->ops[c->n_ops++] = (uint8_t)op;
    return true;
}

/* The chain as one node; the only operand itself when there was no operator. */
static jnode *chain_node(jparser *p, chain *c, jkind kind, uint32_t line) {
    if (c->nodes.n == 1) return c->nodes.v[0];
    jnode *n = jp_node(p, kind, line);
    if (!n) return NULL;
    n->list = c->nodes.v;
    n->n = c->nodes.n;
    n->ops = c->ops;
    if (kind == JN_CONCAT && p->escape && jx_is_constant(n, 0)) n->escape = JE_OFF; /* folded as plain text */
    return n;
}

static jnode *pow_(jparser *p) {
    uint32_t line = jp_current(p)->line;
    chain c = {0};
    if (!jp_add(p, &c.nodes, unary(p, true))) return NULL;
    while (jp_skip_if(p, JT_POW))
        if (!chain_op(p, &c, JO_POW) || !jp_add(p, &c.nodes, unary(p, true))) return NULL;
    jnode *n = chain_node(p, &c, JN_ARITH, line);
    if (n && c.nodes.n > 1) n->flag = jx_is_constant(n->list[0], 0) && !jx_is_constant(n->list[1], 0);
    return n;
}

static jnode *math2(jparser *p) {
    uint32_t line = jp_current(p)->line;
    chain c = {0};
    if (!jp_add(p, &c.nodes, pow_(p))) return NULL;
    for (;;) {
        jop op;
        switch (jp_current(p)->type) {
        case JT_MUL: op = JO_MUL; break;
        case JT_DIV: op = JO_DIV; break;
        case JT_FLOORDIV: op = JO_FLOORDIV; break;
        case JT_MOD: op = JO_MOD; break;
        default: return chain_node(p, &c, JN_ARITH, line);
        }
        jp_next(p);
        if (!chain_op(p, &c, op) || !jp_add(p, &c.nodes, pow_(p))) return NULL;
    }
}

static jnode *concat(jparser *p) {
    uint32_t line = jp_current(p)->line;
    chain c = {0};
    do {
        if (!jp_add(p, &c.nodes, math2(p))) return NULL;
    } while (jp_skip_if(p, JT_TILDE));
    return chain_node(p, &c, JN_CONCAT, line);
}

static jnode *math1(jparser *p) {
    uint32_t line = jp_current(p)->line;
    chain c = {0};
    if (!jp_add(p, &c.nodes, concat(p))) return NULL;
    while (jp_is(p, JT_ADD) || jp_is(p, JT_SUB)) {
        jop op = jp_next(p)->type == JT_ADD ? JO_ADD : JO_SUB;
        if (!chain_op(p, &c, op) || !jp_add(p, &c.nodes, concat(p))) return NULL;
    }
    return chain_node(p, &c, JN_ARITH, line);
}

static bool compare_op(jparser *p, jop *op) {
    switch (jp_current(p)->type) {
    case JT_EQ: *op = JO_EQ; break;
    case JT_NE: *op = JO_NE; break;
    case JT_LT: *op = JO_LT; break;
    case JT_LE: *op = JO_LE; break;
    case JT_GT: *op = JO_GT; break;
    case JT_GE: *op = JO_GE; break;
    default:
        if (jp_is_name(p, "in")) {
            *op = JO_IN;
        } else if (jp_is_name(p, "not") && jp_look(p)->type == JT_NAME && am_str_eq(jp_look(p)->text, AM_STR("in"))) {
            jp_next(p);
            *op = JO_NOTIN;
        } else {
            return false;
        }
    }
    jp_next(p);
    return true;
}

static jnode *compare(jparser *p) {
    uint32_t line = jp_current(p)->line;
    chain c = {0};
    if (!jp_add(p, &c.nodes, math1(p))) return NULL;
    jop op;
    while (compare_op(p, &op))
        if (!chain_op(p, &c, op) || !jp_add(p, &c.nodes, math1(p))) return NULL;
    return chain_node(p, &c, JN_COMPARE, line);
}

static jnode *not_(jparser *p) {
    if (!jp_is_name(p, "not")) return compare(p);
    uint32_t line = jp_next(p)->line;
    if (!jp_enter(p)) return NULL;
    jnode *a = not_(p), *n = a ? jp_node(p, JN_NOT, line) : NULL;
    if (n) n->a = a;
    p->depth--;
    return n;
}

static jnode *and_(jparser *p) {
    uint32_t line = jp_current(p)->line;
    chain c = {0};
    do {
        if (!jp_add(p, &c.nodes, not_(p))) return NULL;
    } while (jp_skip_name(p, "and"));
    return chain_node(p, &c, JN_AND, line);
}

jnode *jx_or(jparser *p) {
    uint32_t line = jp_current(p)->line;
    chain c = {0};
    do {
        if (!jp_add(p, &c.nodes, and_(p))) return NULL;
    } while (jp_skip_name(p, "or"));
    return chain_node(p, &c, JN_OR, line);
}

/* a if test else b. Within one, an unknown filter is an error only when it runs (see jparser.soft). */
static jnode *condition(jparser *p) {
    uint32_t line = jp_current(p)->line;
    bool had_assertion = p->assertion[0] != 0, soft = p->soft;
    jnode *n = jx_or(p);
    while (n && jp_skip_name(p, "if")) {
        if (!had_assertion) p->assertion[0] = 0;
        p->soft = true;
        jnode *c = jp_node(p, JN_COND, line);
        if (!c) return NULL;
        c->b = n;
        c->a = jx_or(p);
        if (!c->a) return NULL;
        if (jp_skip_name(p, "else") && !(c->c = jx_expression(p))) return NULL;
        line = jp_current(p)->line;
        n = c;
    }
    p->soft = soft;
    return n;
}

jnode *jx_expression(jparser *p) {
    if (!jp_enter(p)) return NULL;
    jnode *n = condition(p);
    p->depth--;
    return n;
}

/* \xhh, \uhhhh, \Uhhhhhhhh after the backslash at *at (on the letter): the code point, or -1 with *why set. */
static int32_t hex_escape(am_str s, size_t *at, const char **why) {
    char kind = s.p[*at];
    size_t n = kind == 'x' ? 2 : kind == 'u' ? 4 : 8;
    uint64_t c = 0;
    for (size_t i = 1; i <= n; i++) {
        int v = *at + i < s.n ? am_hex_digit(s.p[*at + i]) : -1;
        if (v < 0) {
            *why = kind == 'x' ? "truncated \\xXX escape" : kind == 'u' ? "truncated \\uXXXX escape" : "truncated \\UXXXXXXXX escape";
            return -1;
        }
        c = c * 16 + (unsigned)v;
    }
    *at += n + 1;
    if (c > 0x10ffff) {
        *why = "illegal Unicode character";
        return -1;
    }
    return (int32_t)c;
}

/* One escape, s.p[*at] being what follows the backslash. Writes up to 5 bytes; false: *why. */
static bool escape(am_str s, size_t *at, char **to, const char **why) {
    static const char from[] = "abfnrtv\\'\"", into[] = "\a\b\f\n\r\t\v\\'\"";
    char c = s.p[*at];
    const char *k = c ? strchr(from, c) : NULL;
    if (k) {
        *(*to)++ = into[k - from];
        ++*at;
    } else if (c == '\n') {
        ++*at;
    } else if (c >= '0' && c <= '7') {
        int v = 0;
        for (int i = 0; i < 3 && *at < s.n && s.p[*at] >= '0' && s.p[*at] <= '7'; i++) v = v * 8 + s.p[(*at)++] - '0';
        *to += j_encode(v, *to);
    } else if (c == 'x' || c == 'u' || c == 'U') {
        int32_t v = hex_escape(s, at, why), low;
        if (v < 0) return false;
        size_t next = *at + 1;
        if (v >= 0xd800 && v < 0xdc00 && next < s.n && s.p[*at] == '\\' && s.p[next] == 'u' &&
            (low = hex_escape(s, &next, why)) >= 0xdc00 && low < 0xe000) {
            v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
            *at = next;
        }
        *to += j_encode(v >= 0xd800 && v < 0xe000 ? 0xfffd : v, *to);
    } else if (c == 'N') {
        *why = "unknown Unicode character name";
        return false;
    } else {
        *(*to)++ = '\\';
    }
    return true;
}

void jx_check_escapes(jparser *p) {
    am_str s = jp_current(p)->text;
    const char *why = "";
    for (size_t at = 0; at + 1 < s.n; at++) {
        char bytes[8], *to = bytes;
        if (s.p[at] != '\\') continue;
        at++;
        if (!escape((am_str){s.p, s.n - 1}, &at, &to, &why)) {
            jp_fail(p, jp_current(p)->line, "%s", why);
            return;
        }
        at--;
    }
}

/* The literals at hand, one or several in a row, unescaped and joined. */
static jnode *string_literal(jparser *p) {
    uint32_t line = jp_current(p)->line;
    size_t n = 0;
    for (size_t i = p->at; p->tokens.v[i].type == JT_STRING; i++) n += p->tokens.v[i].text.n;
    char *text = jp_alloc(p, n + 8), *to = text;
    if (!text) return NULL;
    while (jp_is(p, JT_STRING)) {
        am_str s = jp_current(p)->text;
        s = (am_str){s.p + 1, s.n - 2};
        for (size_t at = 0; at < s.n;) {
            const char *why;
            if (s.p[at] != '\\') *to++ = s.p[at++];
            else if (++at, !escape(s, &at, &to, &why)) return NULL; /* checked when it was read */
        }
        jp_next(p);
    }
    jnode *c = jp_node(p, JN_CONST, line);
    const jstr *s = c ? jp_string(p, (am_str){text, (size_t)(to - text)}) : NULL;
    if (s) c->value = jv_str(s);
    return s ? c : NULL;
}

static jnode *number_literal(jparser *p) {
    const jtoken *t = jp_next(p);
    char digits[64];
    size_t n = 0;
    for (size_t i = 0; i < t->text.n && n + 1 < sizeof digits; i++)
        if (t->text.p[i] != '_') digits[n++] = t->text.p[i];
    digits[n] = 0;
    jnode *c = jp_node(p, JN_CONST, t->line);
    if (!c) return NULL;
    if (t->type == JT_FLOAT) {
        c->value = jv_float(strtod(digits, NULL));
        return c;
    }
    char kind = n > 1 && digits[0] == '0' ? (char)(digits[1] | 32) : 0;
    int base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
    errno = 0;
    long long i = strtoll(digits + (base == 10 ? 0 : 2), NULL, base);
    if (errno || t->text.n >= sizeof digits) {
        jp_fail(p, t->line, "integer %.*s... does not fit 64 bits", 20, digits);
        return NULL;
    }
    c->value = jv_int(i);
    return c;
}

static jnode *list_literal(jparser *p) {
    uint32_t line = jp_next(p)->line;
    jnodes items = {0};
    while (!jp_is(p, JT_RBRACKET)) {
        if (items.n && !jp_expect(p, JT_COMMA)) return NULL;
        if (jp_is(p, JT_RBRACKET)) break;
        if (!jp_add(p, &items, jx_expression(p))) return NULL;
    }
    jp_next(p);
    jnode *n = jp_node(p, JN_LIST, line);
    if (!n) return NULL;
    n->list = items.v;
    n->n = items.n;
    return n;
}

static jnode *dict_literal(jparser *p) {
    uint32_t line = jp_next(p)->line;
    jnodes keys = {0}, values = {0};
    while (!jp_is(p, JT_RBRACE)) {
        if (keys.n && !jp_expect(p, JT_COMMA)) return NULL;
        if (jp_is(p, JT_RBRACE)) break;
        if (!jp_add(p, &keys, jx_expression(p)) || !jp_expect(p, JT_COLON) || !jp_add(p, &values, jx_expression(p))) return NULL;
    }
    jp_next(p);
    jnode *n = jp_node(p, JN_DICT, line);
    if (!n) return NULL;
    n->list = keys.v;
    n->list2 = values.v;
    n->n = keys.n;
    for (uint32_t i = 0; i < n->n && !n->flag && jx_is_constant(keys.v[i], 0) && jx_is_constant(values.v[i], 0); i++)
        n->flag = keys.v[i]->kind == JN_LIST || keys.v[i]->kind == JN_DICT;
    p->bad_keys |= n->flag;
    return n;
}

static jnode *name(jparser *p) {
    const jtoken *t = jp_next(p);
    static const struct {
        const char *name;
        jv value;
    } constants[] = {{"true", {.t = J_BOOL, .b = true}}, {"True", {.t = J_BOOL, .b = true}}, {"false", {.t = J_BOOL}},
                     {"False", {.t = J_BOOL}},           {"none", {.t = J_NONE}},            {"None", {.t = J_NONE}}};
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (!am_str_eq(t->text, am_str_of(constants[i].name))) continue;
        jnode *c = jp_node(p, JN_CONST, t->line);
        if (c) c->value = constants[i].value;
        return c;
    }
    jnode *n = jp_node(p, JN_NAME, t->line);
    if (!n || (n->atom = jp_atom(p, t->text)) == UINT32_MAX) return NULL;
    if (n->atom < JA_N_FIXED) p->uses[n->atom] = true;
    return n;
}

static const char *described(const jtoken *t, char buf[80]) {
    if (t->type != JT_NAME) return j_token_name((jtok)t->type);
    snprintf(buf, 80, "%.*s", (int)(t->text.n < 79 ? t->text.n : 79), t->text.p);
    return buf;
}

jnode *jx_primary(jparser *p) {
    const jtoken *t = jp_current(p);
    switch (t->type) {
    case JT_NAME: return name(p);
    case JT_STRING: return string_literal(p);
    case JT_INT: case JT_FLOAT: return number_literal(p);
    case JT_LPAREN: {
        jp_next(p);
        jnode *n = jx_tuple(p, JX_PARENS);
        return n && jp_expect(p, JT_RPAREN) ? n : NULL;
    }
    case JT_LBRACKET: return list_literal(p);
    case JT_LBRACE: return dict_literal(p);
    default: {
        char buf[80];
        if (t->type == JT_ERROR)
            jp_fail(p, t->line, "%.*s", (int)t->text.n, t->text.p);
        else
            jp_fail(p, t->line, "unexpected '%s'", described(t, buf));
        return NULL;
    }
    }
}

/* jinja2 also means to end a tuple before "in" and "recursive", but its test for that never holds; nor does ours. */
static bool tuple_ends(jparser *p) { return jp_is(p, JT_VAR_END) || jp_is(p, JT_BLOCK_END) || jp_is(p, JT_RPAREN); }

/* ns.attr as a target */
static jnode *namespace_target(jparser *p) {
    jnode *n = jp_node(p, JN_NSREF, jp_current(p)->line);
    if (!n || (n->atom = jp_atom(p, jp_next(p)->text)) == UINT32_MAX) return NULL;
    jp_next(p);
    am_str attr;
    const jstr *s = jp_identifier(p, &attr) ? jp_string(p, attr) : NULL;
    if (!s) return NULL;
    n->value = jv_str(s);
    return n;
}

static jnode *tuple_item(jparser *p, unsigned flags) {
    if ((flags & JX_NAMESPACE) && jp_is(p, JT_NAME) && jp_look(p)->type == JT_DOT) return namespace_target(p);
    if (flags & JX_SIMPLE) return jx_primary(p);
    if (!(flags & JX_NO_COND)) return jx_expression(p);
    if (!jp_enter(p)) return NULL;
    jnode *n = jx_or(p);
    p->depth--;
    return n;
}

jnode *jx_tuple(jparser *p, unsigned flags) {
    uint32_t line = jp_current(p)->line;
    jnodes items = {0};
    bool is_tuple = false;
    for (;;) {
        if (items.n && !jp_expect(p, JT_COMMA)) return NULL;
        if (tuple_ends(p)) break;
        if (!jp_add(p, &items, tuple_item(p, flags))) return NULL;
        if (!jp_is(p, JT_COMMA)) break;
        is_tuple = true;
    }
    if (!is_tuple) {
        if (items.n) return items.v[0];
        if (!(flags & JX_PARENS)) {
            char buf[80];
            const jtoken *t = jp_current(p);
            jp_fail(p, t->line, "Expected an expression, got '%s'", described(t, buf));
            return NULL;
        }
    }
    jnode *n = jp_node(p, JN_TUPLE, line);
    if (!n) return NULL;
    n->list = items.v;
    n->n = items.n;
    return n;
}


/* Inside [ ]: an expression, or a slice (then *slice is set and its parts are in part[]). */
static jnode *subscribed(jparser *p, jnode *part[3], bool *slice) {
    jnode *first = NULL;
    *slice = false;
    if (!jp_is(p, JT_COLON) && !(first = jx_expression(p))) return NULL;
    if (!jp_skip_if(p, JT_COLON)) return first;
    *slice = true;
    part[0] = first;
    if (!jp_is(p, JT_COLON) && !jp_is(p, JT_RBRACKET) && !jp_is(p, JT_COMMA) && !(part[1] = jx_expression(p))) return NULL;
    if (jp_skip_if(p, JT_COLON) && !jp_is(p, JT_RBRACKET) && !jp_is(p, JT_COMMA) && !(part[2] = jx_expression(p))) return NULL;
    return NULL;
}

static jnode *subscript(jparser *p, jnode *obj) {
    uint32_t line = jp_current(p)->line;
    jnodes items = {0};
    jnode *part[3] = {0};
    bool slice = false;
    jp_next(p);
    while (!jp_is(p, JT_RBRACKET)) {
        if (slice || items.n) {
            if (!jp_expect(p, JT_COMMA)) return NULL;
            if (slice) {
                jp_fail(p, line, "a slice within a tuple of subscripts is not supported");
                return NULL;
            }
        }
        jnode *item = subscribed(p, part, &slice);
        if (p->status || (!slice && !jp_add(p, &items, item))) return NULL;
    }
    jp_next(p);
    jnode *n = jp_node(p, slice ? JN_SLICE : JN_ITEM, line);
    if (!n) return NULL;
    n->a = obj;
    if (slice) {
        p->slices = true;
        if (!(n->list = jp_alloc(p, 3 * sizeof *n->list))) return NULL;
        memcpy(n->list, part, sizeof part);
    } else if (items.n == 1) {
        n->b = items.v[0];
    } else {
        if (!(n->b = jp_node(p, JN_TUPLE, line))) return NULL;
        n->b->list = items.v;
        n->b->n = items.n;
    }
    return n;
}

static jnode *attribute(jparser *p, jnode *obj) {
    uint32_t line = jp_next(p)->line;
    const jtoken *t = jp_current(p);
    if (t->type == JT_INT) {
        jnode *n = jp_node(p, JN_ITEM, line);
        if (!n || !(n->b = number_literal(p))) return NULL;
        n->a = obj;
        return n;
    }
    if (t->type != JT_NAME) {
        jp_fail(p, t->line, "expected name or number");
        return NULL;
    }
    jp_next(p);
    jnode *n = jp_node(p, JN_ATTR, line);
    const jstr *s = n ? jp_string(p, t->text) : NULL;
    if (!s) return NULL;
    n->a = obj;
    n->value = jv_str(s);
    return n;
}

static bool keyword(jparser *p, jargnodes *a, uint32_t *cap) {
    if (a->n_kw == *cap) {
        uint32_t n = *cap ? *cap * 2 : 4;
        jkwnode *kw = jp_alloc(p, n * sizeof *kw);
        if (!kw) return false;
        if (a->n_kw) memcpy(kw, a->kw, a->n_kw * sizeof *kw);
        a->kw = kw;
        *cap = n;
    }
    jkwnode *k = &a->kw[a->n_kw];
    uint32_t line = jp_current(p)->line;
    if (!(k->name = jp_string(p, jp_next(p)->text))) return false;
    for (uint32_t i = 0; i < a->n_kw; i++)
        if (j_str_eq(a->kw[i].name, (am_str){k->name->p, k->name->n})) jp_refuse(p, line, "keyword argument repeated: ", (am_str){k->name->p, k->name->n}, "");
    jp_next(p); /* = */
    if (!(k->value = jx_expression(p))) return false;
    a->n_kw++;
    return true;
}

bool jx_call_args(jparser *p, jargnodes **out) {
    uint32_t line = jp_current(p)->line, cap = 0;
    jargnodes *a = jp_alloc(p, sizeof *a);
    if (!a || !jp_expect(p, JT_LPAREN)) return false;
    jnodes pos = {0};
    bool comma = false, ok = true;
    while (!jp_is(p, JT_RPAREN)) {
        if (comma) {
            if (!jp_expect(p, JT_COMMA)) return false;
            if (jp_is(p, JT_RPAREN)) break;
        }
        if (jp_skip_if(p, JT_MUL)) {
            ok = !a->star && !a->star2;
            if (ok && !(a->star = jx_expression(p))) return false;
        } else if (jp_skip_if(p, JT_POW)) {
            ok = !a->star2;
            if (ok && !(a->star2 = jx_expression(p))) return false;
        } else if (jp_is(p, JT_NAME) && jp_look(p)->type == JT_ASSIGN) {
            ok = !a->star2;
            if (ok && !keyword(p, a, &cap)) return false;
        } else {
            ok = !a->star && !a->star2 && !a->n_kw;
            if (ok && !jp_add(p, &pos, jx_expression(p))) return false;
        }
        if (!ok) return jp_fail(p, line, "invalid syntax for function call expression");
        comma = true;
    }
    jp_next(p);
    a->pos = pos.v;
    a->n = pos.n;
    *out = a;
    return true;
}

static jnode *call(jparser *p, jnode *f) {
    jnode *n = jp_node(p, JN_CALL, jp_current(p)->line);
    if (!n || !jx_call_args(p, &n->args)) return NULL;
    n->a = f;
    return n;
}

static jnode *postfix(jparser *p, jnode *n) {
    while (n) {
        if (jp_is(p, JT_DOT))
            n = attribute(p, n);
        else if (jp_is(p, JT_LBRACKET))
            n = subscript(p, n);
        else if (jp_is(p, JT_LPAREN))
            n = call(p, n);
        else
            break;
    }
    return n;
}

/* name or dotted.name of a filter or test */
static const jstr *dotted(jparser *p) {
    am_str first, more;
    if (!jp_identifier(p, &first)) return NULL;
    if (!jp_is(p, JT_DOT)) return jp_string(p, first);
    char text[200];
    int n = snprintf(text, sizeof text, "%.*s", (int)(first.n < 100 ? first.n : 100), first.p);
    while (jp_skip_if(p, JT_DOT)) {
        if (!jp_identifier(p, &more)) return NULL;
        if (n < 100) n += snprintf(text + n, sizeof text - (size_t)n, ".%.*s", (int)(more.n < 90 ? more.n : 90), more.p);
    }
    return jp_string(p, (am_str){text, (size_t)n});
}

static void check_known(jparser *p, const jnode *n, const char *what) {
    if (n->what || p->soft) return;
    jp_assert(p, n->line, "No %s named '%.*s'.", what, (int)(n->value.s->n < 100 ? n->value.s->n : 100), n->value.s->p);
}

jnode *jx_filters(jparser *p, jnode *subject, bool inline_first) {
    while (inline_first || jp_is(p, JT_PIPE)) {
        if (!inline_first) jp_next(p);
        inline_first = false;
        jnode *n = jp_node(p, JN_FILTER, jp_current(p)->line);
        const jstr *s = n ? dotted(p) : NULL;
        if (!s) return NULL;
        n->a = subject;
        n->value = jv_str(s);
        n->what = j_filter_find((am_str){s->p, s->n});
        check_known(p, n, "filter");
        if (jp_is(p, JT_LPAREN) && !jx_call_args(p, &n->args)) return NULL;
        subject = n;
    }
    return subject;
}

static bool test_argument_follows(jparser *p) {
    switch (jp_current(p)->type) {
    case JT_NAME: return !jp_is_name(p, "else") && !jp_is_name(p, "or") && !jp_is_name(p, "and");
    case JT_STRING: case JT_INT: case JT_FLOAT: case JT_LBRACKET: case JT_LBRACE: return true;
    default: return false;
    }
}

static jnode *test(jparser *p, jnode *subject) {
    uint32_t line = jp_next(p)->line; /* is */
    bool negated = jp_skip_name(p, "not");
    jnode *n = jp_node(p, JN_TEST, line);
    const jstr *s = n ? dotted(p) : NULL;
    if (!s) return NULL;
    n->a = subject;
    n->value = jv_str(s);
    n->what = j_test_find((am_str){s->p, s->n});
    check_known(p, n, "test");
    if (jp_is(p, JT_LPAREN)) {
        if (!jx_call_args(p, &n->args)) return NULL;
    } else if (test_argument_follows(p)) {
        if (jp_is_name(p, "is")) {
            jp_fail(p, jp_current(p)->line, "You cannot chain multiple tests with is");
            return NULL;
        }
        jnode *arg = jx_primary(p);
        jnodes pos = {0};
        if (!arg || !jp_add(p, &pos, postfix(p, arg)) || !(n->args = jp_alloc(p, sizeof *n->args))) return NULL;
        n->args->pos = pos.v;
        n->args->n = pos.n;
    }
    if (!negated) return n;
    jnode *not_node = jp_node(p, JN_NOT, line);
    if (not_node) not_node->a = n;
    return not_node;
}

static jnode *filtered(jparser *p, jnode *n) {
    while (n) {
        if (jp_is(p, JT_PIPE))
            n = jx_filters(p, n, false);
        else if (jp_is_name(p, "is"))
            n = test(p, n);
        else if (jp_is(p, JT_LPAREN))
            n = call(p, n);
        else
            break;
    }
    return n;
}

static jnode *unary(jparser *p, bool with_filter) {
    jnode *n;
    if (jp_is(p, JT_SUB) || jp_is(p, JT_ADD)) {
        const jtoken *t = jp_next(p);
        if (!jp_enter(p)) return NULL;
        n = jp_node(p, t->type == JT_SUB ? JN_NEG : JN_POS, t->line);
        if (n && !(n->a = unary(p, false))) n = NULL;
        p->depth--;
    } else {
        n = jx_primary(p);
    }
    n = postfix(p, n);
    return with_filter ? filtered(p, n) : n;
}

static bool check_target(jparser *p, jnode *n) {
    if (p->n_for && n->kind == JN_NAME && n->atom == JA_LOOP) jp_assert(p, n->line, "Can't assign to special loop variable in for-loop target");
    if (n->kind == JN_NAME || n->kind == JN_NSREF) return true;
    if (n->kind != JN_TUPLE) {
        static const char *const name_of[] = {[JN_CONST] = "const", [JN_LIST] = "list", [JN_DICT] = "dict"};
        const char *name_ = n->kind == JN_CONST || n->kind == JN_LIST || n->kind == JN_DICT ? name_of[n->kind] : "expression";
        return jp_fail(p, n->line, "can't assign to '%s'", name_);
    }
    for (uint32_t i = 0; i < n->n; i++) {
        if (n->list[i]->kind != JN_NAME && n->list[i]->kind != JN_NSREF && n->list[i]->kind != JN_TUPLE) return jp_fail(p, n->line, "can't assign to 'tuple'");
        if (n->list[i]->kind == JN_NAME && !check_target(p, n->list[i])) return false;
    }
    return true;
}

jnode *jx_target(jparser *p, bool with_namespace) {
    bool used[JA_N_FIXED];
    memcpy(used, p->uses, sizeof used); /* being assigned to is not being used */
    jnode *n = jx_tuple(p, JX_SIMPLE | (with_namespace ? JX_NAMESPACE : 0));
    memcpy(p->uses, used, sizeof used);
    return n && check_target(p, n) ? n : NULL;
}
