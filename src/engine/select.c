/* Owns passes over vocabularies of a hundred thousand tokens, which must cost next to nothing beside a forward pass.
 *
 * Plain passes work on vectors of four floats, which every machine we build for has, four of them in names of their own so that they stay in registers.
 * An order is cut by histogram: the weights of 1024 equal ranges of keys say in which range the cut lies, and only that range's members are put in
 * order (by a heap, as far as needed). So the flat distributions of hot sampling cost no more than peaked ones, and where few tokens matter
 * only their runs are read at all. Each result depends on its inputs alone. */
#include "engine/select.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef float f4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

enum { N_BINS = 1024, RUN = AM_SELECT_RUN };

typedef struct member {
    float key, w;
    uint32_t at;
} member;

struct am_select {
    double bins[N_BINS + 1]; /* the last: of keys below the floor */
    float *peak;             /* [runs of runs + 1] */
    member *members;         /* [n_most + 1] */
};

am_status am_select_create(uint32_t n_most, am_select **out, am_error *err) {
    am_select *s = am_calloc(1, sizeof *s);
    *out = NULL;
    if (s && (s->members = am_calloc((size_t)n_most + 1, sizeof *s->members)) &&
        (s->peak = am_calloc((size_t)am_select_runs(am_select_runs(n_most)) + 1, sizeof *s->peak))) {
        *out = s;
        return AM_OK;
    }
    am_select_free(s);
    return am_fail(err, AM_ENOMEM, "no memory to select from %u tokens", n_most);
}

void am_select_free(am_select *s) {
    if (!s) return;
    free(s->peak);
    free(s->members);
    free(s);
}

static inline f4 load(const float *p) {
    f4 v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void store(float *p, f4 v) { memcpy(p, &v, sizeof v); }
static inline f4 set(float x) { return (f4){x, x, x, x}; }
static inline f4 choose(i4 mask, f4 yes, f4 no) { return (f4)(((i4)yes & mask) | ((i4)no & ~mask)); }
/* b where a is NaN. Written by lanes it becomes one instruction. */
static inline f4 larger(f4 a, f4 b) {
    f4 v;
    for (int i = 0; i < 4; i++) v[i] = a[i] > b[i] ? a[i] : b[i];
    return v;
}
static inline float largest(f4 v) {
    float a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
    return a > b ? a : b;
}
static inline bool any(i4 mask) {
    uint64_t half[2];
    memcpy(half, &mask, sizeof half);
    return (half[0] | half[1]) != 0;
}

/* Of a whole run. */
static inline float run_most(const float *x) {
    f4 none = set(-INFINITY), a = larger(load(x), none), b = larger(load(x + 4), none), c = larger(load(x + 8), none), d = larger(load(x + 12), none);
    for (uint32_t i = 16; i < RUN; i += 16) {
        a = larger(load(x + i), a);
        b = larger(load(x + i + 4), b);
        c = larger(load(x + i + 8), c);
        d = larger(load(x + i + 12), d);
    }
    return largest(larger(larger(a, b), larger(c, d)));
}

float am_select_most(const float *x, uint32_t n) {
    float best = -INFINITY;
    uint32_t i = 0;
    for (; i + RUN <= n; i += RUN) {
        float most = run_most(x + i);
        if (most > best) best = most;
    }
    for (; i < n; i++)
        if (x[i] > best) best = x[i];
    return best;
}

uint32_t am_select_find(const float *x, uint32_t n, float value) {
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) {
        i4 hit = (load(x + i) == set(value)) | (load(x + i + 4) == set(value)) | (load(x + i + 8) == set(value)) | (load(x + i + 12) == set(value));
        if (any(hit)) break;
    }
    for (; i < n; i++)
        if (x[i] == value) return i;
    return 0;
}

/* A vector of x that becomes part of a run; the largest so far. */
static inline f4 copy_four(float *dst, const float *src, f4 most) {
    f4 v = larger(load(src), set(-INFINITY));
    store(dst, v);
    return larger(v, most);
}

void am_select_all(am_candidates *c, const float *src, uint32_t n) {
    float *x = c->x, *peak = c->peak;
    uint32_t n_whole = n / RUN;
    for (uint32_t r = 0; r < n_whole; r++, x += RUN, src += RUN) {
        f4 most[2] = {set(-INFINITY), set(-INFINITY)};
        for (uint32_t i = 0; i < RUN; i += 8) {
            most[0] = copy_four(x + i, src + i, most[0]);
            most[1] = copy_four(x + i + 4, src + i + 4, most[1]);
        }
        peak[r] = largest(larger(most[0], most[1]));
    }
    c->n = n;
    c->all = true;
    if (n % RUN == 0) return;
    for (uint32_t i = 0; i < RUN; i++) x[i] = i < n % RUN && src[i] > -INFINITY ? src[i] : -INFINITY;
    peak[n_whole] = run_most(x);
}

void am_select_peak(am_candidates *c, uint32_t run) { c->peak[run] = run_most(c->x + (size_t)run * RUN); }

