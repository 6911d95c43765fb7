/* Private to the template compiler: tokens and the parser's state. */
#ifndef AM_TEXT_JINJA_PARSE_INT_H
#define AM_TEXT_JINJA_PARSE_INT_H

#include "text/jinja_int.h"

typedef enum jtok {
    JT_EOF,
    JT_ERROR, /* what the lexer could not read; an error only when the parser gets there */
    JT_DATA,
    JT_VAR_BEGIN,
    JT_VAR_END,
    JT_BLOCK_BEGIN,
    JT_BLOCK_END,
    JT_NAME,
    JT_STRING,
    JT_INT,
    JT_FLOAT,
    JT_ADD, JT_SUB, JT_DIV, JT_FLOORDIV, JT_MUL, JT_MOD, JT_POW, JT_TILDE,
    JT_LBRACKET, JT_RBRACKET, JT_LPAREN, JT_RPAREN, JT_LBRACE, JT_RBRACE,
    JT_EQ, JT_NE, JT_GT, JT_GE, JT_LT, JT_LE,
    JT_ASSIGN, JT_DOT, JT_COLON, JT_PIPE, JT_COMMA, JT_SEMICOLON
} jtok;

typedef struct jtoken {
    uint8_t type;
    uint32_t line;
    am_str text; /* view of the source; of an error: its message */
} jtoken;

/* Growing array of tokens; free with free(v). */
typedef struct jtokens {
    jtoken *v;
    size_t n, cap;
    char error[80]; /* the text of a JT_ERROR that names a character */
} jtokens;

/* Cuts source (newlines already \n, valid UTF-8; must outlive the tokens) into tokens, ending in JT_EOF or JT_ERROR. */
am_status j_lex(am_str source, jtokens *out, am_error *err);
const char *j_token_name(jtok type); /* as jinja2 calls it in messages */

/* A growing list of nodes while parsing; ends up in the template's arena. */
typedef struct jnodes {
    jnode **v;
    uint32_t n, cap;
} jnodes;

typedef struct jparser {
    am_template *t;
    jtokens tokens;
    size_t at;
    am_error *err;
    am_status status;
    uint32_t depth;
    bool soft;          /* inside an if: an unknown filter is an error only when it runs */
    uint32_t n_loop;    /* loops around, within the same macro */
    uint32_t n_for;     /* loops around, however many macros are between */
    bool uses[JA_N_FIXED];
    uint8_t escape;     /* JE_, as of the autoescape around */
    jnodes blocks;
    char twice[120];    /* the first block whose name was taken */
    uint32_t twice_line;
    bool slices; /* there has been one: only then does it matter whether an expression is constant */
    const am_str *tag;  /* innermost open tag, for messages */
    const struct jends *ends;
    char assertion[200]; /* first unknown filter or test: reported when the rest has parsed */
    uint32_t assertion_line;
    bool bad_keys; /* there has been a constant dict with a key that has no hash */
    char refused[120]; /* what Python's own compiler finds, last of all: break or continue outside a loop, a name given twice */
    uint32_t refused_line;
    uint32_t code_line; /* the last line that jinja2's generated code has noted so far: a `with` notes none of its own */
} jparser;

/* The end tags a body waits for; a stack through C's. */
typedef struct jends {
    const char *const *names; /* NULL-terminated */
    const struct jends *up;
} jends;

void *jp_alloc(jparser *p, size_t n);
bool jp_fail(jparser *p, uint32_t line, const char *format, ...) __attribute__((format(printf, 3, 4)));
const jtoken *jp_current(jparser *p);
const jtoken *jp_look(jparser *p);
const jtoken *jp_next(jparser *p); /* the current one; moves on */
bool jp_is(jparser *p, jtok type);
bool jp_is_name(jparser *p, const char *name);
bool jp_skip_if(jparser *p, jtok type);
bool jp_skip_name(jparser *p, const char *name);
void jp_assert(jparser *p, uint32_t line, const char *format, ...) __attribute__((format(printf, 3, 4))); /* found when all has parsed */
void jp_refuse(jparser *p, uint32_t line, const char *what, am_str name, const char *rest);                /* the same, later still */
bool jp_expect(jparser *p, jtok type);
bool jp_expect_name(jparser *p, const char *name);
bool jp_identifier(jparser *p, am_str *out); /* expects a name token */
bool jp_enter(jparser *p);
jnode *jp_node(jparser *p, jkind kind, uint32_t line); /* NULL: failed */
uint32_t jp_atom(jparser *p, am_str name);             /* UINT32_MAX: failed */
const jstr *jp_string(jparser *p, am_str s);

bool jp_add(jparser *p, jnodes *list, jnode *n);

/* jinja_expr.c; all give NULL when they failed */
enum { JX_NO_COND = 1, JX_SIMPLE = 2, JX_PARENS = 4, JX_NAMESPACE = 8 };
jnode *jx_tuple(jparser *p, unsigned flags);
jnode *jx_expression(jparser *p);
jnode *jx_or(jparser *p);
jnode *jx_primary(jparser *p);
void jx_check_escapes(jparser *p); /* of the string at hand: wrong ones are found when it is read, not when it is used */
bool jx_call_args(jparser *p, jargnodes **out);
jnode *jx_filters(jparser *p, jnode *subject, bool inline_first); /* NULL subject: a block's text */
jnode *jx_target(jparser *p, bool with_namespace);

/* Expressions that jinja2 computes at compile time, because nothing in them can change (jinja_const.c). */
bool jx_is_constant(const jnode *n, int depth);
void jx_mark_constant(jnode *n);
void jx_mark_folded(const jbody *body);      /* the same wherever something folds them */
const char *jx_bad_key(const jbody *body);   /* the type of a key without a hash within what is folded; NULL: there is none */

#endif
