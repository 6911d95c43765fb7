/* Private to the template engine: values, tree, and the state of one rendering.
 *
 * Lifetimes: a template's tree, its constants and its table of names (atoms) live in the template's arena and never change
 * after compile. All values of a rendering live in the rendering's arena and die with it; nothing is freed one by one.
 * Every fallible function returns false after it has set the error once (j_fail, j_limit, j_no_memory). */
#ifndef AM_TEXT_JINJA_INT_H
#define AM_TEXT_JINJA_INT_H

#include "text/template.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum jtype {
    J_MISSING, /* no value: an unset slot, an argument not given; never seen by templates */
    J_UNDEF,
    J_NONE,
    J_BOOL,
    J_INT,
    J_FLOAT,
    J_STR,
    J_LIST,
    J_TUPLE,
    J_DICT,
    J_VIEW, /* dict.keys(), .values(), .items() */
    J_RANGE,
    J_GEN, /* generators and iterators: can be walked once */
    J_NAMESPACE,
    J_MACRO,
    J_FUNC,
    J_METHOD,
    J_LOOP,
    J_CYCLER,
    J_JOINER,
    J_SELF, /* `self`: its members are the blocks */
    J_BLOCK
} jtype;

typedef struct jstr jstr;
typedef struct jlist jlist;
typedef struct jdict jdict;
typedef struct jnode jnode;
typedef struct jrender jrender;

typedef struct jv {
    jtype t;
    union {
        bool b;
        int64_t i;
        double f;
        const jstr *s;
        jlist *l;
        jdict *d;
        struct jundef *undef;
        struct jview *view;
        struct jrange *range;
        struct jgen *gen;
        struct jmacro *macro;
        const struct jfunc *func;
        struct jmethod *method;
        struct jloop *loop;
        struct jcycler *cycler;
        struct jjoiner *joiner;
        struct jblock *block;
        void *p;
    };
} jv;

/* Text with the ranges that came from the context. Immutable, but for `grow`: the memory behind the newest of a row of
 * concatenations, so that a + b need not copy a each time (jinja_string.c). */
struct jstr {
    const char *p;
    size_t n;
    size_t n_chars; /* code points; SIZE_MAX: not counted yet */
    const am_span *in;
    size_t n_in;
    bool number; /* the digits of an integer beyond 64 bits: printed as such, never calculated with */
    bool markup; /* jinja_markup.c */
    struct jgrow *grow;
};

struct jlist {
    jv *v;
    size_t n, cap;
    bool group; /* groupby's tuple: has .grouper and .list */
};

typedef struct jentry {
    jv key, value;
    uint64_t hash;
} jentry;
struct jdict {
    jentry *e; /* in order of insertion */
    size_t n, cap;
    uint32_t *index; /* open addressing, entry number + 1; NULL while n is small */
    size_t n_index;
};

typedef struct jundef {
    enum { JU_NAME, JU_MEMBER, JU_HINT } kind;
    bool security;
    jv obj, name;
    const char *hint;
    const char *instead; /* of a constant slice: what using it raises, since jinja2 then computes the slice when it renders */
} jundef;
typedef struct jview {
    jdict *d;
    enum { JV_KEYS, JV_VALUES, JV_ITEMS } kind;
} jview;
typedef struct jrange {
    int64_t start, stop, step, n;
} jrange;

typedef struct jiter {
    jv src;
    size_t i; /* items (or bytes of a string) taken */
} jiter;
/* next: 1 an item, 0 the end, -1 failed */
/* it.src is looked at only when the first item is asked for, since a generator does nothing before. */
typedef struct jgen {
    int (*next)(jrender *r, struct jgen *g, jv *out);
    jiter it;
    const void *what; /* filter or test to call */
    struct jargs *args;
    const jv *path; /* attribute path */
    size_t n_path;
    jv fill; /* default of map(attribute), fill_with */
    int64_t count;
    bool flag, has_test, running, started;
    const char *name;
} jgen;

