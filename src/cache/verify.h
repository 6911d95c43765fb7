/* Reading a whole data folder without serving it: is every file what it must be, and is what it holds what the model
 * computes? */
#ifndef AM_CACHE_VERIFY_H
#define AM_CACHE_VERIFY_H

#include "cache/cache.h"
#include "model/model.h"

/* code, its name, whether something is wrong (else it is only worth knowing) */
#define AM_FINDING_LIST(X)                                                                                             \
    X(AM_FINDING_ORPHAN, "orphan", true)      /* a temporary file: a write that did not end */                         \
    X(AM_FINDING_FORMAT, "format", true)      /* not a file of its kind: header, lengths, or no file at all */         \
    X(AM_FINDING_CHECKSUM, "checksum", true)  /* of a block, or of a head up to its sum */                             \
    X(AM_FINDING_ROWS, "rows_checksum", true) /* of a head's open rows */                                              \
    X(AM_FINDING_NAME, "name", true)       /* a block whose content has another name, a head under another's name */   \
    X(AM_FINDING_CHAIN, "chain", true)     /* a head whose chain does not follow from its tokens */                    \
    X(AM_FINDING_IO, "io_error", true)     /* cannot be read */                                                        \
    X(AM_FINDING_DIFFERS, "differs", true) /* deep: the model computes other bits */                                   \
    X(AM_FINDING_TOKENS, "tokens", true)   /* deep: the model does not know the tokens */                              \
    X(AM_FINDING_MISSING, "missing_blocks", false) /* of a head's chain: will be computed again */                     \
    X(AM_FINDING_UNUSED, "unused_blocks", false)   /* no head names them */                                            \
    X(AM_FINDING_REFUSED, "refused", false)        /* files moved aside earlier */                                     \
    X(AM_FINDING_UNKEYED, "other_tenant", false)   /* the tenant's salt is not known here: names were not checked */   \
    X(AM_FINDING_WRITING, "being_written", false)  /* a temporary file while a server runs */                          \
    X(AM_FINDING_STRANGER, "not_ours", false)
typedef enum am_finding_kind {
#define AM_FINDING_ENUM(code, name, wrong) code,
    AM_FINDING_LIST(AM_FINDING_ENUM)
#undef AM_FINDING_ENUM
        AM_N_FINDINGS
} am_finding_kind;
const char *am_finding_name(am_finding_kind kind);
bool am_finding_is_wrong(am_finding_kind kind);

typedef struct am_finding {
    am_finding_kind kind;
    const char *file; /* "" for what counts several */
    const char *text;
    bool repaired;
} am_finding;

typedef struct am_verify_options {
    const char *dir;          /* the folder of heads and blocks */
    bool served;              /* a server has the folder */
    bool repair;              /* moves what is wrong to refused/, removes orphans; the caller holds the folder's lock */
    const am_tenant *tenants; /* besides the default one */
    size_t n_tenants;
    void (*on_finding)(void *arg, const am_finding *finding);
    void *arg;
    /* Deep, when there is a model: every head of it is computed again from its tokens, blocks and open rows compared
     * bit for bit. The bits are those of one kernel table: state that another table made differs without being wrong.
     */
    const am_model *model;
    am_kv_layout layout;
    const am_kernels *kernels;
    am_workers *workers;
} am_verify_options;

typedef struct am_verify_result {
    uint64_t n_heads, n_blocks, n_bytes;
    uint64_t n_deep_heads, n_deep_blocks, n_deep_rows; /* compared */
    uint64_t n[AM_N_FINDINGS];
    uint64_t n_wrong, n_repaired;
} am_verify_result;

/* AM_OK: everything was looked at, whatever was found. */
am_status am_verify(const am_verify_options *options, am_verify_result *result, am_error *err);

#endif
