/* What each kernel table reaches on one thread, beside what the core and the memory allow. One line a measurement: the median of
 * five, in GFLOP/s of the product and GB/s of weights (or of cache) read. The largest shape walks over copies that no cache holds,
 * as decode walks over a model; the others stay in cache.
 *
 *   build/bench/bench_kernels [table [milliseconds a sample [format]]]      default: every table, 30, every format and attention */
#include "kernels/kv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double sample_seconds = 0.03;
static volatile float sink;

typedef void work_fn(void *arg, size_t i);

static int by_value(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

/* The thread's own time: what else runs on the machine takes the memory's rate, not the core's. */
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of one call: median of five samples, each as many calls as fill the time. */
static double seconds_of(work_fn *work, void *arg) {
    double sample[5];
    size_t calls = 1, at = 0;
    for (int s = -1; s < 5; s++) { /* the first finds the number of calls and warms up */
        for (;;) {
            double start = now();
            for (size_t i = 0; i < calls; i++) work(arg, at++);
            double elapsed = now() - start;
            if (s >= 0) sample[s] = elapsed / (double)calls;
            if (s >= 0 || elapsed >= sample_seconds) break;
            calls = elapsed <= 0 ? calls * 8 : (size_t)((double)calls * fmin(8, 1.1 * sample_seconds / elapsed)) + 1;
        }
    }
    qsort(sample, 5, sizeof *sample, by_value);
    return sample[2];
}

/* ---- limits ---- */

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 12")
#endif

__attribute__((target("avx512f"))) static void fma_avx512(void *arg, size_t i) {
    (void)arg, (void)i;
    __m512 a[12], x = _mm512_set1_ps(0.999f);
    UNROLL for (int j = 0; j < 12; j++) a[j] = _mm512_set1_ps((float)j);
    for (int n = 0; n < 1000; n++)
        UNROLL for (int j = 0; j < 12; j++) a[j] = _mm512_fmadd_ps(a[j], x, x);
    UNROLL for (int j = 1; j < 12; j++) a[0] = _mm512_add_ps(a[0], a[j]);
    sink = _mm512_cvtss_f32(a[0]);
}

__attribute__((target("avx2,fma"))) static void fma_avx2(void *arg, size_t i) {
    (void)arg, (void)i;
    __m256 a[12], x = _mm256_set1_ps(0.999f);
    UNROLL for (int j = 0; j < 12; j++) a[j] = _mm256_set1_ps((float)j);
    for (int n = 0; n < 1000; n++)
        UNROLL for (int j = 0; j < 12; j++) a[j] = _mm256_fmadd_ps(a[j], x, x);
    UNROLL for (int j = 1; j < 12; j++) a[0] = _mm256_add_ps(a[0], a[j]);
    sink = _mm256_cvtss_f32(a[0]);
}

__attribute__((target("avx512f,avx512vnni"))) static void dot_avx512(void *arg, size_t i) {
    (void)arg, (void)i;
    __m512i a[12], x = _mm512_set1_epi8(1);
    UNROLL for (int j = 0; j < 12; j++) a[j] = _mm512_set1_epi32(j);
    for (int n = 0; n < 1000; n++)
        UNROLL for (int j = 0; j < 12; j++) a[j] = _mm512_dpbusd_epi32(a[j], x, x);
    UNROLL for (int j = 1; j < 12; j++) a[0] = _mm512_add_epi32(a[0], a[j]);
    sink = (float)_mm512_reduce_add_epi32(a[0]);
}

__attribute__((target("avx512f,avx512bf16"))) static void pairs_avx512(void *arg, size_t i) {
    (void)arg, (void)i;
    __m512 a[12];
    __m512i x = _mm512_set1_epi32(0x3f003f00);
    UNROLL for (int j = 0; j < 12; j++) a[j] = _mm512_set1_ps((float)j);
    for (int n = 0; n < 1000; n++)
        UNROLL for (int j = 0; j < 12; j++) a[j] = _mm512_dpbf16_ps(a[j], (__m512bh)x, (__m512bh)x);
    UNROLL for (int j = 1; j < 12; j++) a[0] = _mm512_add_ps(a[0], a[j]);
    sink = _mm512_cvtss_f32(a[0]);
}

__attribute__((target("avx2"))) static void dot_avx2(void *arg, size_t i) {
    (void)arg, (void)i;
    __m256i a[12], x = _mm256_set1_epi8(1);
    UNROLL for (int j = 0; j < 12; j++) a[j] = _mm256_set1_epi32(j);
    for (int n = 0; n < 1000; n++)
        UNROLL for (int j = 0; j < 12; j++) a[j] = _mm256_add_epi16(a[j], _mm256_maddubs_epi16(_mm256_xor_si256(a[j], x), x));
    UNROLL for (int j = 1; j < 12; j++) a[0] = _mm256_add_epi16(a[0], a[j]);
    sink = (float)_mm256_extract_epi32(a[0], 0);
}

static double peak_flops(const am_kernels *k) {
    if (strncmp(k->name, "avx512", 6) == 0) return 12000 * 32 / seconds_of(fma_avx512, NULL);
    if (strcmp(k->name, "avx2") == 0) return 12000 * 16 / seconds_of(fma_avx2, NULL);
    return 0;
}

/* Of products of pairs of bf16. */
static double peak_pairs(const am_kernels *k) { return strcmp(k->name, "avx512bf16") == 0 ? 12000 * 64 / seconds_of(pairs_avx512, NULL) : 0; }

/* Of products of codes: vpdpbusd, or a vpmaddubsw and an addition of 16 bits. */
static double peak_dots(const am_kernels *k) {
    if (strcmp(k->name, "avx512vnni") == 0 || strcmp(k->name, "avx512bf16") == 0) return 12000 * 128 / seconds_of(dot_avx512, NULL);
    if (strcmp(k->name, "avx2") == 0) return 12000 * 64 / seconds_of(dot_avx2, NULL);
    return 0;
}
#else
static double peak_flops(const am_kernels *k) { return k ? 0 : 0; }
static double peak_dots(const am_kernels *k) { return k ? 0 : 0; }
static double peak_pairs(const am_kernels *k) { return k ? 0 : 0; }
#endif

enum { POOL_BYTES = 192 << 20 };
static uint8_t *pool;

static void pool_read(void *arg, size_t i) {
    (void)arg, (void)i;
    const uint64_t *p = (const uint64_t *)(const void *)pool;
    uint64_t sum[8] = {0};
    for (size_t j = 0; j < POOL_BYTES / 8; j += 8)
        for (size_t l = 0; l < 8; l++) sum[l] += p[j + l];
    sink = (float)(sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7]);
}

