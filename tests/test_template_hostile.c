/* text/template.h against templates, contexts and luck that mean harm: each ends in an answer or a clear error, within its limits,
 * on a small stack, also when memory runs out at any one allocation. */
#include "text_truth.h"

#include "base/fault.h"
#include "base/json.h"
#include "text/template.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static am_status run(am_str source, const json_t *context, const am_template_limits *limits, am_rendered *out, am_error *err) {
    am_template *t = NULL;
    *out = (am_rendered){0};
    am_status status = am_template_compile(source, &t, err);
    if (!status) status = am_template_render(t, context, limits, 0, out, err);
    am_template_free(t);
    return status;
}

typedef struct hostile_case {
    const char *source;
    am_status status;
    const char *says; /* of an error: a part of its message; else the whole output */
} hostile_case;

static const hostile_case cases[] = {
    /* what the sandbox is for: no way from a value to its class, its module, the host */
    {"{{ ''.__class__ }}", AM_OK, ""},
    {"{{ ''.__class__.__mro__ }}", AM_EFORMAT, "SecurityError: access to attribute '__class__' of 'str' object is unsafe."},
    {"{{ ''['__class__'].__mro__ }}", AM_EFORMAT, "SecurityError"},
    {"{{ (''|attr('__class__')).__mro__ }}", AM_EFORMAT, "SecurityError"},
    {"{{ ['x']|map(attribute='__class__.__mro__')|list }}", AM_EFORMAT, "SecurityError"},
    {"{{ '{0.__class__.__mro__}'.format(1) }}", AM_EFORMAT, "SecurityError"},
    {"{{ '{0[__class__].__mro__}'.format('') }}", AM_EFORMAT, "SecurityError"},
    {"{{ cycler.__init__.__globals__.os.popen('id').read() }}", AM_EFORMAT, "SecurityError"},
    {"{{ joiner.__init__.__globals__ }}", AM_EFORMAT, "SecurityError"},
    {"{{ namespace.__init__.__globals__ }}", AM_EFORMAT, "SecurityError"},
    {"{{ lipsum.__globals__['os'] }}", AM_EFORMAT, "SecurityError"},
    {"{{ lipsum() }}", AM_EFORMAT, "lipsum makes random text"},
    {"{{ self._TemplateReference__context.vars }}", AM_EFORMAT, "SecurityError"},
    {"{% block a %}{{ self.a._context.vars }}{% endblock %}", AM_EFORMAT, "SecurityError"},
    {"{% block a %}{{ self.a() }}{% endblock %}", AM_ELIMIT, "calls blocks more than"},
    {"{% for i in range(9) %}{{ loop._iterable.x }}{% endfor %}", AM_EFORMAT, "SecurityError"},
    {"{{ ('a' * 300000)|wordwrap(1) }}", AM_ELIMIT, "steps"},
    {"{{ (range(100000)|list * 99)|pprint }}", AM_ELIMIT, "bytes of text"},
    {"{% set n = namespace(l=[]) %}{% for i in range(3000) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l|pprint }}", AM_ELIMIT, "nest"},
    {"{% set n = namespace(l=[]) %}{% for i in range(200) %}{% set n.l = ['x' * 90, n.l] %}{% endfor %}{{ n.l|pprint|length > 1000 }}", AM_OK, "True"},
    {"{{ raise_exception.__globals__['os'] }}", AM_EFORMAT, "SecurityError"},
    {"{% macro m() %}{% endmacro %}{{ m.__call__.__globals__ }}", AM_EFORMAT, "SecurityError"},
    {"{{ range.__class__.__subclasses__() }}", AM_EFORMAT, "SecurityError"},
    {"{{ [].append(1) }}", AM_EFORMAT, "SecurityError: access to attribute 'append' of 'list' object is unsafe."},
    {"{{ {}.update({}) }}", AM_EFORMAT, "SecurityError"},
    {"{{ {}.__setitem__('a', 1) }}", AM_EFORMAT, "SecurityError"},
    {"{% for f in [1]|map('attr', '__class__') %}{{ f.x }}{% endfor %}", AM_EFORMAT, "SecurityError"},
    {"{% include '/etc/passwd' %}", AM_EFORMAT, "no loader"},
    {"{% import 'os' as os %}", AM_EFORMAT, "no loader"},
    {"{% from 'os' import popen %}", AM_EFORMAT, "no loader"},
    {"{% extends 'x' %}", AM_EFORMAT, "no loader"},
    {"{% set n = namespace() %}{% set n.a, n.b = 1, 2 %}{% set x, n.c = 3, 4 %}{{ n.a }}{{ n.b }}{{ x }}{{ n.c }}", AM_OK, "1234"}, /* as of jinja2 3.1.5 */
    {"{{ ''[''] }}{{ [].x }}{{ {}[''] }}{{ 1[''] }}", AM_OK, ""},
    /* more than there is */
    {"{{ 'a' * 10**9 }}", AM_ELIMIT, "bytes of text"},
    {"{{ 'a' * 10**18 }}", AM_ELIMIT, "bytes of text"},
    {"{{ [0] * 10**12 }}", AM_ELIMIT, "repeats a list"},
    {"{{ range(10**9)|list }}", AM_EFORMAT, "Range too big"},
    {"{{ range(-9223372036854775807, 9223372036854775807)|list }}", AM_EFORMAT, "Range too big"},
    {"{{ '%1000000000d' % 1 }}", AM_ELIMIT, "bytes of text"},
    {"{{ '%*d' % (10**12, 1) }}", AM_ELIMIT, "pads a text"},
    {"{{ '{:>1000000000}'.format(1) }}", AM_ELIMIT, "bytes of text"},
    {"{{ '%99999999999999d' % 1 }}", AM_EFORMAT, "ValueError"},
    {"{{ 'a'.center(10**15) }}", AM_ELIMIT, "bytes of text"},
    {"{{ 'a'.zfill(10**15) }}", AM_ELIMIT, "bytes of text"},
    {"{{ '\\t'.expandtabs(10**15) }}", AM_ELIMIT, "bytes of text"},
    {"{{ 'a\nb'|indent(10**15) }}", AM_ELIMIT, "bytes of text"},
    {"{{ [1]|tojson(indent=10**15) }}", AM_ELIMIT, "bytes of text"},
    {"{{ [1]|batch(10**15, 'x')|list }}", AM_ELIMIT, "the template"},
    {"{{ [1]|slice(10**15)|list }}", AM_ELIMIT, "the template"},
    {"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", AM_ELIMIT, "steps"},
    {"{% set ns = namespace(x='a') %}{% for i in range(99999) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", AM_ELIMIT, "memory"},
    {"{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", AM_ELIMIT, "the template"},
    {"{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}", AM_ELIMIT, "levels deep"},
    {"{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson }}", AM_ELIMIT, "levels deep"},
    {"{% set ns = namespace(x=[],y=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% set ns.y = [ns.y] %}{% endfor %}{{ ns.x == ns.y }}", AM_ELIMIT, "deep"},
    {"{% set ns = namespace(x=(),y=()) %}{% for i in range(5000) %}{% set ns.x = (ns.x,) %}{% endfor %}{{ {ns.x: 1} }}", AM_ELIMIT, "deep"},
    {"{% set ns = namespace(x=[1]) %}{% for i in range(5000) %}{% set ns.x = ns.x|map('string') %}{% endfor %}{{ ns.x|list }}", AM_ELIMIT, "deep"},
    {"{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}", AM_ELIMIT, "levels deep"},
    {"{% set g = [1]|map('string') %}{% for x in g %}{{ g|list }}{% endfor %}", AM_OK, "[]"},
    {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", AM_ELIMIT, "macros more than"},
    {"{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}", AM_ELIMIT, "macros more than"},
    {"{% macro m() %}{% call m() %}{% endcall %}{% endmacro %}{{ m() }}", AM_EFORMAT, "two values for the special caller argument"},
    {"{% macro m() %}{% set c = caller %}{% call m() %}{{ c() }}{% endcall %}{% endmacro %}{% call m() %}{% endcall %}", AM_ELIMIT, "deep"},
    {"{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", AM_ELIMIT, "levels deep"},
    {"{% for x in [1] recursive %}{{ loop(loop) }}{% endfor %}", AM_OK, ""},
    {"{% macro m(n) %}{{ 'a' * 60000000 }}{{ m(n) }}{% endmacro %}{{ m(1) }}", AM_ELIMIT, "bytes of text"},
    {"{% set a = 'a' * 1000000 %}{% set b = 'a' * 500000 + 'b' %}{{ a.rfind(b) }}{{ a.rsplit(b) }}", AM_ELIMIT, "steps"},
    {"{% set a = 'ba' * 500000 %}{% set b = 'a' * 500000 + 'b' %}{% for i in range(1000) %}{{ (b ~ a).rfind(b) }}{% endfor %}", AM_ELIMIT, "the template"},
    {"{% set a = 'a' * 1000000 %}{% set b = 'b' + 'a' * 999999 %}{% for i in range(99999) %}{{ a.strip(b)[:0] }}{% endfor %}", AM_ELIMIT, "steps"},
    {"{{ ('<' * 1000000)|striptags|length }}", AM_ELIMIT, "steps"},
    {"{% set k = 'k' * 10000000 %}{% for i in range(99999) %}{% set d = {k: 1} %}{% endfor %}", AM_ELIMIT, "steps"},
    {"{% set a = 'a' * 10000000 %}{% set b = 'a' * 9999999 + 'a' %}{% for i in range(99999) %}{% if a != b %}{% endif %}{% endfor %}", AM_ELIMIT, "steps"},
    {"{{ 9223372036854775807 + 1 }}", AM_EFORMAT, "64 bits"},
    {"{{ -9223372036854775807 - 2 }}", AM_EFORMAT, "64 bits"},
    {"{{ (-9223372036854775807 - 1) // -1 }}", AM_EFORMAT, "64 bits"},
    {"{{ (-9223372036854775807 - 1) % -1 }}", AM_OK, "0"},
    {"{{ -(-9223372036854775807 - 1) }}", AM_EFORMAT, "64 bits"},
    {"{{ (-9223372036854775807 - 1)|abs }}", AM_EFORMAT, "64 bits"},
    {"{{ 3 ** 1000 }}", AM_EFORMAT, "64 bits"},
    {"{{ 99999999999999999999 }}", AM_EFORMAT, "64 bits"},
    {"{{ 'abc'[9223372036854775807:] }}{{ 'abc'[:-9223372036854775807] }}{{ 'abc'[::9223372036854775807] }}", AM_OK, "a"},
    {"{{ 'abc'[::-9223372036854775807] }}{{ [1,2][-9223372036854775807::-1] }}", AM_OK, "c[]"},
    {"{{ range(3)[::-1]|list }}{{ range(0)|list }}{{ range(5)[9:] }}", AM_OK, "[2, 1, 0][]range(5, 5)"},
    {"{{ ''.join([]) }}{{ ''.split() }}{{ ''|title }}{{ ''|first }}{{ ''|wordcount }}{{ ''|indent }}", AM_OK, "[]0"},
    {"{{ 1|round(10**9) }}{{ 1.5|round(-10**9) }}{{ 1.5|round(10**9) }}", AM_OK, "10.01.5"},
    {"{{ 1 if }}", AM_EFORMAT, "TemplateSyntaxError"},
    {"{% if %}", AM_EFORMAT, "TemplateSyntaxError"},
    {"{% for x in y %}", AM_EFORMAT, "line 1: TemplateSyntaxError: Unexpected end of template."},
    {"\n\n{{ x.y.z }}", AM_EFORMAT, "line 3: UndefinedError: 'x' is undefined"},
    {"{{ raise_exception('no ' ~ 1) }}", AM_EINVAL, "no 1"},
    {"\xff", AM_EFORMAT, "not UTF-8 at byte 0"},
};

/* What went wrong, NULL when nothing did: cmocka cannot fail from another thread. */
static const char *run_cases(void) {
    static char wrong[2000];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_rendered out;
        am_error err = {0};
        am_status status = run(am_str_of(cases[i].source), NULL, NULL, &out, &err);
        bool ok = status == cases[i].status;
        if (ok && cases[i].says) ok = status ? strstr(err.message, cases[i].says) != NULL : strcmp(out.text.p, cases[i].says) == 0;
        if (!ok) snprintf(wrong, sizeof wrong, "%s\n  gave %d: %s", cases[i].source, status, status ? err.message : out.text.p);
        am_rendered_free(&out);
        if (!ok) return wrong;
    }
    return NULL;
}

