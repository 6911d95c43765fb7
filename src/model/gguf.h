/* GGUF files, versions 2 and 3, little endian: metadata and tensor directory, checked before anything is believed.
 *
 * 0 "GGUF"; 4 u32 version; 8 u64 tensor count; 16 u64 key count; then the keys (string key, u32 type, value), then the tensors (string name, u32 n_dim,
 * u64 shape[n_dim] fastest first, u32 ggml type, u64 offset), then padding to `general.alignment` (32), then the data. A string is u64 length and
 * bytes; an array is u32 element type, u64 count, elements. Source: ggml's docs/gguf.md. Counts are checked against the bytes
 * that are left before anything is allocated for them; offsets must be aligned, inside the file and free of overlap. */
#ifndef AM_MODEL_GGUF_H
#define AM_MODEL_GGUF_H

#include "base/hash.h"
#include "model/ggml_blocks.h"
#include "text/tokenizer.h"

typedef struct am_gguf am_gguf;

typedef enum am_gguf_kind {
    AM_GGUF_U8, AM_GGUF_I8, AM_GGUF_U16, AM_GGUF_I16, AM_GGUF_U32, AM_GGUF_I32, AM_GGUF_F32, AM_GGUF_BOOL, AM_GGUF_STRING, AM_GGUF_ARRAY,
    AM_GGUF_U64, AM_GGUF_I64, AM_GGUF_F64, AM_GGUF_N_KIND
} am_gguf_kind;

typedef struct am_gguf_value {
    am_str key;
    am_gguf_kind kind;
    am_gguf_kind element; /* arrays */
    uint64_t n;           /* arrays: elements; strings: bytes */
    const uint8_t *p;     /* first byte of the value, the string or the first element; any alignment */
} am_gguf_value;

typedef struct am_gguf_tensor {
    am_str name;
    const am_ggml_format *format;
    uint32_t n_dim;
    uint64_t shape[4]; /* fastest first: {n_in, n_out, ...}; 1 past n_dim */
    const uint8_t *p;
    uint64_t n_bytes;
} am_gguf_tensor;

/* path: a file, or the first of split files (-00001-of-0000N.gguf), all of which are opened. AM_EFORMAT and AM_EUNSUPPORTED name file, key or tensor. */
am_status am_gguf_open(const char *path, am_gguf **out, am_error *err);
/* One file in memory that outlives the reader. */
am_status am_gguf_open_bytes(const uint8_t *p, size_t n, const char *name, am_gguf **out, am_error *err);
void am_gguf_free(am_gguf *gguf);
void am_gguf_identify(const am_gguf *gguf, am_sum_state *sum); /* adds which files these are, and since when */

const am_gguf_value *am_gguf_get(const am_gguf *gguf, const char *key); /* NULL when absent */
/* With conversion between the integer kinds (and to a double): AM_ENOTFOUND when absent, AM_EFORMAT when of another kind or out of range. */
am_status am_gguf_u32(const am_gguf *gguf, const char *key, uint32_t *out, am_error *err);
am_status am_gguf_f64(const am_gguf *gguf, const char *key, double *out, am_error *err);
am_status am_gguf_bool(const am_gguf *gguf, const char *key, bool *out, am_error *err);
am_status am_gguf_string(const am_gguf *gguf, const char *key, am_str *out, am_error *err);
/* Arrays: *out is allocated (free it), its strings are views into the file. */
am_status am_gguf_strings(const am_gguf *gguf, const char *key, am_str **out, size_t *n, am_error *err);
am_status am_gguf_i32s(const am_gguf *gguf, const char *key, int32_t **out, size_t *n, am_error *err);
am_status am_gguf_f32s(const am_gguf *gguf, const char *key, float **out, size_t *n, am_error *err);

size_t am_gguf_n_values(const am_gguf *gguf);
const am_gguf_value *am_gguf_value_at(const am_gguf *gguf, size_t i); /* in no order that matters */
size_t am_gguf_n_tensors(const am_gguf *gguf);
const am_gguf_tensor *am_gguf_tensor_at(const am_gguf *gguf, size_t i);
const am_gguf_tensor *am_gguf_find(const am_gguf *gguf, const char *name); /* NULL when absent */
/* n_bytes from byte `at` of the tensor are not needed any more. */
void am_gguf_drop(const am_gguf *gguf, const am_gguf_tensor *tensor, size_t at, size_t n_bytes);

/* The vocabulary of tokenizer.ggml.*; AM_ENOTFOUND when the file has none. Free with am_gguf_vocab_free; views live as long as the reader. */
#define AM_GGUF_RSTRIP "agent_memory.rstrip_token_ids" /* I32: a key of our own */
am_status am_gguf_vocab(const am_gguf *gguf, am_vocab *out, am_error *err);
void am_gguf_vocab_free(am_vocab *vocab);

#endif
