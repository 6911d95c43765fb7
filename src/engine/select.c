/* Owns passes over vocabularies of a hundred thousand tokens, which must cost next to nothing beside a forward pass.
 *
 * Plain passes work on vectors of four floats, which every machine we build for has. An order is cut by histogram: the weights of 1024 equal ranges of
 * keys say in which range the cut lies, and only that range's members are put in order (by a heap, as far as needed). So the flat
 * distributions of hot sampling cost no more than peaked ones. Each result depends on its inputs alone. */
#include "engine/select.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef float f4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

enum { N_BINS = 1024, RUN = 64 /* elements that are looked at together: none of them may be in */ };

typedef struct member {
    float key, w;
    uint32_t at;
} member;

struct am_select {
    double bins[N_BINS + 1]; /* the last: of keys below the floor */
    member *members; /* [n_most + 1] */
};

am_status am_select_create(uint32_t n_most, am_select **out, am_error *err) {
    am_select *s = am_calloc(1, sizeof *s);
    *out = NULL;
    if (s && (s->members = am_calloc((size_t)n_most + 1, sizeof *s->members))) {
        *out = s;
        return AM_OK;
    }
    free(s);
    return am_fail(err, AM_ENOMEM, "no memory to select from %u tokens", n_most);
}

void am_select_free(am_select *s) {
    if (s) free(s->members);
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
static inline f4 larger(f4 a, f4 b) { return choose(a > b, a, b); } /* b where a is NaN */
static inline bool any(i4 mask) {
    uint64_t half[2];
    memcpy(half, &mask, sizeof half);
    return (half[0] | half[1]) != 0;
}

void am_select_copy(float *dst, const float *src, uint32_t n) {
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        f4 v = load(src + i);
        store(dst + i, choose(v == v, v, set(-INFINITY)));
    }
    for (; i < n; i++) dst[i] = isnan(src[i]) ? -INFINITY : src[i];
}

float am_select_most(const float *x, uint32_t n) {
    f4 most[4] = {set(-INFINITY), set(-INFINITY), set(-INFINITY), set(-INFINITY)};
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (uint32_t j = 0; j < 4; j++) most[j] = larger(load(x + i + 4 * j), most[j]);
    f4 all = larger(larger(most[0], most[1]), larger(most[2], most[3]));
    float best = all[0];
    for (uint32_t j = 1; j < 4; j++)
        if (all[j] > best) best = all[j];
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

void am_select_subtract(float *x, uint32_t n, float value) {
    for (uint32_t i = 0; i < am_select_room(n); i += 4) store(x + i, load(x + i) - set(value));
}

void am_select_distance(float *dst, const float *x, uint32_t n, float scale, float mean) {
    for (uint32_t i = 0; i < am_select_room(n); i += 4) {
        f4 d = load(x + i) * set(scale) - set(mean);
        store(dst + i, choose(d > set(0), -d, d));
    }
}

float am_select_least(const float *x, const float *w, uint32_t n) {
    f4 least = set(INFINITY);
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        f4 v = load(x + i);
        least = choose((v < least) & (load(w + i) > set(0)), v, least);
    }
    float best = INFINITY;
    for (uint32_t j = 0; j < 4; j++)
        if (least[j] < best) best = least[j];
    for (; i < n; i++)
        if (w[i] > 0 && x[i] < best) best = x[i];
    return best;
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

/* Elements, and how their keys are shared out. */
typedef struct order {
    const float *key, *w;
    uint32_t n;
    float top, scale;
} order;

static inline float weight_of(const order *o, uint32_t i) { return o->w ? o->w[i] : 1; }

/* Which bin a key is in, and four of them at once. */
static inline uint32_t bin_of(const order *o, float key) {
    float bin = (o->top - key) * o->scale;
    return bin < N_BINS - 1 ? (uint32_t)bin : N_BINS - 1;
}
static inline i4 bins_of(const order *o, f4 key) {
    f4 bin = (set(o->top) - key) * set(o->scale), last = set(N_BINS - 1);
    return __builtin_convertvector(choose(bin < last, bin, last), i4);
}

/* Adds up the weights of each bin. */
static void weigh_bins(am_select *s, const order *o, float floor) {
    memset(s->bins, 0, sizeof s->bins);
    for (uint32_t first = 0; first < o->n; first += RUN) {
        uint32_t end = o->n - first < RUN ? o->n : first + RUN, i = first;
        if (am_select_most(o->key + first, end - first) < floor) continue;
        for (; i + 4 <= end; i += 4) {
            f4 key = load(o->key + i);
            i4 in = key >= set(floor), bin = (bins_of(o, key) & in) | (N_BINS & ~in);
            for (uint32_t j = 0; j < 4; j++) s->bins[bin[j]] += weight_of(o, i + j);
        }
        for (; i < end; i++)
            if (o->key[i] >= floor) s->bins[bin_of(o, o->key[i])] += weight_of(o, i);
    }
}

/* The members of one bin. */
static size_t find_members(member *m, const order *o, uint32_t bin) {
    size_t n_found = 0;
    for (uint32_t i = 0; i < o->n; i += 4) {
        uint32_t end = o->n - i < 4 ? o->n : i + 4;
        if (end == i + 4 && !any(bins_of(o, load(o->key + i)) == (int32_t)bin)) continue;
        for (uint32_t j = i; j < end; j++)
            if (bin_of(o, o->key[j]) == bin) m[n_found++] = (member){o->key[j], weight_of(o, j), j};
    }
    return n_found;
}

am_cut am_select_cut(am_select *s, const float *key, const float *w, uint32_t n, double mass, float floor) {
    float top = am_select_most(key, n), scale = (float)N_BINS / (top - floor);
    if (!(scale >= 1e-30f && scale <= 1e30f)) scale = top > floor ? 1e-30f : 0; /* one key, or a floor at minus infinity */
    order o = {key, w, n, top, scale};
    weigh_bins(s, &o, floor);
    uint32_t bin = 0;
    double before = 0;
    while (bin < N_BINS - 1 && before + s->bins[bin] < mass) before += s->bins[bin++];
    size_t n_members = find_members(s->members, &o, bin);
    if (n_members > 0) return cut_members(s->members, n_members, before, mass);
    return (am_cut){-INFINITY, n}; /* all the mass is before the last range, a last bit short of what was asked for */
}

void am_select_keep(am_candidates *c, const float *key, am_cut cut) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n; i += RUN) {
        uint32_t end = c->n - i < RUN ? c->n : i + RUN;
        if (am_select_most(key + i, end - i) < cut.key) continue;
        for (uint32_t j = i; j < end; j++) {
            bool in = key[j] > cut.key || (key[j] == cut.key && j <= cut.at);
            c->x[n] = c->x[j];
            c->w[n] = c->w[j];
            c->id[n] = c->all ? (int32_t)j : c->id[j];
            n += in;
        }
    }
    c->n = n;
    c->all = false;
}