static void hostile_templates_end_clearly(void **state) {
    (void)state;
    const char *wrong = run_cases();
    if (wrong) fail_msg("%s", wrong);
}

/* Sources made by repeating one piece: deep nesting and long chains. */
static const struct {
    const char *begin, *unit, *middle, *back, *end;
    int times;
    am_status status; /* AM_N_STATUS: any */
} repeated[] = {
    {"{{ ", "(", "1", ")", " }}", 100, AM_OK},
    {"{{ ", "(", "1", ")", " }}", 100000, AM_N_STATUS},
    {"{{ ", "[", "", "]", " }}", 1000000, AM_N_STATUS},
    {"{{ ", "{1:", "1", "}", " }}", 1000, AM_N_STATUS},
    {"{{ ", "not ", "1", "", " }}", 100000, AM_ELIMIT},
    {"{{ ", "-", "1", "", " }}", 100000, AM_ELIMIT},
    {"{{ ", "1 if 1 else ", "1", "", " }}", 100000, AM_ELIMIT},
    {"{{ ", "f(", "1", ")", " }}", 1000, AM_N_STATUS},
    {"{{ ", "a[", "1", "]", " }}", 1000, AM_N_STATUS},
    {"{{ ", "'a' + ", "'a'", "", " }}", 20000, AM_OK},
    {"{{ ", "'a' ~ ", "'a'", "", " }}", 20000, AM_OK},
    {"{{ ", "1 and ", "1", "", " }}", 100000, AM_OK},
    {"{{ ", "1 < ", "1", "", " }}", 100000, AM_OK},
    {"{{ 'a'", "|upper", "", "", " }}", 300, AM_OK},
    {"{{ 'a'", "|upper", "", "", " }}", 100000, AM_ELIMIT},
    {"{{ x", ".a", "", "", " is defined }}", 100000, AM_N_STATUS},
    {"{{ x", "[0]", "", "", " }}", 100000, AM_N_STATUS},
    {"{{ x", "()", "", "", " }}", 100000, AM_N_STATUS},
    {"{{ 1", " is odd", "", "", " }}", 100000, AM_EFORMAT},
    {"", "{% if 1 %}", "x", "{% endif %}", "", 100, AM_OK},
    {"", "{% if 1 %}", "x", "{% endif %}", "", 10000, AM_ELIMIT},
    {"", "{% for i in [1] %}", "x", "{% endfor %}", "", 10000, AM_ELIMIT},
    {"", "{% set x %}", "x", "{% endset %}", "", 10000, AM_ELIMIT},
    {"", "{% filter upper %}", "x", "{% endfilter %}", "", 100, AM_OK},
    {"{% set y", "|upper", " %}a{% endset %}{{ y }}", "", "", 10000, AM_ELIMIT},
    {"{% if 0 %}", "{% elif 0 %}", "{% endif %}", "", "", 50000, AM_OK},
    {"", "{% set x = 1 %}", "", "", "", 50000, AM_OK},
    {"", "{{", "", "", "", 500000, AM_ELIMIT},
    {"", "{%", "", "", "", 500000, AM_EFORMAT},
    {"", "{#", "", "", "", 500000, AM_EFORMAT},
    {"", "{% raw %}", "", "", "", 100000, AM_EFORMAT},
    {"{{ '", "\\", "", "", "", 500001, AM_EFORMAT},
    {"{{ '", "\\\\", "' }}", "", "", 500000, AM_OK},
    {"", "\n", "", "", "", 1000000, AM_OK},
    {"", " ", "{%- if 1 %}{% endif -%}", " ", "", 1000000, AM_OK},
    {"{% macro m(", "a", "=1) %}{% endmacro %}", "", "", 100000, AM_OK},
    {"{% for ", "(a, ", "b", ")", " in [] %}{% endfor %}", 500, AM_ELIMIT},
};