/* ---- products ---- */

typedef struct product {
    const am_kernels *kernels;
    am_mat mat;
    size_t n_rows, n_copies;
    float *x, *y;
    void *x8, *x16; /* NULL, both: float32 inputs */
} product;

static void product_run(void *arg, size_t i) {
    product *p = arg;
    am_mat mat = p->mat;
    mat.data = pool + i % p->n_copies * am_mat_bytes(&mat);
    if (p->x8)
        p->kernels->matmul_int8(p->y, mat.n_out, p->x8, p->n_rows, &mat, 0, am_mat_panels(&mat));
    else if (p->x16)
        p->kernels->matmul_bf16(p->y, mat.n_out, p->x16, p->n_rows, &mat, 0, am_mat_panels(&mat));
    else
        p->kernels->matmul(p->y, mat.n_out, p->x, mat.n_in, p->n_rows, &mat, 0, am_mat_panels(&mat));
}

/* How the formats of files lie in memory. */
typedef struct format {
    const char *name;
    am_dtype dtype, scale_dtype;
    uint32_t group, zero_point;
    am_book book;
} format;

static const format formats[] = {
    {"f32", AM_F32, 0, 0, 0, 0},              {"f16", AM_F16, 0, 0, 0, 0},             {"bf16", AM_BF16, 0, 0, 0, 0},
    {"Q4_0", AM_Q4, AM_F16, 32, 8, 0},        {"Q4_K", AM_Q4, AM_S8, 32, 0, 0},        {"Q5_K", AM_Q5, AM_S8, 32, 0, 0},
    {"Q6_K", AM_Q6, AM_S8, 16, 32, 0},        {"Q8_0", AM_Q8, AM_F16, 32, 128, 0},     {"IQ4_XS", AM_Q4, AM_S8, 32, 128, AM_BOOK_IQ4},
    {"MXFP4", AM_Q4, AM_BF16, 32, 12, AM_BOOK_MXFP4}, {"MLX 4 bits", AM_Q4, AM_BF16, 64, 0, 0}, {"MLX 8 bits", AM_Q8, AM_BF16, 64, 0, 0},
};