typedef struct jkw {
    const jstr *name;
    jv v;
} jkw;
typedef struct jargs {
    jv *pos;
    size_t n;
    jkw *kw;
    size_t n_kw;
} jargs;

/* A built-in function, filter or method: its parameters after the subject, as Python's signature has them. */
enum { JP_MAX = 6 };
typedef bool jfunc_fn(jrender *r, jv self, jv *arg, jv *out);
typedef bool jfunc_raw(jrender *r, jv self, const jargs *args, jv *out); /* binds its arguments itself */
typedef struct jfunc {
    const char *name;   /* in templates */
    const char *pyname; /* in error texts */
    jfunc_fn *fn;
    jfunc_raw *raw;
    const char *params; /* "old new count"; NULL: none */
    int n_required;
    bool no_keywords;
    bool hidden; /* Python's function takes one more, the environment */
    bool plain;  /* gives str even to Markup */
    bool is_global; /* has no subject that Python counts in */
} jfunc;
typedef struct jmethod {
    jv self;
    const jfunc *def;
} jmethod;

typedef struct jvar {
    uint32_t atom;
    jv v;
} jvar;
typedef struct jframe {
    struct jframe *up; /* NULL: above is the template's top level */
    jvar *var;
    uint32_t n, cap;
} jframe;

typedef struct jmacro {
    const jnode *node;
    jframe *closure;
    const jstr *name; /* NULL: the body of a call block */
} jmacro;
typedef struct jloop {
    jiter it;
    const jnode *node; /* for the filter and for recursion */
    jframe *closure;
    jv after, current, before, changed;
    int64_t index0, length, depth0;
} jloop;
typedef struct jcycler {
    jlist *items;
    size_t pos;
} jcycler;
/* `self` (node NULL), or one of its members. */
typedef struct jblock {
    const jnode *node;
    jframe *context;
} jblock;
typedef struct jjoiner {
    jv sep;
    bool used;
} jjoiner;

/* ---- tree ---- */
typedef enum jkind {
    /* statements */
    JN_DATA,     /* value */
    JN_PRINT,    /* list */
    JN_SET,      /* a target, b expression */
    JN_SETBLOCK, /* a target, b filter or NULL, list body */
    JN_IF,       /* list: bodies; arm: tests (NULL test: else) */
    JN_FOR,      /* a target, b iterable, c test; body, other; flag: recursive */
    JN_MACRO,    /* atom name, sig, body */
    JN_CALLBLOCK,/* sig, a call, body */
    JN_FILTERBLOCK, /* b filter, body */
    JN_WITH,     /* list targets, list2 values, body */
    JN_SCOPE,    /* body: generation; autoescape when it has a */
    JN_BLOCK,    /* atom name, body; flag: scoped, n: required */
    JN_BREAK,
    JN_CONTINUE,
    JN_DO,
    JN_LOADER, /* include, import, extends: there is no loader */
    /* expressions */
    JN_CONST,  /* value */
    JN_NAME,   /* atom */
    JN_NSREF,  /* atom, value: attribute */
    JN_TUPLE,
    JN_LIST,
    JN_DICT, /* list: keys, list2: values; flag: constant, with a key that has no hash */
    JN_COND, /* a test, b then, c else or NULL */
    JN_AND,  /* list */
    JN_OR,
    JN_NOT,
    JN_COMPARE, /* list: operands, ops */
    JN_ARITH,   /* list: operands left to right, ops */
    JN_CONCAT,
    JN_NEG,
    JN_POS,
    JN_ATTR,  /* a, value: name */
    JN_ITEM,  /* a, b */
    JN_SLICE, /* a, list[3] of start, stop, step (NULL: absent); flag: all constant */
    JN_CALL,  /* a, args */
    JN_FILTER,/* a (NULL: a block's text), value: name, what, args */
    JN_TEST
} jkind;

typedef enum jop {
    JO_ADD, JO_SUB, JO_MUL, JO_DIV, JO_FLOORDIV, JO_MOD, JO_POW,
    JO_EQ, JO_NE, JO_LT, JO_LE, JO_GT, JO_GE, JO_IN, JO_NOTIN
} jop;

