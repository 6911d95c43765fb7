/* text/template.h: which bytes of a rendered text count as the user's. In the expectations [ and ] stand where a range begins
 * and ends; the texts themselves have none. */
#include "base/json.h"
#include "text/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char *marked(const am_rendered *r) {
    char *p = malloc(r->text.n + 2 * r->n_input + 1), *at = p;
    size_t k = 0;
    for (size_t i = 0; i <= r->text.n; i++) {
        if (k < r->n_input && i == r->input[k].end) {
            *at++ = ']';
            k++;
        }
        if (k < r->n_input && i == r->input[k].begin) *at++ = '[';
        if (i < r->text.n) *at++ = r->text.p[i];
    }
    *at = 0;
    return p;
}

static const char context_text[] =
    "{\"u\": \"hi <you>\", \"v\": \"<|im_end|>\", \"w\": \" a b \", \"n\": 7, \"e\": \"\", \"list\": [\"x\", \"y\"], \"d\": {\"k\": \"v\", \"n\": 1.5},"
    " \"bos_token\": \"<s>\", \"uni\": \"\xc3\x84\xc3\x9f\", \"obj\": {\"q\": \"say \\\"<|x|>\\\"\"},"
    " \"messages\": [{\"role\": \"user\", \"content\": \"one\"}, {\"role\": \"<|im_end|>\", \"content\": \"two\"}, {\"role\": \"im_end\", \"content\": \"\"}]}";

static const struct {
    const char *source, *want;
} cases[] = {
    {"a{{ u }}b", "a[hi <you>]b"},
    {"{{ u }}{{ v }}", "[hi <you><|im_end|>]"},
    {"{{ bos_token }}{{ u }}", "<s>[hi <you>]"},
    {"{{ '<|' + u + '|>' }}", "<|[hi <you>]|>"},
    {"{{ '<' ~ u ~ v ~ '>' ~ 1 }}", "<[hi <you><|im_end|>]>1"},
    {"{{ n }}{{ e }}{{ true }}{{ nothing }}", "7True"},
    {"{{ u[3:] }}{{ ('a' + u)[:3] }}{{ u[0] }}{{ ('a' + u)[0] }}", "[<you>]a[hih]a"},
    {"{{ ('ab' + u + 'cd')[1:-1] }}", "b[hi <you>]c"},
    {"{{ ('ab' + u)[::-1] }}", "[>uoy< ih]ba"},
    {"{{ u|upper }}{{ ('a' + u)|title }}{{ (u + 'A')|lower }}", "[HI <YOU>]A[hi <You>hi <you>]a"},
    {"{{ w|trim }}{{ w.strip() }}{{ ('-' + w + '-').strip('-') }}{{ w.split() }}", "[a ba b a b ]['[a]', '[b]']"},
    {"{{ ('x' + w).split(' ')|join('|') }}", "x|[a]|[b]|"},
    {"{{ u|replace('hi', 'ho') }}{{ 'hi you'|replace('you', u) }}", "ho[ <you>]hi [hi <you>]"},
    {"{{ list|join(', ') }}{{ ['a', u]|join('-') }}{{ ', '.join(list) }}", "[x], [y]a-[hi <you>x], [y]"},
    {"{{ d }}{{ list }}{{ ['t', u] }}", "{'[k]': '[v]', '[n]': 1.5}['[x]', '[y]']['t', '[hi <you>]']"},
    {"{{ d|tojson }}{{ {'t': u, 'o': 'x'}|tojson }}", "{\"[k]\": \"[v]\", \"[n]\": 1.5}{\"t\": \"[hi <you>]\", \"o\": \"x\"}"},
    {"{{ obj|tojson }}{{ obj|string }}", "{\"[q]\": \"[say \\\"<|x|>\\\"]\"}{'[q]': '[say \"<|x|>\"]'}"},
    {"{{ ('t' + u)|tojson }}", "\"[thi <you>]\""},
    {"{{ list|tojson(indent=1) }}", "[\n \"[x]\",\n \"[y]\"\n]"},
    {"{% set a %}<{{ u }}>{% endset %}{{ a }}{{ a|upper }}", "<[hi <you>]><[HI <YOU>]>"},
    {"{% macro m(x) %}<{{ x }}{{ caller() if caller }}>{% endmacro %}{{ m(u) }}{{ m('t') + v }}{% call m('q') %}{{ w }}{% endcall %}",
     "<[hi <you>]><t>[<|im_end|>]<q[ a b ]>"},
    {"{% filter upper %}a{{ u }}b{% endfilter %}", "A[HI <YOU>]B"},
    {"{% set ns = namespace(t='') %}{% for x in list %}{% set ns.t = ns.t + '<' + x + '>' %}{% endfor %}{{ ns.t }}", "<[x]><[y]>"},
    {"{% set ns = namespace(t='') %}{% for i in range(300) %}{% set ns.t = ns.t + u %}{% endfor %}{{ ns.t[-3:] + ns.t[:2] }}{{ ns.t|length }}",
     "[ou>hi]2400"},
    {"{{ '%s|%5s' % (u, 'a') }}{{ '{}<{}>'.format('t', u) }}{{ '%s'|format(v) }}", "[hi <you>]|    at<[hi <you>]>[<|im_end|>]"},
    {"{{ u|e }}{{ u|urlencode }}{{ '<b>'|e }}", "[hi &lt;you&gt;hi%20%3Cyou%3E]&lt;b&gt;"},
    {"{{ (u + '\\nx')|indent(2, true) }}", "  [hi <you>]\n  x"},
    {"{{ u.center(12) }}{{ u|truncate(6, true, '..', 0) }}", "  [hi <you>]  [hi <]..", },
    {"{{ u * 2 }}{{ 'a' * 2 }}{{ u.partition(' ') }}", "[hi <you>hi <you>]aa('[hi]', ' ', '[<you>]')"},
    {"{{ u|list }}", "['[h]', '[i]', '[ ]', '[<]', '[y]', '[o]', '[u]', '[>]']"},
    {"{{ uni|upper }}{{ uni|lower }}{{ uni|length }}", "[\xc3\x84SS\xc3\xa4\xc3\x9f]2"},
    {"{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}", "<|user|>[one]<|[<|im_end|>]|>[two]<|[im_end]|>"},
    {"{{ '%c%c' % (60, 124) }}{{ '<' }}", "[<|]<"},
    {"{{ v if v == '<|im_end|>' else '' }}{{ {'<|im_end|>': 't'}[v] }}", "[<|im_end|>]t"},
    {"{{ d.items()|list }}{{ d|dictsort }}{{ d|items|first|first }}", "[('[k]', '[v]'), ('[n]', 1.5)][('[k]', '[v]'), ('[n]', 1.5)][k]"},
};

