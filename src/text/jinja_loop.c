/* Owns for loops and the `loop` object. Items are taken one at a time and looked ahead only when the template asks (loop.last,
 * loop.nextitem, loop.length), as jinja2's LoopContext does: a filter on the loop may depend on what its body did before. */
#include "text/jinja_int.h"

/* The next item that passes the loop's filter. */
static int pull(jrender *r, jloop *l, jv *out) {
    int got;
    while ((got = j_next(r, &l->it, out)) > 0 && l->node->c && l->length < 0) {
        jframe frame = {.up = l->closure}, *outer = r->frame;
        jv v;
        r->frame = &frame;
        bool ok = j_assign(r, l->node->a, *out) && j_eval(r, l->node->c, &v);
        r->frame = outer;
        if (!ok) return -1;
        if (jv_truth(v)) return 1;
    }
    return got;
}

static int take(jrender *r, jloop *l, jv *out) {
    if (l->after.t != J_MISSING) {
        *out = l->after;
        l->after = (jv){.t = J_MISSING};
    } else {
        int got = pull(r, l, out);
        if (got <= 0) return got;
    }
    l->index0++;
    l->before = l->current;
    l->current = *out;
    return 1;
}

static bool peek(jrender *r, jloop *l, bool *has) {
    if (l->after.t == J_MISSING) {
        jv item;
        int got = pull(r, l, &item);
        if (got < 0) return false;
        if (got) l->after = item;
    }
    *has = l->after.t != J_MISSING;
    return true;
}

static bool length(jrender *r, jloop *l, int64_t *out) {
    if (l->length < 0 && !l->node->c && l->it.src.t != J_GEN) {
        if (!jv_length(r, l->it.src, &l->length)) return false;
    } else if (l->length < 0) {
        jlist *rest = j_list(r, 0);
        jv item;
        int got = 0;
        while (rest && (got = pull(r, l, &item)) > 0)
            if (!j_list_add(r, rest, item)) return false;
        if (!rest || got < 0) return false;
        l->length = (int64_t)rest->n + l->index0 + 1 + (l->after.t != J_MISSING);
        l->it = (jiter){.src = {.t = J_LIST, .l = rest}}; /* from here on pull() takes these, already filtered */
    }
    *out = l->length;
    return true;
}

static bool loop_frame(jrender *r, jloop *l, jframe *frame, jv item) {
    frame->n = 0;
    r->frame = frame;
    return j_frame_set(r, frame, JA_LOOP, (jv){.t = J_LOOP, .loop = l}) && j_assign(r, l->node->a, item);
}

static bool run(jrender *r, const jnode *n, jv iterable, int64_t depth0, jframe *closure) {
    jloop *l = j_alloc(r, sizeof *l);
    jframe *frame = l ? j_alloc(r, sizeof *frame) : NULL, *outer = r->frame;
    if (!frame) return false;
    *l = (jloop){.node = n, .closure = closure, .index0 = -1, .length = -1, .depth0 = depth0};
    frame->up = closure;
    if (!j_iter(r, iterable, &l->it)) return false;
    jv item;
    int got;
    while (r->line = n->line, (got = take(r, l, &item)) > 0) {
        bool ok = loop_frame(r, l, frame, item) && j_run(r, &n->body);
        r->frame = outer;
        if (!ok) return false;
        int flow = r->flow;
        r->flow = JF_NORMAL;
        if (flow == JF_BREAK) break;
    }
    if (got < 0) return false;
    if (l->index0 >= 0 || n->other.n == 0) return true;
    frame->n = 0;
    r->frame = frame;
    bool ok = j_run(r, &n->other);
    r->frame = outer;
    return ok;
}

bool j_run_for(jrender *r, const jnode *n) {
    jv iterable;
    if (!j_eval(r, n->b, &iterable)) return false;
    return run(r, n, iterable, 0, r->frame);
}

