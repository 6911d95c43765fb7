/* A file of packed weights (the layout is in packed.c) with whatever bytes: refused with a reason, or every matrix that it gives lies inside it and can be read, all rows and products.
 * The first byte of the input says what is made right before: 1 the key and lengths, 2 the checksums too, so that what lies behind them is reached. */
#include "fuzz.h"

#include "kernels/kernels.h"
#include "model/packed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEY_AT = 8, N_MATS_AT = 40, DATA_AT = 48, N_DATA_AT = 56, N_PATH_AT = 64, SUM_AT = 112, HEADER = 128, ENTRY = 88, CHUNK = 4 << 20, PAGE = 4096, MOST_VALUES = 1 << 16 };

static const am_sum key = {{1, 2, 3}};
static char dir[64], path[160];

static void remove_dir(void) {
    unlink(path);
    rmdir(dir);
}

static uint64_t u64_at(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static void put(uint8_t *p, uint64_t v) { memcpy(p, &v, sizeof v); }

/* What has one right value gets it; where the table has no room in the first page nothing can be mended. */
static void mend(uint8_t *file, size_t size, bool sums) {
    if (size < HEADER) return;
    memcpy(file, "AMPACK01", 8);
    memcpy(file + KEY_AT, &key, sizeof key);
    if (size > PAGE) put(file + DATA_AT, PAGE), put(file + N_DATA_AT, size - PAGE);
    uint64_t n_mats = u64_at(file + N_MATS_AT), data_at = u64_at(file + DATA_AT), n_data = u64_at(file + N_DATA_AT);
    if (!sums || data_at < HEADER || data_at > size || n_data != size - data_at || n_mats > (data_at - HEADER) / ENTRY) return;
    uint8_t *table = file + HEADER + n_mats * ENTRY;
    for (uint64_t at = 0; at < n_data && table + 8 <= file + data_at; at += CHUNK, table += 8)
        put(table, am_hash64(file + data_at + at, n_data - at < CHUNK ? n_data - at : CHUNK));
    am_sum_state *state = am_sum_begin();
    am_sum_add(state, file, SUM_AT);
    am_sum_add(state, file + HEADER, data_at - HEADER);
    am_sum sum = am_sum_end(state);
    memcpy(file + SUM_AT, &sum, sizeof sum);
}

static void use(const am_mat *mat, const uint8_t *entry, size_t size) {
    uint64_t at = u64_at(entry + 8), bytes = am_mat_bytes(mat);
    fuzz_check(at % 64 == 0 && at <= size && bytes <= size - at && (uintptr_t)mat->data % 64 == 0);
    if ((uint64_t)mat->n_out * mat->n_in > MOST_VALUES) return;
    for (const am_kernels *const *k = am_kernels_list(); *k; k++) {
        float *x = calloc(mat->n_in, sizeof *x), *y = calloc(am_mat_panels(mat) * 16, sizeof *y);
        fuzz_check(x && y);
        for (uint32_t o = 0; o < mat->n_out; o++) (*k)->mat_row(x, mat, o);
        (*k)->matmul(y, mat->n_out, x, mat->n_in, 1, mat, 0, am_mat_panels(mat));
        free(x);
        free(y);
    }
}

static void use_all(const uint8_t *file, size_t size) {
    am_packed *packed = NULL;
    am_error err = {0};
    if (am_packed_open(dir, key, NULL, &packed, &err)) {
        fuzz_check(!packed && err.message[0]);
        return;
    }
    uint64_t n_mats = u64_at(file + N_MATS_AT);
    for (uint64_t i = 0; i < n_mats; i++) {
        const uint8_t *e = file + HEADER + i * ENTRY;
        const char *form = NULL;
        am_mat mat = {0};
        memcpy(&mat.n_out, e + 24, 4);
        memcpy(&mat.n_in, e + 28, 4);
        am_mat other = mat;
        other.n_in++;
        fuzz_check(!am_packed_take(packed, u64_at(e), &other, &form) && !am_packed_take(packed, u64_at(e) + 1, &mat, &form));
        fuzz_check(am_packed_take(packed, u64_at(e), &mat, &form) && strlen(form) < AM_PACKED_FORM);
        use(&mat, e, size);
    }
    am_mat mat = {.n_out = 1, .n_in = 1};
    const char *form;
    fuzz_check(!am_packed_take(packed, 0, &mat, &form));
    am_packed_free(packed);
}

FUZZ_TARGET(packed) {
    if (size == 0) return 0;
    if (!*dir) {
        char hex[33];
        am_sum_hex(&key, hex);
        snprintf(dir, sizeof dir, "%s/am-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        fuzz_check(mkdtemp(dir));
        snprintf(path, sizeof path, "%s/%s.packed", dir, hex);
        atexit(remove_dir);
    }
    size_t n = size - 1;
    uint8_t *file = malloc(n + !n);
    fuzz_check(file);
    memcpy(file, data + 1, n);
    if (data[0] & 3) mend(file, n, data[0] & 2);
    FILE *f = fopen(path, "wb");
    fuzz_check(f && fwrite(file, 1, n, f) == n && fclose(f) == 0);
    use_all(file, n);
    free(file);
    return 0;
}