static void what_came_from_the_context_is_marked(void **state) {
    (void)state;
    am_error err;
    json_t *context = NULL;
    assert_int_equal(am_json_parse(AM_STR(context_text), true, &context, &err), AM_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_template *t;
        am_rendered r;
        if (am_template_compile(am_str_of(cases[i].source), &t, &err) || am_template_render(t, context, NULL, 0, &r, &err))
            fail_msg("%s: %s", cases[i].source, err.message);
        char *got = marked(&r);
        if (strcmp(got, cases[i].want) != 0) fail_msg("%s\n  gave   %s\n  wanted %s", cases[i].source, got, cases[i].want);
        free(got);
        am_rendered_free(&r);
        am_template_free(t);
    }
    json_decref(context);
}

static void own_variables_win_and_are_not_input(void **state) {
    (void)state;
    am_template *t;
    am_rendered r;
    am_error err;
    json_t *own = json_pack("{s:s}", "bos_token", "<s>"), *context = json_pack("{s:s,s:s}", "bos_token", "evil", "x_token", "<|x|>");
    assert_int_equal(am_template_compile(AM_STR("{{ bos_token }}{{ x_token }}"), &t, &err), AM_OK);
    assert_int_equal(am_template_render_own(t, own, context, NULL, 0, &r, &err), AM_OK);
    char *got = marked(&r);
    assert_string_equal(got, "<s>[<|x|>]");
    free(got);
    am_rendered_free(&r);
    am_template_free(t);
    json_decref(own);
    json_decref(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_came_from_the_context_is_marked), cmocka_unit_test(own_variables_win_and_are_not_input)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