typedef struct jkwnode {
    const jstr *name;
    jnode *value;
} jkwnode;
typedef struct jargnodes {
    jnode **pos;
    jkwnode *kw;
    uint32_t n, n_kw;
    jnode *star, *star2;
} jargnodes;
typedef struct jsig {
    uint32_t *param; /* atoms */
    jnode **dflt;    /* of the last n_dflt parameters */
    uint32_t n, n_dflt;
    bool uses_caller, uses_varargs, uses_kwargs, explicit_caller;
} jsig;
typedef struct jbody {
    jnode **node;
    uint32_t n;
} jbody;
enum { JE_OFF, JE_ON, JE_ASK }; /* ASK: only the rendering knows, as what was written behind autoescape is no constant */
struct jnode {
    uint8_t kind, escape; /* escape: of what autoescape is for, JE_ */
    bool flag;
    uint32_t line;
    uint32_t atom;
    uint32_t n;
    jv value;
    jnode *a, *b, *c;
    jnode **list, **list2;
    uint8_t *ops;
    jargnodes *args;
    jsig *sig;
    const jfunc *what; /* filter or test; NULL: unknown, an error when it runs */
    jbody body, other;
    jbody *arms; /* of an if, parallel to list */
};

/* Atoms every template has, in this order (jinja_parse.c registers them). */
enum { JA_LOOP, JA_CALLER, JA_VARARGS, JA_KWARGS, JA_SELF, JA_SUPER, JA_N_FIXED };

struct am_template {
    am_arena *arena;
    jbody body;
    const jstr **atom; /* names by number */
    uint32_t n_atom, cap_atom;
    uint32_t *atom_index; /* open addressing, atom + 1 */
    uint32_t n_atom_index;
    jnode **block; /* every one, in the order of the source */
    uint32_t n_block;
};

/* ---- rendering ---- */
typedef struct jout {
    am_buf text;
    am_buf marks; /* am_span, ascending, merged */
    size_t *live; /* jrender.live_bytes */
} jout;

enum { JF_NORMAL, JF_BREAK, JF_CONTINUE };
struct jrender {
    const am_template *t;
    am_arena *arena;
    am_error *err;
    am_status status;
    am_template_limits limits;
    uint64_t steps;
    uint32_t depth, calls, line;
    bool autoescape;
    jframe *context;     /* what a block sees above it: the frame of the scoped block around, NULL: the top level */
    const jnode *block;  /* the innermost one under way */
    jv *top;    /* by atom: what the template set at its top level */
    jv *global; /* by atom: the context, then the built-ins */
    jframe *frame;
    jout *out;
    size_t live_bytes; /* text and marks of all outputs not yet finished: together below max_output_bytes */
    int flow; /* after a statement: break or continue under way */
    int64_t now_s;
};