static void *repeat_all(void *arg) {
    static char wrong[700];
    (void)arg;
    for (size_t i = 0; i < sizeof repeated / sizeof *repeated; i++) {
        am_buf source;
        am_rendered out;
        am_error err = {0};
        am_buf_init(&source, 64u << 20);
        am_buf_add(&source, am_str_of(repeated[i].begin));
        for (int k = 0; k < repeated[i].times; k++) am_buf_add(&source, am_str_of(repeated[i].unit));
        am_buf_add(&source, am_str_of(repeated[i].middle));
        for (int k = 0; k < repeated[i].times; k++) am_buf_add(&source, am_str_of(repeated[i].back));
        am_buf_add(&source, am_str_of(repeated[i].end));
        am_status status = run(am_buf_str(&source), NULL, NULL, &out, &err);
        am_rendered_free(&out);
        am_buf_free(&source);
        if (repeated[i].status == AM_N_STATUS || status == repeated[i].status) continue;
        snprintf(wrong, sizeof wrong, "%d times %s gave %d: %s", repeated[i].times, repeated[i].unit, status, err.message);
        return wrong;
    }
    return (void *)run_cases();
}

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { STACK_BYTES = 16 << 20 };
#else
enum { STACK_BYTES = 512 << 10 };
#endif

