/* Owns blocks. There is no inheritance here (extends has no loader), so a block is shown where it stands, and again by self.name(). It sees the top level
 * alone; a scoped one sees where it stands, and so do the blocks in it. */
#include "text/jinja_int.h"

#include <stdio.h>

static bool run(jrender *r, const jnode *n, jframe *context) {
    jframe *frame = j_alloc(r, sizeof *frame), *outer = r->frame, *outer_context = r->context;
    const jnode *outer_block = r->block;
    if (!frame) return false;
    frame->up = context;
    r->frame = frame;
    r->context = context;
    r->block = n;
    bool ok = j_run(r, &n->body);
    r->frame = outer;
    r->context = outer_context;
    r->block = outer_block;
    return ok;
}

static const char *named(jrender *r, const char *before, const jnode *block, const char *after) {
    const char *name = j_repr_c(r, jv_str(r->t->atom[block->atom]));
    size_t n = strlen(before) + strlen(name) + strlen(after) + 1;
    char *text = j_alloc(r, n);
    if (text) snprintf(text, n, "%s%s%s", before, name, after);
    return text ? text : "";
}

bool j_run_block(jrender *r, const jnode *n) {
    if (n->n) return j_fail(r, "TemplateRuntimeError", "%s", named(r, "Required block ", n, " not found"));
    return run(r, n, n->flag ? r->frame : r->context);
}

bool j_call_block(jrender *r, const jblock *block, jv *out) {
    if (r->calls >= r->limits.max_depth) return j_limit(r, "calls blocks more than %u levels deep", r->limits.max_depth);
    jout text, *outer = r->out;
    uint32_t line = r->line;
    j_out_init(r, &text);
    r->out = &text;
    r->calls++;
    bool ok = run(r, block->node, block->context);
    r->calls--;
    r->out = outer;
    if (ok) {
        r->line = line;
        return j_out_value(r, &text, out) && (!r->autoescape || j_mark_up(r, out));
    }
    j_out_free(&text);
    return false;
}

static bool reference(jrender *r, jtype type, jblock b, jv *out) {
    jblock *p = j_alloc(r, sizeof *p);
    if (!p) return false;
    *p = b;
    *out = (jv){.t = type, .block = p};
    return true;
}

bool j_self(jrender *r, jv *out) { return reference(r, J_SELF, (jblock){NULL, r->context}, out); }

bool j_super(jrender *r, const jnode *block, jv *out) {
    return jv_undef_hint(r, named(r, "there is no parent block called ", block, "."), out);
}

bool j_self_attr(jrender *r, const jblock *self, const jstr *name, jv *out) {
    for (uint32_t i = 0; i < r->t->n_block; i++) {
        const jnode *n = r->t->block[i];
        if (j_str_eq(r->t->atom[n->atom], (am_str){name->p, name->n})) return reference(r, J_BLOCK, (jblock){n, self->context}, out);
    }
    return true;
}

bool j_block_attr(jrender *r, const jblock *block, am_str name, jv *out) {
    if (am_str_eq(name, AM_STR("super"))) return j_super(r, block->node, out);
    if (am_str_eq(name, AM_STR("name"))) *out = jv_str(r->t->atom[block->node->atom]);
    return true;
}
