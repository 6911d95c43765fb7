/* The header of a safetensors file: what it accepts lies inside the file, without overlap, and is found by name. */
#include "fuzz.h"

#include "model/safetensors.h"

FUZZ_TARGET(safetensors) {
    am_st *st = NULL;
    am_error err = {0};
    uint64_t n;
    if (size >= 8 && am_st_header_bytes(data, size, &AM_ST_LIMITS, &n, &err)) fuzz_check(err.message[0]);
    err = (am_error){0};
    if (am_st_parse(data, size, size, &AM_ST_LIMITS, &st, &err)) {
        fuzz_check(!st && err.message[0]);
        return 0;
    }
    uint64_t end = 0;
    for (size_t i = 0; i < am_st_count(st); i++) {
        const am_st_tensor *t = am_st_at(st, i);
        uint64_t bytes = am_st_dtype_bytes(t->dtype);
        for (uint32_t d = 0; d < t->n_dim; d++) bytes *= t->shape[d];
        fuzz_check(t->at >= end && t->n_bytes == bytes && t->at <= size && t->n_bytes <= size - t->at);
        fuzz_check(am_st_find(st, t->name) == t);
        end = t->at + t->n_bytes;
    }
    fuzz_check(!am_st_find(st, AM_STR("no such tensor")));
    am_st_free(st);
    return 0;
}