static void deep_and_long_sources_fit_a_small_stack(void **state) {
    (void)state;
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    assert_int_equal(pthread_create(&thread, &attr, repeat_all, NULL), 0);
    void *wrong;
    pthread_join(thread, &wrong);
    pthread_attr_destroy(&attr);
    if (wrong) fail_msg("%s", (const char *)wrong);
}

static void deep_context_is_bounded(void **state) {
    (void)state;
    json_t *deep = json_array();
    for (int i = 0; i < 1900; i++) deep = json_pack("[o]", deep);
    json_t *context = json_pack("{s:o}", "x", deep);
    am_rendered out;
    am_error err;
    assert_int_equal(run(AM_STR("{{ x }}"), context, NULL, &out, &err), AM_ELIMIT);
    assert_int_equal(run(AM_STR("{{ y }}"), context, NULL, &out, &err), AM_OK); /* what is not used is not looked at */
    am_rendered_free(&out);
    json_decref(context);
}

static void limits_of_the_caller_hold(void **state) {
    (void)state;
    am_template_limits l = AM_TEMPLATE_LIMITS;
    am_rendered out;
    am_error err;
    l.max_steps = 100;
    assert_int_equal(run(AM_STR("{% for i in range(1000) %}{% endfor %}"), NULL, &l, &out, &err), AM_ELIMIT);
    assert_non_null(strstr(err.message, "100 steps"));
    l = AM_TEMPLATE_LIMITS;
    l.max_output_bytes = 10;
    assert_int_equal(run(AM_STR("0123456789"), NULL, &l, &out, &err), AM_OK);
    am_rendered_free(&out);
    assert_int_equal(run(AM_STR("0123456789a"), NULL, &l, &out, &err), AM_ELIMIT);
    l = AM_TEMPLATE_LIMITS;
    l.max_memory_bytes = 100000;
    assert_int_equal(run(AM_STR("{{ range(10000)|list }}"), NULL, &l, &out, &err), AM_ELIMIT);
    assert_non_null(strstr(err.message, "100000 bytes of memory"));
    l = AM_TEMPLATE_LIMITS;
    l.max_depth = 3;
    am_str macro = AM_STR("{% macro m(n) %}{{ n }}{{ m(n - 1) if n else '' }}{% endmacro %}{{ m(2) }}");
    assert_int_equal(run(macro, NULL, &l, &out, &err), AM_OK);
    assert_string_equal(out.text.p, "210");
    am_rendered_free(&out);
    l.max_depth = 2;
    assert_int_equal(run(macro, NULL, &l, &out, &err), AM_ELIMIT);
}

