/* What the tests of kernels share: numbers to draw, and products whose bits must be the same however rows and panels are cut. */
#ifndef AM_TESTS_KERNEL_RIG_H
#define AM_TESTS_KERNEL_RIG_H

#include "guarded.h"
#include "kernels/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RIG_FN __attribute__((unused)) static

static uint64_t seed = 88172645463325252u;
RIG_FN uint32_t next_u32(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32);
}
RIG_FN float next_float(void) { return (float)(int32_t)next_u32() * 0x1p-31f; } /* [-1, 1) */
RIG_FN uint32_t below(uint32_t n) { return next_u32() % n; }

static guard_side side; /* of all buffers of the running case */

/* truth [n_rows][n_out], to the bit, from `product` (matmul_int8, matmul_bf16) in three calls; nothing between the rows of y is touched. */
RIG_FN void check_product(const am_kernels *k, void (*product)(float *, size_t, const void *, size_t, const am_mat *, uint32_t, uint32_t), const am_mat *m,
                          const float *truth, size_t n_rows, const void *x) {
    size_t ldy = m->n_out + 5, n = (n_rows - 1) * ldy + m->n_out;
    uint32_t panels = am_mat_panels(m), cut = below(panels + 1), cut2 = cut + below(panels - cut + 1);
    float *got = guarded_alloc(n * sizeof *got, 4, side);
    for (size_t i = 0; i < n; i++) got[i] = 7;
    product(got, ldy, x, n_rows, m, cut2, panels);
    product(got, ldy, x, n_rows, m, 0, cut);
    product(got, ldy, x, n_rows, m, cut, cut2);
    for (size_t r = 0; r < n_rows; r++) {
        for (uint32_t o = 0; o < m->n_out; o++)
            if (memcmp(&got[r * ldy + o], &truth[r * m->n_out + o], 4))
                fail_msg("%s: %zu rows, row %zu, output %u of %ux%u dtype %d group %u: %a, should be %a", k->name, n_rows, r, o, m->n_out, m->n_in, (int)m->dtype,
                         m->group, (double)got[r * ldy + o], (double)truth[r * m->n_out + o]);
        for (size_t i = r * ldy + m->n_out; r + 1 < n_rows && i < (r + 1) * ldy; i++) assert_true(got[i] == 7);
    }
}

#endif
