/* Jinja templates as transformers runs them (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loopcontrols).
 *
 * A template is compiled once and then immutable; rendering is thread-safe. Values come from JSON (jansson keeps key order
 * and the difference between integers and reals). Each string carries which of its bytes came from the context ("input") and which
 * from the template's own text; the result lists the input ranges, so that the tokenizer never reads control tokens out of what
 * a user typed. Rendering runs within limits and ends in a clear error (AM_ELIMIT) when a template is hostile. */
#ifndef AM_TEXT_TEMPLATE_H
#define AM_TEXT_TEMPLATE_H

#include "base/json.h"
#include "text/tokenizer.h"

typedef struct am_template am_template;

typedef struct am_template_limits {
    uint64_t max_steps;      /* evaluated nodes */
    uint32_t max_depth;      /* nesting of calls and of parsed expressions */
    size_t max_output_bytes;
    size_t max_memory_bytes;
} am_template_limits;
#define AM_TEMPLATE_LIMITS ((am_template_limits){50u * 1000 * 1000, 128, 64u << 20, 512u << 20})

typedef struct am_rendered {
    am_buf text;
    am_span *input; /* ascending, disjoint, merged where they touch */
    size_t n_input;
} am_rendered;
void am_rendered_free(am_rendered *rendered);

/* AM_EFORMAT names line and what was wrong, worded as jinja2 words it. */
am_status am_template_compile(am_str source, am_template **out, am_error *err);
void am_template_free(am_template *t);

/* context: a JSON object whose members are the template's variables (messages, tools, add_generation_prompt, bos_token ...).
 * AM_EINVAL carries raise_exception's text; AM_EFORMAT a runtime error with its line. now_s: seconds since 1970 for strftime_now. */
am_status am_template_render(const am_template *t, const json_t *context, const am_template_limits *limits, int64_t now_s,
                             am_rendered *out, am_error *err);

/* The same with the model's own variables (special tokens) apart: their strings are not input, and members of the context
 * cannot override them. Without them (am_template_render), top-level strings of the context called *_token are not input. */
am_status am_template_render_own(const am_template *t, const json_t *own, const json_t *context, const am_template_limits *limits,
                                 int64_t now_s, am_rendered *out, am_error *err);

#endif
