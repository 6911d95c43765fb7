/* Owns how a rendering ends early: Python's errors worded as Python words them (with the template's line in front), and the
 * limits, which are ours. The first error stays; later ones on the way out are not recorded. */
#include "text/jinja_int.h"

#include <stdarg.h>
#include <stdio.h>

/* A message cut to its buffer may end within a character: that goes too. */
static void cut_clean(am_error *err) {
    if (!err) return;
    size_t n = strlen(err->message), at = n, bad;
    if (n + 1 < sizeof err->message) return;
    for (int i = 0; i < 4 && at > 0 && (err->message[at - 1] & 0xc0) == 0x80; i++) at--;
    if (at > 0) at--;
    if (!j_utf8_valid((am_str){err->message + at, n - at}, &bad)) err->message[at] = 0;
}

bool j_fail(jrender *r, const char *type, const char *format, ...) {
    if (r->status) return false;
    char text[sizeof r->err->message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->status = am_fail(r->err, AM_EFORMAT, "line %u: %s: %s", r->line, type, text);
    cut_clean(r->err);
    return false;
}

bool j_fail_instead(jrender *r, const char *type, const char *other, const char *text) {
    const char *said = r->err ? strstr(r->err->message, ": ") : NULL;
    if (r->status != AM_EFORMAT || !said || strncmp(said + 2, type, strlen(type)) != 0) return false;
    r->status = AM_OK;
    return j_fail(r, other, "%s", text);
}

bool j_raise(jrender *r, am_str text) {
    if (r->status) return false;
    r->status = am_fail(r->err, AM_EINVAL, "%.*s", (int)(text.n < sizeof r->err->message ? text.n : sizeof r->err->message), text.p);
    cut_clean(r->err);
    return false;
}

bool j_limit(jrender *r, const char *format, ...) {
    if (r->status) return false;
    char text[200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->status = am_fail(r->err, AM_ELIMIT, "line %u: the template %s", r->line, text);
    return false;
}

bool j_no_memory(jrender *r) {
    if (!r->status) r->status = am_fail(r->err, AM_ENOMEM, "no memory to render the template");
    return false;
}

void *j_alloc(jrender *r, size_t n_bytes) {
    void *p = am_arena_alloc(r->arena, n_bytes);
    if (p) return p;
    size_t used = am_arena_used(r->arena), max = r->limits.max_memory_bytes;
    if (used >= max || n_bytes + 15 > max - used)
        j_limit(r, "needs more than %zu bytes of memory", max);
    else
        j_no_memory(r);
    return NULL;
}

bool j_charge(jrender *r, uint64_t steps) {
    if (steps <= r->limits.max_steps - r->steps) {
        r->steps += steps;
        return true;
    }
    r->steps = r->limits.max_steps;
    return j_limit(r, "takes more than %llu steps", (unsigned long long)r->limits.max_steps);
}

/* Expressions and statements nest in C's stack; a macro's call costs several levels, hence the factor. */
enum { LEVELS_PER_CALL = 8 };

bool j_enter(jrender *r) {
    if (r->depth >= r->limits.max_depth * LEVELS_PER_CALL) return j_limit(r, "nests too deeply");
    r->depth++;
    return j_charge(r, 1) || (r->depth--, false);
}

void j_leave(jrender *r) { r->depth--; }

static const char *undef_text(jrender *r, const jundef *u) {
    if (u->kind == JU_HINT) return u->hint;
    const char *name = j_repr_c(r, u->name);
    char *text = j_alloc(r, 400);
    if (!text) return "undefined";
    if (u->kind == JU_NAME) {
        snprintf(text, 400, "%s is undefined", name);
    } else {
        const char *type = u->obj.t == J_NONE ? "None" : j_type_name(u->obj);
        const char *module = u->obj.t == J_NAMESPACE || u->obj.t == J_CYCLER || u->obj.t == J_JOINER ? "jinja2.utils."
                             : u->obj.t == J_MACRO || u->obj.t == J_LOOP || u->obj.t == J_SELF || u->obj.t == J_BLOCK                             ? "jinja2.runtime."
                                                                                                     : "";
        if (u->obj.t == J_STR && u->obj.s->markup) module = "markupsafe.";
        const char *object = u->obj.t == J_NONE ? "" : " object";
        if (u->name.t == J_STR)
            snprintf(text, 400, "'%s%s%s' has no attribute %s", module, type, object, name);
        else
            snprintf(text, 400, "%s%s%s has no element %s", module, type, object, name);
    }
    return text;
}

bool j_undefined_error(jrender *r, jv undef) {
    if (undef.undef->instead) return j_fail(r, "TypeError", "%s", undef.undef->instead);
    return j_fail(r, undef.undef->security ? "SecurityError" : "UndefinedError", "%s", undef_text(r, undef.undef));
}

const char *j_type_name(jv v) {
    static const char *const name[] = {
        [J_MISSING] = "missing", [J_UNDEF] = "Undefined",  [J_NONE] = "NoneType",
        [J_BOOL] = "bool",       [J_INT] = "int",          [J_FLOAT] = "float",
        [J_STR] = "str",         [J_LIST] = "list",        [J_TUPLE] = "tuple",
        [J_DICT] = "dict",       [J_VIEW] = "dict_keys",   [J_RANGE] = "range",
        [J_GEN] = "generator",   [J_NAMESPACE] = "Namespace", [J_MACRO] = "Macro",
        [J_FUNC] = "function",   [J_METHOD] = "builtin_function_or_method", [J_LOOP] = "LoopContext",
        [J_CYCLER] = "Cycler",   [J_JOINER] = "Joiner",    [J_SELF] = "TemplateReference",
        [J_BLOCK] = "BlockReference"};
    if (v.t == J_VIEW) return v.view->kind == JV_KEYS ? "dict_keys" : v.view->kind == JV_VALUES ? "dict_values" : "dict_items";
    if (v.t == J_GEN) return v.gen->name;
    if (v.t == J_STR && v.s->markup) return "Markup";
    return name[v.t];
}

const char *j_repr_c(jrender *r, jv v) {
    if (r->status) return "";
    jout out;
    j_out_init(r, &out);
    const jstr *s = j_write_repr(r, &out, v, 0) ? j_out_finish(r, &out) : NULL;
    if (!s) {
        j_out_free(&out);
        return "?";
    }
    char *p = j_alloc(r, s->n + 1);
    if (!p) return "?";
    memcpy(p, s->p, s->n);
    return p;
}
