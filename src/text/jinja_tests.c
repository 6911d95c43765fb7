/* Owns the tests after `is` (and those select and reject call by name). */
#include "text/jinja_int.h"

#define TEST(name, condition)                                                                                                     \
    static bool name(jrender *r, jv v, jv *arg, jv *out) {                                                                        \
        (void)r, (void)v, (void)arg;                                                                                              \
        *out = jv_bool(condition);                                                                                                \
        return true;                                                                                                              \
    }

TEST(is_defined, v.t != J_UNDEF)
TEST(is_undefined, v.t == J_UNDEF)
TEST(is_none, v.t == J_NONE)
TEST(is_boolean, v.t == J_BOOL)
TEST(is_false, v.t == J_BOOL && !v.b)
TEST(is_true, v.t == J_BOOL && v.b)
TEST(is_integer, v.t == J_INT || (v.t == J_STR && v.s->number))
TEST(is_float, v.t == J_FLOAT)
TEST(is_string, v.t == J_STR && !v.s->number)
TEST(is_mapping, v.t == J_DICT)
TEST(is_number, jv_is_number(v) || (v.t == J_STR && v.s->number))
TEST(is_sequence, v.t == J_STR || jv_has_list(v) || v.t == J_DICT || v.t == J_RANGE || v.t == J_UNDEF)
TEST(is_iterable, v.t == J_STR || jv_has_list(v) || v.t == J_DICT || v.t == J_RANGE || v.t == J_UNDEF || v.t == J_VIEW || v.t == J_GEN ||
                      v.t == J_LOOP)
TEST(is_callable, v.t == J_MACRO || v.t == J_FUNC || v.t == J_METHOD || v.t == J_LOOP || v.t == J_JOINER || v.t == J_BLOCK || v.t == J_UNDEF)
TEST(is_escaped, v.t == J_STR && v.s->markup)
TEST(is_sameas, jv_same(v, arg[0]))

static bool remainder_is(jrender *r, jv v, int64_t by, int64_t wanted, jv *out) {
    jv rest;
    if (!j_arith(r, JO_MOD, v, jv_int(by), &rest)) return false;
    *out = jv_bool(jv_is_number(rest) && jv_to_float(rest) == (double)wanted);
    return true;
}
static bool is_odd(jrender *r, jv v, jv *arg, jv *out) {
    (void)arg;
    return remainder_is(r, v, 2, 1, out);
}
static bool is_even(jrender *r, jv v, jv *arg, jv *out) {
    (void)arg;
    return remainder_is(r, v, 2, 0, out);
}
static bool is_divisibleby(jrender *r, jv v, jv *arg, jv *out) {
    jv rest;
    if (!j_arith(r, JO_MOD, v, arg[0], &rest)) return false;
    *out = jv_bool(jv_is_number(rest) && jv_to_float(rest) == 0);
    return true;
}

static bool is_cased(jrender *r, jv v, bool (*wanted)(int32_t), jv *out) {
    const jstr *s;
    bool any = false, all = true;
    if (!j_str_of(r, v, &s)) return false;
    for (size_t i = 0, used; i < s->n; i += used) {
        int32_t c = j_decode(s->p + i, s->n - i, &used);
        if (!j_is_cased(c)) continue;
        any |= wanted(c);
        all &= wanted(c);
    }
    *out = jv_bool(any && all);
    return true;
}
static bool is_lower(jrender *r, jv v, jv *arg, jv *out) {
    (void)arg;
    return is_cased(r, v, j_is_lower, out);
}
static bool is_upper(jrender *r, jv v, jv *arg, jv *out) {
    (void)arg;
    return is_cased(r, v, j_is_upper, out);
}

static bool compared(jrender *r, jop op, jv a, jv b, jv *out) {
    bool yes;
    if (!j_compare(r, op, a, b, &yes)) return false;
    *out = jv_bool(yes);
    return true;
}
static bool is_eq(jrender *r, jv v, jv *arg, jv *out) { return compared(r, JO_EQ, v, arg[0], out); }
static bool is_ne(jrender *r, jv v, jv *arg, jv *out) { return compared(r, JO_NE, v, arg[0], out); }
static bool is_lt(jrender *r, jv v, jv *arg, jv *out) { return compared(r, JO_LT, v, arg[0], out); }
static bool is_le(jrender *r, jv v, jv *arg, jv *out) { return compared(r, JO_LE, v, arg[0], out); }
static bool is_gt(jrender *r, jv v, jv *arg, jv *out) { return compared(r, JO_GT, v, arg[0], out); }
static bool is_ge(jrender *r, jv v, jv *arg, jv *out) { return compared(r, JO_GE, v, arg[0], out); }
static bool is_in(jrender *r, jv v, jv *arg, jv *out) { return compared(r, JO_IN, v, arg[0], out); }

/* Both look the value up in a dict, which asks for its hash. */
static bool is_filter(jrender *r, jv v, jv *arg, jv *out) {
    uint64_t hash;
    (void)arg;
    *out = jv_bool(v.t == J_STR && j_filter_find((am_str){v.s->p, v.s->n}));
    return jv_hash(r, v, &hash);
}
static bool is_test(jrender *r, jv v, jv *arg, jv *out) {
    uint64_t hash;
    (void)arg;
    *out = jv_bool(v.t == J_STR && j_test_find((am_str){v.s->p, v.s->n}));
    return jv_hash(r, v, &hash);
}

#define ONE(n, f) {.name = n, .pyname = "test_" n, .fn = f}
#define TWO(n, f) {.name = n, .pyname = n, .fn = f, .params = "other", .n_required = 1, .no_keywords = true}

static const jfunc tests[] = {
    ONE("defined", is_defined), ONE("undefined", is_undefined), ONE("none", is_none), ONE("boolean", is_boolean),
    ONE("false", is_false), ONE("true", is_true), ONE("integer", is_integer), ONE("float", is_float), ONE("string", is_string),
    ONE("mapping", is_mapping), ONE("number", is_number), ONE("sequence", is_sequence), ONE("iterable", is_iterable),
    ONE("callable", is_callable), ONE("escaped", is_escaped), ONE("lower", is_lower), ONE("upper", is_upper), ONE("odd", is_odd),
    ONE("even", is_even), ONE("filter", is_filter), ONE("test", is_test),
    {.name = "divisibleby", .pyname = "test_divisibleby", .fn = is_divisibleby, .params = "num", .n_required = 1},
    {.name = "sameas", .pyname = "test_sameas", .fn = is_sameas, .params = "other", .n_required = 1},
    {.name = "in", .pyname = "test_in", .fn = is_in, .params = "seq", .n_required = 1},
    TWO("==", is_eq), TWO("eq", is_eq), TWO("equalto", is_eq), TWO("!=", is_ne), TWO("ne", is_ne), TWO(">", is_gt), TWO("gt", is_gt),
    TWO("greaterthan", is_gt), TWO("ge", is_ge), TWO(">=", is_ge), TWO("<", is_lt), TWO("lt", is_lt), TWO("lessthan", is_lt),
    TWO("<=", is_le), TWO("le", is_le)};

const jfunc *j_test_find(am_str name) { return j_find(tests, sizeof tests / sizeof *tests, name); }

bool j_apply_test(jrender *r, const jfunc *test, jv subject, const jargs *args, bool *out) {
    jv v;
    if (!j_call_func(r, test, subject, args, &v)) return false;
    *out = jv_truth(v);
    return true;
}