static const char everything[] =
    "{% macro m(a, b=2) %}{{ a ~ b }}{{ caller(1) if caller else varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, c=4) }}{% call(u) m(1) %}{{ u }}{% endcall %}"
    "{% set ns = namespace(x='', l=[]) %}{% for k, v in messages[0]|dictsort recursive %}{{ loop.index }}{{ loop.nextitem }}{% set ns.x = ns.x + v %}{% else %}{% endfor %}"
    "{{ ns.x|upper|replace('H', 'hh')|title }}{{ messages|tojson(indent=2) }}{{ messages|map(attribute='content')|unique|list }}{{ messages }}"
    "{{ '%s|%5.2f' % ('a', 2.5) }}{{ '{:>5}{a!r}'.format(1, a='x') }}{{ [3, 1, 2]|sort|join(',') }}{{ {'a': 1, 'b': {1: 2}, 'c': 3, 'd': 4, 'e': 5, 'f': 6, 'g': 7, 'h': 8, 'i': 9} }}"
    "{% set z %}{{ messages[0].content.split() }}{% endset %}{{ z[1:-1:2] }}{% filter trim|upper %} x {% endfilter %}{{ dict(a=1)|items|list }}{{ messages|groupby('role') }}"
    "{% block b scoped %}{{ messages|pprint }}{{ super is defined }}{% endblock %}{{ self.b()|wordwrap(9) }}{% autoescape true %}{{ messages[0].content ~ '<' }}{{ 'www.x.org a@b.cd'|urlize(3, rel='x') }}"
    "{{ ['<', '<'|safe]|join('&') }}{{ '%s'|safe % '<' }}{% endautoescape %}{{ 'abc'.translate('abc'.maketrans('a', 'é', 'c')) }}"
    "{% with q = 'é' * 3 %}{{ q[::-1] }}{% endwith %}{{ (x.y is defined) if x is defined }}{{ range(3)|batch(2, 'f')|list }}{{ cycler('a').next() }}{{ joiner()() }}{{ strftime_now('%Y') }}";