void am_select_center(am_candidates *c, float value) {
    float *x = c->x, *w = c->w, *peak = c->peak;
    for (size_t i = 0; i < am_select_room(c->n); i += 8) {
        f4 a = load(x + i) - set(value), b = load(x + i + 4) - set(value);
        store(x + i, a), store(x + i + 4, b);
        store(w + i, a), store(w + i + 4, b);
    }
    for (uint32_t r = 0; r < am_select_runs(c->n); r++) peak[r] -= value; /* rounding keeps the order */
}

float am_select_distance(const am_candidates *c, float scale, float mean, float *key, float *peak) {
    const float *x = c->x, *w = c->w;
    f4 least = set(INFINITY);
    for (uint32_t r = 0; r < am_select_runs(c->n); r++, x += RUN, w += RUN, key += RUN) {
        f4 most = set(-INFINITY);
        for (uint32_t i = 0; i < RUN; i += 4) {
            f4 d = load(x + i) * set(scale) - set(mean), k = (f4)((i4)d | INT32_MIN), v = choose(load(w + i) > set(0), k, set(INFINITY));
            store(key + i, k);
            most = larger(k, most);
            least = -larger(-v, -least);
        }
        peak[r] = largest(most);
    }
    return -largest(-least);
}

double am_select_weigh(const float *x, const float *w, uint32_t n) {
    double total = 0;
    for (uint32_t first = 0; first < n; first += RUN) {
        uint32_t end = n - first < RUN ? n : first + RUN, i = first;
        f4 sum = set(0);
        for (; i + 4 <= end; i += 4) {
            f4 v = load(w + i);
            sum += choose(v > set(0), v * load(x + i), set(0));
        }
        for (; i < end; i++)
            if (w[i] > 0) total += (double)w[i] * x[i];
        total += (double)sum[0] + sum[1] + sum[2] + sum[3];
    }
    return total;
}

/* Sums of short runs in float, added up in double. */
static double sum_run(const float *w, uint32_t n) {
    f4 sum[2] = {set(0), set(0)};
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) sum[0] += load(w + i), sum[1] += load(w + i + 4);
    f4 all = sum[0] + sum[1];
    double total = (double)all[0] + all[1] + all[2] + all[3];
    for (; i < n; i++) total += w[i];
    return total;
}

double am_select_sum(const float *w, uint32_t n) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i += RUN) sum += sum_run(w + i, n - i < RUN ? n - i : RUN);
    return sum;
}

uint32_t am_select_at(const float *w, uint32_t n, double target) {
    double sum = 0;
    uint32_t last = 0;
    for (uint32_t i = 0; i < n; i += RUN) {
        uint32_t end = n - i < RUN ? n : i + RUN;
        double run = sum_run(w + i, end - i);
        if (run <= 0) continue;
        last = i;
        if (sum + run <= target) {
            sum += run;
            continue;
        }
        for (uint32_t j = i; j < end; j++) {
            sum += w[j];
            if (w[j] > 0) last = j;
            if (sum > target) return j;
        }
        return last; /* the run in another order of additions: a last bit less */
    }
    for (uint32_t j = last; j < n && j < last + RUN; j++)
        if (w[j] > 0) last = j;
    return last;
}

static inline bool comes_first(const member *a, const member *b) { return a->key > b->key || (a->key == b->key && a->at < b->at); }

static void sift_down(member *m, size_t n, size_t at) {
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && comes_first(&m[child + 1], &m[child])) child++;
        if (!comes_first(&m[child], &m[at])) return;
        member t = m[at];
        m[at] = m[child];
        m[child] = t;
    }
}

/* Members by descending key until the sum that was there before them reaches mass. */
static am_cut cut_members(member *m, size_t n, double sum, double mass) {
    am_cut cut = {INFINITY, 0};
    for (size_t i = n / 2; i-- > 0;) sift_down(m, n, i);
    while (n > 0) {
        cut = (am_cut){m[0].key, m[0].at};
        sum += m[0].w;
        if (sum >= mass) break;
        m[0] = m[--n];
        sift_down(m, n, 0);
    }
    return cut;
}

/* How an order's keys are shared out. */
typedef struct scale {
    float top, by;
} scale;

/* Which bin a key is in, and four of them at once. */
static inline uint32_t bin_of(const scale *s, float key) {
    float bin = (s->top - key) * s->by;
    return bin < N_BINS - 1 ? (uint32_t)bin : N_BINS - 1;
}
static inline i4 bins_of(const scale *s, f4 key) {
    f4 bin = (set(s->top) - key) * set(s->by), last = set(N_BINS - 1);
    return __builtin_convertvector(choose(bin < last, bin, last), i4);
}