typedef struct shape {
    uint32_t n_in, n_out;
} shape;

/* Operations a second of one thread, by kind; 0: not known. */
typedef struct peaks {
    double floats, codes, pairs;
} peaks;

/* Quantised weights times codes, and BF16 ones times bf16, where the table has that. */
static void product_bench(const am_kernels *k, const format *f, shape at, size_t n_rows, const peaks *peak) {
    uint32_t n_in = at.n_in, n_out = at.n_out;
    product p = {.kernels = k, .mat = {.dtype = f->dtype, .scale_dtype = f->scale_dtype, .n_out = n_out, .n_in = n_in, .group = f->group, .zero_point = f->zero_point, .book = f->book}, .n_rows = n_rows};
    bool int8 = f->group && k->matmul_int8, bf16 = f->dtype == AM_BF16 && k->matmul_bf16;
    size_t bytes = am_mat_bytes(&p.mat);
    p.n_copies = (size_t)n_in * n_out >= (4 << 20) ? POOL_BYTES / bytes : 1;
    p.x = calloc(n_rows * n_in, sizeof(float));
    p.y = calloc(n_rows * n_out, sizeof(float));
    for (size_t i = 0; i < n_rows * n_in; i++) p.x[i] = (float)(i % 7) - 3;
    if (int8) p.x8 = am_alloc_aligned(n_rows * am_int8_row_bytes(n_in));
    for (size_t r = 0; p.x8 && r < n_rows; r++) k->row_int8((uint8_t *)p.x8 + r * am_int8_row_bytes(n_in), p.x + r * n_in, n_in);
    if (bf16) p.x16 = am_alloc_aligned(n_rows * am_bf16_row_bytes(n_in));
    for (size_t r = 0; p.x16 && r < n_rows; r++) k->row_bf16((uint8_t *)p.x16 + r * am_bf16_row_bytes(n_in), p.x + r * n_in, n_in);
    double s = seconds_of(product_run, &p), flops = 2.0 * (double)n_rows * n_in * n_out / s;
    double most = int8 ? peak->codes : bf16 ? peak->pairs : peak->floats;
    printf("%-10s %-10s %5u x %-5u rows %3zu  %8.1f G%s/s", k->name, f->name, n_in, n_out, n_rows, flops * 1e-9, int8 ? "OP" : "FLOP");
    if (most > 0) printf(" (%3.0f%%)", 100 * flops / most);
    printf("  %7.2f GB/s %s\n", (double)bytes / s * 1e-9, p.n_copies > 1 ? "from memory" : "");
    free(p.x);
    free(p.x8);
    free(p.x16);
    free(p.y);
}

/* ---- attention: n_q queries of one KV head over a deep cache of sealed blocks ---- */

typedef struct attention {
    const am_kernels *kernels;
    am_kv_layout layout;
    size_t n_q, n_blocks;
    uint8_t *blocks;
    float *q, *s, *acc, *m, *l;
    uint32_t *from, *to;
} attention;

static void attention_run(void *arg, size_t i) {
    (void)i;
    attention *a = arg;
    uint32_t dim = a->layout.spec.head_dim_v;
    memset(a->acc, 0, a->n_q * dim * sizeof *a->acc);
    for (size_t q = 0; q < a->n_q; q++) a->m[q] = -INFINITY, a->l[q] = 0;
    for (size_t b = 0; b < a->n_blocks; b++) {
        const void *block = a->blocks + b * a->layout.sealed_bytes;
        am_mat k = am_kv_k(&a->layout, block, true, 0);
        am_rows v = am_kv_v(&a->layout, block, true, 0);
        a->kernels->matmul(a->s, AM_BLOCK_TOKENS, a->q, dim, a->n_q, &k, 0, AM_BLOCK_TOKENS / AM_PANEL);
        am_softmax step = {.s = a->s, .ld = AM_BLOCK_TOKENS, .n_q = a->n_q, .n_keys = AM_BLOCK_TOKENS, .from = a->from, .to = a->to,
                           .scale = 0.125f, .m = a->m, .l = a->l, .acc = a->acc, .ld_acc = dim, .dim = dim};
        a->kernels->softmax_step(&step);
        a->kernels->rows_accumulate(a->acc, dim, a->s, AM_BLOCK_TOKENS, a->n_q, &v, 0, AM_BLOCK_TOKENS);
    }
}