static void every_failed_allocation_is_survived(void **state) {
    (void)state;
    am_error err;
    json_t *context = NULL;
    assert_int_equal(am_json_parse(AM_STR("{\"messages\": [{\"role\": \"user\", \"content\": \"hi <there> you\"}]}"), true, &context, &err), AM_OK);
    am_status status = AM_ENOMEM;
    long n = 0;
    while (status) {
        am_rendered out;
        am_fault_alloc_at(++n);
        status = run(AM_STR(everything), context, NULL, &out, &err);
        am_fault_alloc_at(0);
        if (status && status != AM_ENOMEM) fail_msg("allocation %ld: %s", n, err.message);
        assert_true(n < 10000);
        am_rendered_free(&out);
    }
    printf("%ld allocations failed in turn\n", n - 1);
    assert_true(n > 20);
    /* and wherever the arena, which takes its memory in large pieces, may say no */
    am_template_limits limits = AM_TEMPLATE_LIMITS;
    for (limits.max_memory_bytes = 1024, status = AM_ELIMIT; status; limits.max_memory_bytes += 64) {
        am_rendered out;
        status = run(AM_STR(everything), context, &limits, &out, &err);
        if (status && status != AM_ELIMIT) fail_msg("%zu bytes: %s", limits.max_memory_bytes, err.message);
        am_rendered_free(&out);
    }
    printf("renders within %zu bytes\n", limits.max_memory_bytes);
    json_decref(context);
}