bool j_loop_call(jrender *r, jloop *l, jv iterable, jv *out) {
    if (!l->node->flag) return j_fail(r, "TypeError", "The loop must have the 'recursive' marker to be called recursively.");
    if (r->calls >= r->limits.max_depth) return j_limit(r, "recurses more than %u levels deep", r->limits.max_depth);
    jout text, *outer = r->out;
    j_out_init(r, &text);
    r->out = &text;
    r->calls++;
    bool ok = run(r, l->node, iterable, l->depth0 + 1, l->closure);
    r->calls--;
    r->out = outer;
    bool markup = l->node->escape == JE_ON || (l->node->escape == JE_ASK && r->autoescape);
    if (ok) return j_out_value(r, &text, out) && (!markup || j_mark_up(r, out));
    j_out_free(&text);
    return false;
}

static bool cycle(jrender *r, jv self, const jargs *args, jv *out) {
    if (args->n == 0) return j_fail(r, "TypeError", "no items for cycling given");
    *out = args->pos[(size_t)(self.loop->index0 < 0 ? 0 : self.loop->index0) % args->n];
    return true;
}

static bool changed(jrender *r, jv self, const jargs *args, jv *out) {
    jlist *now = j_list(r, args->n);
    if (!now) return false;
    for (size_t i = 0; i < args->n; i++) now->v[now->n++] = args->pos[i];
    jv value = {.t = J_TUPLE, .l = now};
    bool same = false;
    if (self.loop->changed.t != J_MISSING && !jv_equal(r, self.loop->changed, value, &same)) return false;
    if (!same) self.loop->changed = value;
    *out = jv_bool(!same);
    return true;
}

static const jfunc methods[] = {{.name = "cycle", .pyname = "cycle", .raw = cycle}, {.name = "changed", .pyname = "changed", .raw = changed}};

static bool neighbour(jrender *r, jloop *l, bool next, jv *out) {
    bool has = l->index0 > 0;
    if (next && !peek(r, l, &has)) return false;
    if (!has) return jv_undef_hint(r, next ? "there is no next item" : "there is no previous item", out);
    *out = next ? l->after : l->before;
    return true;
}

bool j_loop_attr(jrender *r, jloop *l, const jstr *name_, jv *out) {
    enum { INDEX, INDEX0, FIRST, LAST, LENGTH, REVINDEX, REVINDEX0, DEPTH, DEPTH0, PREVITEM, NEXTITEM, N };
    static const char *const names[N] = {"index", "index0", "first", "last", "length", "revindex", "revindex0", "depth", "depth0",
                                         "previtem", "nextitem"};
    am_str name = {name_->p, name_->n};
    int which = 0;
    *out = (jv){.t = J_MISSING};
    while (which < N && !am_str_eq(name, am_str_of(names[which]))) which++;
    int64_t n = 0;
    bool has;
    switch (which) {
    case INDEX: *out = jv_int(l->index0 + 1); return true;
    case INDEX0: *out = jv_int(l->index0); return true;
    case FIRST: *out = jv_bool(l->index0 == 0); return true;
    case LAST:
        if (!peek(r, l, &has)) return false;
        *out = jv_bool(!has);
        return true;
    case LENGTH: case REVINDEX: case REVINDEX0:
        if (!length(r, l, &n)) return false;
        *out = jv_int(which == LENGTH ? n : which == REVINDEX ? n - l->index0 : n - l->index0 - 1);
        return true;
    case DEPTH: *out = jv_int(l->depth0 + 1); return true;
    case DEPTH0: *out = jv_int(l->depth0); return true;
    case PREVITEM: case NEXTITEM: return neighbour(r, l, which == NEXTITEM, out);
    default: break;
    }
    const jfunc *def = j_find(methods, 2, name);
    if (!def) return true;
    jmethod *m = j_alloc(r, sizeof *m);
    if (!m) return false;
    *m = (jmethod){{.t = J_LOOP, .loop = l}, def};
    *out = (jv){.t = J_METHOD, .method = m};
    return true;
}