/* Adds up the weights of each bin. */
static void weigh_bins(am_select *select, const am_order *o, scale by, float floor) {
    double *bins = select->bins;
    const float *w = o->w;
    memset(bins, 0, sizeof select->bins);
    for (uint32_t first = 0, r = 0; first < o->n; first += RUN, r++) {
        if (o->peak[r] < floor) continue;
        uint32_t end = o->n - first < RUN ? o->n : first + RUN, i = first;
        for (; i + 4 <= end; i += 4) {
            f4 key = load(o->key + i);
            i4 in = key >= set(floor), bin = (bins_of(&by, key) & in) | (N_BINS & ~in);
            if (!any(in)) continue;
            uint32_t at[4];
            memcpy(at, &bin, sizeof at);
            bins[at[0]] += w ? w[i] : 1;
            bins[at[1]] += w ? w[i + 1] : 1;
            bins[at[2]] += w ? w[i + 2] : 1;
            bins[at[3]] += w ? w[i + 3] : 1;
        }
        for (; i < end; i++)
            if (o->key[i] >= floor) bins[bin_of(&by, o->key[i])] += o->w ? o->w[i] : 1;
    }
}

/* The members of one bin; the last one's may be below the floor. */
static size_t find_members(member *m, const am_order *o, scale by, uint32_t bin, float floor) {
    size_t n_found = 0;
    for (uint32_t first = 0, r = 0; first < o->n; first += RUN, r++) {
        if (o->peak[r] < floor || bin_of(&by, o->peak[r]) > bin) continue;
        uint32_t run_end = o->n - first < RUN ? o->n : first + RUN;
        for (uint32_t i = first, end; i < run_end; i = end) {
            end = run_end - i < 4 ? run_end : i + 4;
            if (end == i + 4 && !any(bins_of(&by, load(o->key + i)) == (int32_t)bin)) continue;
            for (uint32_t j = i; j < end; j++)
                if (o->key[j] >= floor && bin_of(&by, o->key[j]) == bin) m[n_found++] = (member){o->key[j], o->w ? o->w[j] : 1, j};
        }
    }
    return n_found;
}

am_cut am_select_cut(am_select *select, const am_order *o, double mass, float floor) {
    scale by = {.top = am_select_most(o->peak, am_select_runs(o->n))};
    by.by = (float)N_BINS / (by.top - floor);
    if (!(by.by >= 1e-30f && by.by <= 1e30f)) by.by = by.top > floor ? 1e-30f : 0; /* one key, or a floor at minus infinity */
    weigh_bins(select, o, by, floor);
    uint32_t bin = 0;
    double before = 0;
    while (bin < N_BINS - 1 && before + select->bins[bin] < mass) before += select->bins[bin++];
    size_t n_members = find_members(select->members, o, by, bin, before + select->bins[bin] < mass ? -INFINITY : floor);
    if (n_members > 0) return cut_members(select->members, n_members, before, mass);
    return (am_cut){-INFINITY, o->n}; /* all the mass is before the last range, a last bit short of what was asked for */
}

am_cut am_select_first(am_select *select, const am_order *o, uint32_t count) {
    uint32_t n_runs = am_select_runs(o->n);
    float floor = am_select_most(o->peak, n_runs) - 16; /* the likeliest few of a model lie there; if not, the cut looks further */
    if (count <= n_runs) { /* as many runs have an element each that is no less than the last of these peaks */
        am_order peaks = {.key = o->peak, .peak = select->peak, .n = n_runs};
        for (uint32_t r = 0, first = 0; first < n_runs; r++, first += RUN)
            select->peak[r] = am_select_most(o->peak + first, n_runs - first < RUN ? n_runs - first : RUN);
        floor = am_select_cut(select, &peaks, count, floor).key;
    }
    return am_select_cut(select, o, count, floor);
}

/* Elements [first, end) with a key of at least `least` move behind the n that were kept before. */
static inline uint32_t keep_some(const am_candidates *c, const float *key, uint32_t first, uint32_t end, float least, uint32_t n) {
    bool all = c->all;
    float *x = c->x, *w = c->w;
    int32_t *id = c->id;
    for (uint32_t j = first; j < end; j++) {
        float k = key[j];
        x[n] = x[j];
        w[n] = w[j];
        id[n] = all ? (int32_t)j : id[j];
        n += k >= least;
    }
    return n;
}

void am_select_keep(am_candidates *c, const float *key, const float *peak, am_cut cut) {
    float above = nextafterf(cut.key, INFINITY);
    uint32_t n = 0;
    for (uint32_t r = 0, first = 0; first < c->n; r++, first += RUN) {
        uint32_t end = c->n - first < RUN ? c->n : first + RUN, border = cut.at < first ? first : cut.at < end ? cut.at + 1 : end;
        if ((peak ? peak[r] : am_select_most(key + first, end - first)) < cut.key) continue;
        n = keep_some(c, key, first, border, cut.key, n);
        n = keep_some(c, key, border, end, above, n);
    }
    c->n = n;
    c->all = false;
    for (size_t i = n; i < am_select_room(n); i++) c->x[i] = -INFINITY, c->w[i] = 0;
    for (uint32_t r = 0; r < am_select_runs(n); r++) am_select_peak(c, r);
}