static uint64_t seed = 88172645463325252u;
static size_t below(size_t n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return n ? seed % n : 0;
}

static void mutate(am_buf *b, const char *other, size_t n_other) {
    static const char *const pieces[] = {"{{", "}}", "{%", "%}", "{#", "-", "|", "(", ")", "[", "]", "{", "}", ".", "'", "\"", "\\", "\n", "loop", "messages",
                                         " if ", " else ", " in ", " not ", "~", "+", "*", "**", "//", "%", "==", ",", ":", "0", "-1", "|tojson", "|list", "[1:]",
                                         "{% set x = 1 %}", "{% endif %}", "{% endfor %}", "{% break %}", "range(9)", "caller()", "recursive", "é", "99999999999"};
    char *copy = malloc(b->n + 1);
    size_t n = b->n, at = below(n + 1), k = at + below(n - at + 1 < 60 ? n - at + 1 : 60);
    memcpy(copy, b->p, n);
    am_buf_clear(b);
    am_buf_append(b, copy, at);
    switch (below(4)) {
    case 0: am_buf_add(b, am_str_of(pieces[below(sizeof pieces / sizeof *pieces)])); k = at; break;
    case 1: am_buf_add(b, am_str_of(pieces[below(sizeof pieces / sizeof *pieces)])); break;
    case 2: {
        size_t from = below(n_other), len = below(80);
        am_buf_append(b, other + from, from + len < n_other ? len : n_other - from);
        break;
    }
    default: break;
    }
    am_buf_append(b, copy + k, n - k);
    free(copy);
}

/* $AM_FUZZ: how many mutants (default 3000). What comes out must be UTF-8 with sound marks; what fails must say why. */
static void mutants_of_real_templates_do_no_harm(void **state) {
    (void)state;
    json_t *truth = truth_json("testdata/templates/goldens.json"), *templates = json_object_get(truth, "templates"), *entry;
    const char *sources[200], *key;
    json_t *contexts[] = {json_object_get(json_object_get(truth, "contexts"), "tool_use"), json_object_get(json_object_get(truth, "contexts"), "system")};
    size_t n = 0;
    json_object_foreach(templates, key, entry)
        if (n < 200) sources[n++] = json_string_value(json_object_get(entry, "template"));
    am_template_limits limits = {200000, 64, 4u << 20, 16u << 20};
    long rounds = getenv("AM_FUZZ") ? atol(getenv("AM_FUZZ")) : 3000, rendered = 0;
    for (long i = 0; i < rounds; i++) {
        am_buf b;
        am_rendered out;
        am_error err = {0};
        am_buf_init(&b, 1 << 20);
        am_buf_add(&b, am_str_of(sources[below(n)]));
        const char *other = sources[below(n)];
        for (size_t k = 1 + below(3); k > 0; k--) mutate(&b, other, strlen(other));
        am_status status = run(am_buf_str(&b), contexts[below(2)], &limits, &out, &err);
        if (status) {
            assert_true(err.message[0] != 0);
        } else {
            json_t *utf8 = json_stringn(out.text.p, out.text.n); /* NULL unless UTF-8 */
            assert_non_null(utf8);
            json_decref(utf8);
            for (size_t k = 0; k < out.n_input; k++) {
                assert_true(out.input[k].begin < out.input[k].end && out.input[k].end <= out.text.n);
                assert_true(k == 0 || out.input[k - 1].end < out.input[k].begin);
            }
            rendered++;
        }
        am_rendered_free(&out);
        am_buf_free(&b);
    }
    printf("%ld mutants, %ld of them rendered\n", rounds, rendered);
    json_decref(truth);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(hostile_templates_end_clearly), cmocka_unit_test(deep_and_long_sources_fit_a_small_stack),
                                       cmocka_unit_test(deep_context_is_bounded), cmocka_unit_test(limits_of_the_caller_hold),
                                       cmocka_unit_test(every_failed_allocation_is_survived), cmocka_unit_test(mutants_of_real_templates_do_no_harm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
