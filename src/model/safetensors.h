/* Safetensors: the header of one file, read with every check before anything in it is believed, and written.
 *
 * File: 0 u64 LE header length N; 8 N bytes of JSON, padded with spaces; 8+N the tensors' bytes, back to back, to the end of the file.
 * Header: {"name": {"dtype": "F32", "shape": [2,3], "data_offsets": [begin, end]}, ..., "__metadata__": {"key": "text"}}; offsets count
 * from 8+N. Source: https://github.com/huggingface/safetensors, README and tensor.rs. Refused beyond the reference's own checks: a
 * first byte that is not `{`, duplicate names, tensors without bytes, and more than the limits allow. */
#ifndef AM_MODEL_SAFETENSORS_H
#define AM_MODEL_SAFETENSORS_H

#include "base/json.h"

#define AM_ST_DTYPE_LIST(X)                                                                                            \
    X(AM_ST_BOOL, "BOOL", 1)                                                                                           \
    X(AM_ST_U8, "U8", 1)                                                                                               \
    X(AM_ST_I8, "I8", 1)                                                                                               \
    X(AM_ST_F8_E5M2, "F8_E5M2", 1)                                                                                     \
    X(AM_ST_F8_E4M3, "F8_E4M3", 1)                                                                                     \
    X(AM_ST_F8_E8M0, "F8_E8M0", 1)                                                                                     \
    X(AM_ST_I16, "I16", 2)                                                                                             \
    X(AM_ST_U16, "U16", 2)                                                                                             \
    X(AM_ST_F16, "F16", 2)                                                                                             \
    X(AM_ST_BF16, "BF16", 2)                                                                                           \
    X(AM_ST_I32, "I32", 4)                                                                                             \
    X(AM_ST_U32, "U32", 4)                                                                                             \
    X(AM_ST_F32, "F32", 4)                                                                                             \
    X(AM_ST_I64, "I64", 8)                                                                                             \
    X(AM_ST_U64, "U64", 8)                                                                                             \
    X(AM_ST_F64, "F64", 8)

typedef enum am_st_dtype {
#define AM_ST_ENUM(code, name, bytes) code,
    AM_ST_DTYPE_LIST(AM_ST_ENUM)
#undef AM_ST_ENUM
} am_st_dtype;
const char *am_st_dtype_name(am_st_dtype dtype);
size_t am_st_dtype_bytes(am_st_dtype dtype);

enum { AM_ST_MAX_DIM = 8 };

typedef struct am_st_tensor {
    am_str name; /* NUL-terminated too */
    am_st_dtype dtype;
    uint32_t n_dim;
    uint64_t shape[AM_ST_MAX_DIM];
    uint64_t at;      /* of the first byte, from the start of the file */
    uint64_t n_bytes; /* never 0 */
} am_st_tensor;

typedef struct am_st_limits {
    uint64_t max_header_bytes;
    size_t max_tensors;
    size_t max_metadata_bytes; /* keys and values together */
} am_st_limits;
/* For model files: the reference's own header limit. Cache files want far less. */
#define AM_ST_LIMITS ((am_st_limits){100u * 1000 * 1000, 1u << 20, 16u << 20})

typedef struct am_st am_st;

/* How many bytes the header takes (8 + N), from a file's first 8; checks N against the limit and the file's length. */
am_status am_st_header_bytes(const uint8_t first[8], uint64_t file_bytes, const am_st_limits *limits, uint64_t *n, am_error *err);

/* Reads the header of a file of file_bytes whose first n_head bytes are at `head` (at least the header; the whole mapping will do).
 * Nothing of `head` is kept. AM_EFORMAT names tensor and field; AM_ELIMIT names the limit. Free with am_st_free. */
am_status am_st_parse(const uint8_t *head, size_t n_head, uint64_t file_bytes, const am_st_limits *limits, am_st **out,
                      am_error *err);
void am_st_free(am_st *st);

size_t am_st_count(const am_st *st);
const am_st_tensor *am_st_at(const am_st *st, size_t i);              /* in the order of their bytes */
const am_st_tensor *am_st_find(const am_st *st, am_str name);         /* NULL when there is none */
bool am_st_metadata(const am_st *st, const char *key, am_str *value); /* a view that lives as long as st */
size_t am_st_metadata_count(const am_st *st);

/* Writing: the header for tensors whose bytes follow in the order given, without gaps. */
typedef struct am_st_entry {
    const char *name;
    am_st_dtype dtype;
    uint32_t n_dim;
    uint64_t shape[AM_ST_MAX_DIM];
} am_st_entry;
typedef struct am_st_pair {
    const char *key;
    am_str value; /* text */
} am_st_pair;
typedef struct am_st_layout {
    const am_st_entry *entries;
    size_t n_entries;
    const am_st_pair *metadata;
    size_t n_metadata;
    size_t align; /* a power of two, >= 8: the tensors begin at a multiple of it */
} am_st_layout;
/* Appends length and JSON to `out`, padded with spaces up to the alignment. *data_bytes (may be NULL): what the tensors take together. */
am_status am_st_header_build(const am_st_layout *layout, am_buf *out, uint64_t *data_bytes, am_error *err);

#endif
