/* Rendering for the template targets: within small limits, and a text that is what it says it is. */
#ifndef TESTS_TEMPLATE_USE_H
#define TESTS_TEMPLATE_USE_H

#include "fuzz.h"
#include "text/template.h"

static inline void template_use(am_str source, const json_t *context) {
    static const am_template_limits limits = {200 * 1000, 64, 1 << 20, 32 << 20};
    am_template *t = NULL;
    am_error err = {0};
    if (am_template_compile(source, &t, &err)) {
        fuzz_check(!t && err.message[0]);
        return;
    }
    am_rendered r;
    if (am_template_render(t, context, &limits, 1752148800, &r, &err) == AM_OK) {
        size_t end = 0;
        for (size_t i = 0; i < r.n_input; i++) {
            fuzz_check(r.input[i].begin >= end && r.input[i].begin < r.input[i].end && r.input[i].end <= r.text.n);
            end = r.input[i].end;
        }
    }
    am_rendered_free(&r);
    am_template_free(t);
}

#endif