/* jinja_error.c */
bool j_fail(jrender *r, const char *type, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool j_fail_instead(jrender *r, const char *type, const char *other, const char *text); /* where Python catches an error of this type for another */
bool j_limit(jrender *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool j_raise(jrender *r, am_str text); /* raise_exception */
bool j_no_memory(jrender *r);
bool j_undefined_error(jrender *r, jv undef);
bool j_charge(jrender *r, uint64_t steps); /* false: over max_steps */
bool j_enter(jrender *r);                  /* one level deeper; pair with j_leave when it gave true */
void j_leave(jrender *r);
void *j_alloc(jrender *r, size_t n_bytes); /* NULL: the error is set */
const char *j_type_name(jv v);
const char *j_repr_c(jrender *r, jv v); /* repr as a C string for error texts; never NULL */

/* jinja_value.c */
extern const jv jv_none, jv_true, jv_false;
static inline jv jv_bool(bool b) { return (jv){.t = J_BOOL, .b = b}; }
static inline jv jv_int(int64_t i) { return (jv){.t = J_INT, .i = i}; }
static inline jv jv_float(double f) { return (jv){.t = J_FLOAT, .f = f}; }
static inline jv jv_str(const jstr *s) { return (jv){.t = J_STR, .s = s}; }
static inline bool jv_is_int(jv v) { return v.t == J_INT || v.t == J_BOOL; }
static inline int64_t jv_to_int(jv v) { return v.t == J_BOOL ? v.b : v.i; }
static inline bool jv_is_number(jv v) { return v.t == J_INT || v.t == J_BOOL || v.t == J_FLOAT; }
static inline double jv_to_float(jv v) { return v.t == J_FLOAT ? v.f : (double)jv_to_int(v); }
static inline bool jv_has_list(jv v) { return v.t == J_LIST || v.t == J_TUPLE; }
bool jv_truth(jv v);
bool jv_same(jv a, jv b); /* Python's `is` */
bool jv_equal(jrender *r, jv a, jv b, bool *out);
bool jv_less(jrender *r, jv a, jv b, jop op, bool *out); /* JO_LT, JO_LE, JO_GT, JO_GE */
bool jv_hash(jrender *r, jv v, uint64_t *out);
bool jv_contains(jrender *r, jv item, jv in, bool *out);
bool jv_length(jrender *r, jv v, int64_t *out); /* TypeError when it has none */
bool jv_has_length(jv v);
bool jv_undef_name(jrender *r, const jstr *name, jv *out);
bool jv_undef_member(jrender *r, jv obj, jv name, jv *out);
bool jv_undef_hint(jrender *r, const char *hint, jv *out);
bool jv_undef_unsafe(jrender *r, jv obj, const jstr *name, jv *out);
bool jv_from_json(jrender *r, const json_t *json, bool input, jv *out);

/* jinja_list.c: lists, dicts, iteration */
jlist *j_list(jrender *r, size_t cap);
bool j_list_add(jrender *r, jlist *l, jv v);
bool j_pair(jrender *r, jv a, jv b, jv *out); /* a tuple of two */
jdict *j_dict(jrender *r);
bool j_dict_set(jrender *r, jdict *d, jv key, jv value);
bool j_dict_get(jrender *r, const jdict *d, jv key, jv *out); /* J_MISSING when absent */
bool j_iter(jrender *r, jv v, jiter *it);
int j_next(jrender *r, jiter *it, jv *out);
bool j_to_list(jrender *r, jv v, jlist **out); /* a new list of all items */
jgen *j_gen(jrender *r, const char *name, int (*next)(jrender *, jgen *, jv *));
bool j_gen_of_list(jrender *r, const char *name, jlist *l, jv *out);
typedef bool j_less_fn(jrender *r, jv a, jv b, bool *out); /* false: failed */
const uint32_t *j_order(jrender *r, const jlist *keys, j_less_fn *less, bool reverse); /* positions, stable; NULL: failed */
bool j_sort(jrender *r, jlist *keys, jlist *items, bool reverse); /* stable, by keys, as Python compares them */

/* jinja_string.c: making strings, with their marks */
uint64_t j_hash_str(const jstr *s);
bool j_str_eq(const jstr *a, am_str b);
const jstr *j_str_new(jrender *r, am_str s, bool input); /* copies */
const jstr *j_str_view(jrender *r, am_str s, bool input);/* keeps the bytes, which must outlive the rendering */
const jstr *j_str_number(jrender *r, am_str digits, bool input); /* a view, too */
const jstr *j_str_c(jrender *r, const char *s);          /* view of a literal */
size_t j_str_chars(const jstr *s);
const jstr *j_str_slice(jrender *r, const jstr *s, size_t begin, size_t end); /* bytes */
size_t j_str_offset(const jstr *s, size_t chars);                             /* bytes before that many code points */
const jstr *j_str_concat(jrender *r, const jstr *a, const jstr *b);
bool j_str_is_input(const jstr *s);
void j_out_init(jrender *r, jout *out);
void j_out_free(jout *out);
bool j_out_bytes(jrender *r, jout *out, const char *p, size_t n, bool input);
bool j_out_c(jrender *r, jout *out, const char *s);
bool j_out_str(jrender *r, jout *out, const jstr *s);
bool j_out_part(jrender *r, jout *out, const jstr *s, size_t begin, size_t end);
bool j_out_repeat(jrender *r, jout *out, const jstr *s, int64_t times);
const jstr *j_out_finish(jrender *r, jout *out); /* a string of what was written; frees out, also on failure */
bool j_out_value(jrender *r, jout *out, jv *v);  /* j_out_finish as a value */

/* jinja_format.c */
bool j_str_of(jrender *r, jv v, const jstr **out); /* str(v) */
bool j_write_str(jrender *r, jout *out, jv v);
bool j_write_repr(jrender *r, jout *out, jv v, int depth);
size_t j_format_float(double f, char out[40]); /* repr(float) */
typedef struct jdump {
    bool ensure_ascii, sort_keys;
    const jstr *indent; /* NULL: one line */
    const jstr *item_sep, *key_sep;
} jdump;
bool j_write_json(jrender *r, jout *out, jv v, const jdump *how, int depth);

/* jinja_markup.c */
bool j_markup(jrender *r, const jstr *s, bool markup, jv *out); /* s with or without the mark */
bool j_mark_up(jrender *r, jv *v);
bool j_escape_value(jrender *r, jv v, jv *out);
bool j_write_escaped(jrender *r, jout *out, jv v);
bool j_markup_join(jrender *r, const jlist *parts, jv *out);
bool j_join_escaped(jrender *r, const jlist *items, jv sep, jv *out);

/* jinja_strformat.c: of a Markup they escape what they put in, and give Markup */
bool j_percent_format(jrender *r, const jstr *format, jv args, jv *out);        /* 'a %s' % x */
bool j_brace_format(jrender *r, const jstr *format, const jargs *args, jv *out);/* 'a {}'.format(x) */

/* jinja_unicode.c: Python's idea of characters */
int32_t j_decode(const char *p, size_t n, size_t *used); /* n > 0, valid UTF-8 */
size_t j_encode(int32_t c, char out[4]);
bool j_is_space(int32_t c);
bool j_is_linebreak(int32_t c);
bool j_is_alpha(int32_t c);
bool j_is_decimal(int32_t c);
int j_decimal_value(int32_t c); /* of one of these */
bool j_is_digit(int32_t c);
bool j_is_numeric(int32_t c);
bool j_is_printable(int32_t c);
bool j_is_word(int32_t c); /* \w */
bool j_is_upper(int32_t c);
bool j_is_lower(int32_t c);
bool j_is_title(int32_t c);
bool j_is_cased(int32_t c);
size_t j_to_upper(int32_t c, int32_t out[3]);
size_t j_to_lower(int32_t c, int32_t out[3]);
size_t j_lower_at(am_str s, size_t at, int32_t out[3]);
size_t j_to_title(int32_t c, int32_t out[3]);
size_t j_casefold(int32_t c, int32_t out[3]);
bool j_utf8_valid(am_str s, size_t *bad_at);

/* jinja_ops.c */
bool j_arith(jrender *r, jop op, jv a, jv b, jv *out);
bool j_negate(jrender *r, jv v, bool minus, jv *out);
bool j_compare(jrender *r, jop op, jv a, jv b, bool *out);
bool j_getattr(jrender *r, jv obj, const jstr *name, jv *out); /* obj.name */
bool j_getitem(jrender *r, jv obj, jv key, jv *out);           /* obj[key] */
bool j_slice(jrender *r, jv obj, const jv part[3], jv *out);
bool j_const_slice(jrender *r, jv obj, const jv part[3], jv *out);
bool j_python_getattr(jrender *r, jv obj, const jstr *name, jv *out); /* J_MISSING: AttributeError */

/* jinja_eval.c */
bool j_eval(jrender *r, const jnode *n, jv *out);
bool j_run(jrender *r, const jbody *body);
bool j_assign(jrender *r, const jnode *target, jv v);
bool j_set_var(jrender *r, uint32_t atom, jv v);
bool j_frame_set(jrender *r, jframe *f, uint32_t atom, jv v);

/* jinja_loop.c */
bool j_run_for(jrender *r, const jnode *n);
bool j_loop_call(jrender *r, jloop *loop, jv iterable, jv *out);
bool j_loop_attr(jrender *r, jloop *loop, const jstr *name, jv *out); /* J_MISSING: no such attribute */

/* jinja_call.c */
bool j_call(jrender *r, jv f, const jargs *args, jv *out);
bool j_bind(jrender *r, const jfunc *f, const jargs *args, jv arg[JP_MAX]);
bool j_call_func(jrender *r, const jfunc *f, jv self, const jargs *args, jv *out);
bool j_eval_args(jrender *r, const jargnodes *n, jargs *out);
bool j_capture(jrender *r, const jbody *body, jframe *frame, jv *out);
/* jinja_macro.c */
bool j_macro_call(jrender *r, jmacro *m, const jargs *args, jv *out);
bool j_run_callblock(jrender *r, const jnode *n);
/* jinja_block.c */
bool j_run_block(jrender *r, const jnode *n);
bool j_call_block(jrender *r, const jblock *block, jv *out);
bool j_self(jrender *r, jv *out);
bool j_super(jrender *r, const jnode *block, jv *out);
bool j_self_attr(jrender *r, const jblock *self, const jstr *name, jv *out); /* J_MISSING: no such block */
bool j_block_attr(jrender *r, const jblock *block, am_str name, jv *out);
/* jinja_globals.c */
bool j_set_globals(jrender *r);
const jfunc *j_find(const jfunc *table, size_t n, am_str name);
extern const jfunc j_cycler_methods[2];

/* jinja_filters.c, jinja_tests.c, jinja_methods.c */
const jfunc *j_filter_find(am_str name);
const jfunc *j_test_find(am_str name);
const jfunc *j_str_method(am_str name);
const jfunc *j_list_method(am_str name, bool tuple);
const jfunc *j_range_method(am_str name);
const jfunc *j_dict_method(am_str name);
const jfunc *j_number_method(am_str name, bool is_float);
const jfunc *j_text_filter(am_str name); /* jinja_textfilters.c */
const jfunc *j_seq_filter(am_str name);  /* jinja_seqfilters.c */
jfunc_fn j_pprint, j_wordwrap, j_urlize; /* jinja_pprint.c, jinja_wrap.c */
bool j_apply_filter(jrender *r, const jnode *n, jv subject, jv *out);
bool j_apply_test(jrender *r, const jfunc *test, jv subject, const jargs *args, bool *out);
bool j_arg_int(jrender *r, jv v, int64_t *out); /* TypeError unless an int */
bool j_operand_int(jrender *r, jv v, int64_t *out); /* the same where Python calculates with it, which undefined refuses itself */
bool j_times(jrender *r, jv v, int64_t *out);       /* the same of ' ' * v */
bool j_python_number(jrender *r, bool as_float, jv v, jv *out); /* int(v) or float(v), with Python's errors */
bool j_attr_path(jrender *r, jv attribute, const jv **path, size_t *n);
bool j_walk_path(jrender *r, jv item, const jv *path, size_t n, jv dflt, jv *out);
bool j_ignore_case(jrender *r, jv v, jv *out);
bool j_lower_str(jrender *r, const jstr *s, const jstr **out);
bool j_map_case(jrender *r, const jstr *s, size_t (*map)(int32_t, int32_t[3]), jv *out);
bool j_strip(jrender *r, const jstr *s, jv chars, int sides, jv *out); /* 1 left, 2 right, 3 both */
bool j_replace(jrender *r, const jstr *s, const jstr *old, const jstr *new_, int64_t count, jv *out);
bool j_splitlines(jrender *r, const jstr *s, bool keep, jlist **out);
bool j_pad(jrender *r, const jstr *s, int64_t width, const jstr *fill, int side, jv *out); /* 0 center, 1 ljust, 2 rjust */
bool j_escape(jrender *r, const jstr *s, jv *out);

/* jinja_lex.c, jinja_parse.c, jinja_expr.c: see jinja_parse_int.h */
am_status j_parse(am_template *t, am_str source, am_error *err);

#endif