static void attention_bench(const am_kernels *k, uint32_t bits_k, uint32_t bits_v, size_t n_q, double peak) {
    attention a = {.kernels = k, .n_q = n_q, .n_blocks = 4096 / AM_BLOCK_TOKENS};
    const am_kv_spec spec = {.n_layer = 1, .n_kv_head = 1, .head_dim_k = 64, .head_dim_v = 64, .bits_k = bits_k, .bits_v = bits_v};
    if (am_kv_layout_init(&a.layout, &spec, NULL)) return;
    a.blocks = am_alloc_aligned(a.n_blocks * a.layout.sealed_bytes);
    a.q = calloc(n_q * 64, sizeof(float)), a.acc = calloc(n_q * 64, sizeof(float));
    a.s = calloc(n_q * AM_BLOCK_TOKENS, sizeof(float));
    a.m = calloc(n_q, sizeof(float)), a.l = calloc(n_q, sizeof(float));
    a.from = calloc(n_q, 4), a.to = calloc(n_q, 4);
    for (size_t i = 0; i < n_q; i++) a.to[i] = AM_BLOCK_TOKENS;
    for (size_t i = 0; i < n_q * 64; i++) a.q[i] = (float)(i % 7) - 3;
    double s = seconds_of(attention_run, &a), flops = 4.0 * (double)n_q * 64 * 4096 / s;
    printf("%-10s attention %u,%u bits, depth 4096, dim 64, queries %3zu  %8.1f GFLOP/s", k->name, bits_k, bits_v, n_q, flops * 1e-9);
    if (peak > 0) printf(" (%3.0f%%)", 100 * flops / peak);
    printf("  %7.2f GB/s  %.1f us\n", (double)(a.n_blocks * a.layout.sealed_bytes) / s * 1e-9, s * 1e6);
    free(a.blocks), free(a.q), free(a.acc), free(a.s), free(a.m), free(a.l), free(a.from), free(a.to);
}

static void table_bench(const am_kernels *k, const char *only) {
    static const shape shapes[] = {{512, 512}, {512, 1536}, {2048, 8192}};
    static const size_t rows[] = {1, 2, 4, 8, 16, 256}, queries[] = {1, 4, 256};
    const peaks peak = {peak_flops(k), peak_dots(k), peak_pairs(k)};
    if (peak.floats > 0) printf("%-10s fused multiply-add peak, one thread: %.1f GFLOP/s\n", k->name, peak.floats * 1e-9);
    if (peak.codes > 0) printf("%-10s peak of products of codes, one thread: %.1f GOP/s\n", k->name, peak.codes * 1e-9);
    if (peak.pairs > 0) printf("%-10s peak of products of pairs of bf16, one thread: %.1f GFLOP/s\n", k->name, peak.pairs * 1e-9);
    for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++) {
        if (only && strcmp(only, formats[f].name)) continue;
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
            for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) product_bench(k, &formats[f], shapes[s], rows[r], &peak);
    }
    if (only && strcmp(only, "attention")) return;
    for (size_t q = 0; q < 3; q++) attention_bench(k, AM_KV_BITS_K, AM_KV_BITS_V, queries[q], peak.floats);
    for (size_t q = 0; q < 3; q++) attention_bench(k, 16, 16, queries[q], peak.floats);
}

int main(int argc, char **argv) {
    if (argc > 2) sample_seconds = atof(argv[2]) * 1e-3;
    pool = am_alloc_aligned(POOL_BYTES);
    if (!pool) return 1;
    printf("memory read, one thread: %.1f GB/s\n", POOL_BYTES / seconds_of(pool_read, NULL) * 1e-9);
    for (const am_kernels *const *k = am_kernels_list(); *k; k++)
        if (argc <= 1 || !argv[1][0] || strcmp(argv[1], (*k)->name) == 0) table_bench(*k, argc > 3 ? argv[3] : NULL);
    free(pool);
    return 0;
}
