/* Agents' attention state in memory and on disk, for one loaded model.
 *
 * Only the engine thread calls these functions (am_cache_lock_dir and am_cache_lock_release excepted). Files are read and written by
 * the cache's own I/O threads; what they finished is taken up by am_cache_poll, and options.wake is called (from those threads) when
 * there is something to take up. Nothing here waits for a disk except am_cache_open, am_cache_flush and am_cache_close.
 *
 *   sealed block   immutable, named by its chain hash = BLAKE2b-256(key: tenant salt; model tag, parent's hash (zeros for the first), its
 *                  256 token ids as u32 LE); shared by every agent of the tenant with that prefix; in the pool, on disk, or both
 *                  (where the model has layers with windows, each of its two parts by itself: am_kv_part)
 *   head           an agent's state: its token ids, the chain hashes of its sealed blocks, the exact rows of its open block (in an open
 *                  slot, or in the head file), its times and counters
 *   turn           what one running request holds: pinned blocks, its own open slot, the slots reserved for what it may still fill
 *
 * A head does not change while a turn of its agent runs; am_turn_commit replaces it at once, am_turn_abort leaves it as it was. Blocks that
 * a failed turn sealed stay (they are named by content and true). Two turns of one agent may run: each starts from the head as it was
 * then, the later commit wins; blocks of both stay.
 *
 * Windows: a turn holds window parts of blocks in reach of where it is, heads keep those in reach of places from which they may go on; others are
 * forgotten. docs/DESIGN.md ("Windows") has the rules.
 *
 * Files, all in options.dir (specified byte for byte in docs/FORMAT.md): `<agent>~<tag>.safetensors` (heads; tag: first 12 hex digits of the
 * model tag; agent escaped), `b-<64 hex>.safetensors` and `w-<64 hex>.safetensors` (blocks, by part). Written as `*.tmp.safetensors`, fsync, rename, fsync of the folder. Any file
 * may be deleted or damaged at any time: what is missing is recomputed; what is wrong is moved to `refused/` with its reason in the
 * log and is never trusted. Every byte that is used was checked against its checksum, and the token ids of a block against those wanted. */
#ifndef AM_CACHE_CACHE_H
#define AM_CACHE_CACHE_H

#include "base/hash.h"
#include "base/workers.h"
#include "kernels/kv.h"

#include <pthread.h>

typedef struct am_cache am_cache;
typedef struct am_turn am_turn;

/* Who owns state. The salt keys every chain hash, so tenants never meet. The default tenant has an empty name and a salt of zeros
 * (its files can be carried to another machine). */
enum { AM_NAME_MAX = 200 };
typedef struct am_tenant {
    char name[64];
    uint8_t salt[32];
} am_tenant;

typedef enum am_durability {
    AM_DURABLE_ALWAYS,   /* a turn is done when its head is fsynced */
    AM_DURABLE_EVERYSEC, /* written at once, fsynced within a second */
    AM_DURABLE_NO        /* written at once, fsynced when the system likes */
} am_durability;

/* What the caches that a process has open on one folder, each for another model, share. Zeroed at first, outlives them all; they are opened and
 * closed one after the other. Who opens it alone clears what a crash left behind and counts every file; others leave temporary files alone, which
 * may be being written. A cache never removes files of another that is open. */
typedef struct am_absent_agent am_absent_agent;
typedef struct am_cache_folder {
    _Atomic uint64_t disk_bytes; /* heads and blocks of every model */
    _Atomic uint32_t n_open;
    pthread_mutex_t lock; /* protects the rest; zeros are an open lock */
    am_absent_agent *absent; /* agents on disk of models that no cache is open for (absent.c) */
    size_t n_absent, cap_absent;
} am_cache_folder;
void am_cache_folder_free(am_cache_folder *folder); /* what it holds; no cache may be open */

typedef struct am_cache_options {
    const char *dir; /* created when missing, mode 0700 */
    am_cache_folder *folder; /* NULL: no other cache is open on dir */
    const char *model_name;
    uint8_t model_fingerprint[16];
    am_kv_layout layout;
    const am_kernels *kernels;
    am_workers *workers;   /* for sealing */
    size_t memory_bytes;   /* both kinds of slot together; at least am_cache_least_bytes */
    uint32_t n_turns;      /* turns that may run at once: at least so many open slots are made */
    uint32_t n_ctx;        /* the pool must hold one sequence of this length: AM_ELIMIT with the numbers otherwise */
    uint64_t disk_bytes;   /* quota for the folder; 0: none. Blocks that no head of any model names go first, then agents without a name, then the
                            * least recently used blocks. */
    uint32_t n_unnamed;    /* agents without a name that each tenant may have here; 0: no limit. The least recently used is forgotten for a new one. */
    am_durability durability;
    void (*wake)(void *arg);
    void *wake_arg;
} am_cache_options;

/* The memory that one sequence of n_ctx tokens can need, with one open block. */
size_t am_cache_least_bytes(const am_kv_layout *layout, uint32_t n_ctx);
/* What a conversation of so many tokens must have in memory to go on: all its global parts, the window parts in reach of the end of its last full
 * block, an open block when there is more. On disk it has window parts in reach of a few more places. */
uint64_t am_cache_agent_bytes(const am_kv_layout *layout, uint64_t n_tokens);

/* Takes the folder's lock for this process (flock on `<dir>/lock`, which says pid and `who`). AM_EBUSY names the holder, after
 * wait_ms in which it did not let go. *fd: keep open. */
am_status am_cache_lock_dir(const char *dir, const char *who, uint32_t wait_ms, int *fd, am_error *err);
void am_cache_lock_release(int fd);
/* Whether somebody has it, and (as they said it) who; takes nothing. */
bool am_cache_lock_held(const char *dir, char who[512]);

/* Removes orphaned temporary files, indexes blocks by name and heads by their (checked) headers. Bad heads are refused here. */
am_status am_cache_open(const am_cache_options *options, am_cache **out, am_error *err);
am_status am_cache_flush(am_cache *cache, am_error *err); /* waits until every dirty head and block is on disk or has failed */
void am_cache_close(am_cache *cache);                     /* no turn may be open; does not flush */
void am_cache_poll(am_cache *cache);

typedef enum am_tier { AM_COLD, AM_WARM, AM_HOT } am_tier; /* nothing reused; something came from disk; all that was reused was in memory */
const char *am_tier_name(am_tier tier);

#define AM_MISS_LIST(X)                                                                                                \
    X(AM_MISS_NONE, NULL)                    /* everything the agent has was reused */                                 \
    X(AM_MISS_NEW_AGENT, "new_agent")        /* no state under this name, and no stored prefix */                      \
    X(AM_MISS_TOKENS_DIFFER, "tokens_differ_at") /* ":N": the request leaves the stored tokens at N */                 \
    X(AM_MISS_WINDOW, "window_gone")         /* ":N": of N tokens only layers with windows were missing; computed again */ \
    X(AM_MISS_MODEL_CHANGED, "model_changed") /* the agent has state under another model tag only */                   \
    X(AM_MISS_EVICTED, "evicted")            /* a block is in no tier any more */                                      \
    X(AM_MISS_CHECKSUM, "checksum")          /* a file did not match its checksum */                                   \
    X(AM_MISS_REFUSED, "refused")            /* a file was malformed, foreign or not a file */                         \
    X(AM_MISS_IO, "io_error")                /* a file could not be read */                                            \
    X(AM_MISS_DISABLED, "disabled")          /* the request asked for no reuse */
typedef enum am_miss {
#define AM_MISS_ENUM(code, text) code,
    AM_MISS_LIST(AM_MISS_ENUM)
#undef AM_MISS_ENUM
} am_miss;

typedef struct am_turn_info {
    char agent[AM_NAME_MAX + 1]; /* the name the turn runs under, also when the request had none */
    bool new_agent;              /* made by this turn */
    am_tier tier;
    uint32_t n_prompt;
    uint32_t n_cached; /* tokens of the prompt whose rows were reused; always < n_prompt */
    am_miss miss;
    uint32_t miss_at;  /* AM_MISS_TOKENS_DIFFER: the position; AM_MISS_WINDOW: how many tokens */
    double restore_ms; /* from open to ready, when something was read */
} am_turn_info;
/* "new_agent", "tokens_differ_at:123" ...; empty string for AM_MISS_NONE. */
void am_miss_text(const am_turn_info *info, char out[64]);

typedef struct am_turn_request {
    const am_tenant *tenant;
    am_str agent;          /* empty: the agent whose stored tokens are the longest prefix, else a new one ("agent-<12 hex>") */
    const int32_t *tokens; /* the whole prompt; n >= 1; copied */
    uint32_t n_tokens;
    uint32_t n_max_new;    /* tokens that may follow; n_tokens + n_max_new <= n_ctx */
    bool no_reuse;         /* compute everything (for tests and measurements) */
    bool ephemeral;        /* never committed: state is reused but no head is written or changed */
} am_turn_request;

/* Finds what can be reused (chain of sealed blocks in any tier, with the window parts in reach of its end, then rows of a head's open block whose tokens match), reserves every slot
 * the turn can need, pins, and starts reading what is on disk. At least the last prompt token is left to compute.
 * AM_AGAIN: no room now, or too many turns: try again after a wake or when a turn ended. AM_ELIMIT: can never fit. */
am_status am_turn_open(am_cache *cache, const am_turn_request *request, am_turn **out, am_error *err);
/* AM_AGAIN while blocks are being read; AM_OK when am_turn_info is final and the turn can run. A block that turns out bad shortens what is
 * reused; it never fails the turn. */
am_status am_turn_ready(am_turn *turn);
const am_turn_info *am_turn_info_of(const am_turn *turn);

/* The sequence as the forward pass wants it: n_past rows exist; sealed [n_past / AM_BLOCK_TOKENS] as am_segment has it, window parts before
 * am_kv_reach(n_past) anything; open has n_past % AM_BLOCK_TOKENS rows. */
uint32_t am_turn_n_past(const am_turn *turn);
const void *const *const *am_turn_sealed(const am_turn *turn);
void *am_turn_open_block(am_turn *turn);
/* The pass wrote n rows for these tokens after n_past. When the block became full it is sealed, named, put in the index (or replaced by
 * the equal one that is there) and handed to the writer. No allocation. */
void am_turn_advance(am_turn *turn, const int32_t *tokens, uint32_t n);
/* Ends the turn: its tokens (and `pending`, sampled ids that have no rows yet) become the agent's head. done(arg, status) is called from
 * am_cache_poll once the head is as durable as options say (or writing failed: the state is then still in memory). The turn is freed. */
void am_turn_commit(am_turn *turn, const int32_t *pending, uint32_t n_pending, void (*done)(void *arg, am_status status), void *arg);
void am_turn_abort(am_turn *turn); /* frees the turn, the head is what it was */

/* The stored token ids of an agent (rows or not), for the text-level seam: view valid until the next call into the cache. AM_ENOTFOUND;
 * AM_AGAIN while they are read from disk (try after a wake). */
am_status am_cache_tokens(am_cache *cache, const am_tenant *tenant, am_str agent, const int32_t **tokens, uint32_t *n);

typedef struct am_agent_info {
    char agent[AM_NAME_MAX + 1];
    char tenant[64];
    am_tier tier;          /* AM_HOT: all its state is in memory; AM_WARM: some of it would be read from disk */
    uint32_t n_tokens;
    uint32_t n_rows;       /* tokens with reusable state */
    uint32_t n_turns;
    uint64_t created_ns, used_ns; /* wall clock */
    uint64_t disk_bytes;   /* its head and its blocks (shared ones counted in full) */
    uint64_t memory_bytes; /* pool slots of its blocks (shared ones counted in full) and of its open block; both: of window parts those it keeps */
    bool running, dirty;
    bool unnamed;          /* no turn of it came with a name: see am_cache_shed */
} am_agent_info;
am_status am_cache_agents(am_cache *cache, const am_tenant *tenant /* NULL: all */, am_status (*fn)(void *arg, const am_agent_info *info),
                          void *arg);
am_status am_cache_agent(am_cache *cache, const am_tenant *tenant, am_str agent, am_agent_info *out);
/* AM_ENOTFOUND, AM_EEXIST (target there), AM_EBUSY (a turn runs; rm only), AM_EINVAL (bad name). rm deletes the head and the blocks that only it
 * used, in memory and on disk. fork is a copy of the head; blocks are shared. evict drops from memory what is on disk. */
am_status am_cache_rm(am_cache *cache, const am_tenant *tenant, am_str agent, am_error *err);
am_status am_cache_fork(am_cache *cache, const am_tenant *tenant, am_str from, am_str to, am_error *err);
am_status am_cache_evict(am_cache *cache, const am_tenant *tenant, am_str agent, am_error *err); /* agent empty: everything idle */

/* Turns that run for agents that are not kept yet: they will be when their first turn ends. Of a tenant (NULL: of all), of one agent (empty: of any). */
uint32_t am_cache_n_coming(const am_cache *cache, const am_tenant *tenant, am_str agent);
/* Forgets every agent of a tenant (NULL: of all) as am_cache_rm does, but for those that run (*n_busy, also those that are coming). Returns how many are gone. */
uint32_t am_cache_clear(am_cache *cache, const am_tenant *tenant, uint32_t *n_busy);
/* The agent that a turn with these tokens and without a name would go on; empty: none. A view until the next call into the cache. */
am_str am_cache_continues(am_cache *cache, const am_tenant *tenant, const int32_t *tokens, uint32_t n_tokens);
/* Forgets a tenant's idle agents without a name, least recently used first, until so much is gone or none is left; what is still to go stays in it. */
typedef struct am_shed {
    const am_tenant *tenant;
    am_str except; /* not this one */
    uint64_t n_agents, disk_bytes; /* as am_agent_info counts them */
} am_shed;
void am_cache_shed(am_cache *cache, am_shed *shed);
am_hash am_cache_tag(const am_cache *cache); /* of its model and form: what its agents' files carry */

/* The same for agents whose model no cache is open for: they are found in the folder. Not on an engine's thread; nobody may open or close a cache of
 * the folder meanwhile. */
typedef struct am_absent {
    const char *dir;
    am_cache_folder *folder;
    const am_hash *open;     /* tags of the caches that are open */
    size_t n_open;
    const am_tenant *tenant; /* NULL: of all */
    am_str agent;            /* empty: every one */
} am_absent;
typedef struct am_absent_result {
    uint32_t n_agents, n_blocks;
    uint64_t bytes;
} am_absent_result;
am_status am_cache_clear_absent(const am_absent *which, am_absent_result *result, am_error *err);

/* Removes what was moved to dir's refused/: nobody can say whose it is, and it may hold tokens of conversations. */
am_status am_cache_clear_refused(const char *dir, uint32_t *n_files, am_error *err);

/* What such agents of a tenant (NULL: of all) take on disk, as am_agent_info counts it; known: one of them has this name. Any thread. Files that somebody
 * removes by hand are counted until a cache is opened alone. */
typedef struct am_absent_usage {
    uint32_t n_agents;
    uint64_t disk_bytes;
    bool known;
} am_absent_usage;
am_absent_usage am_cache_absent_usage(am_cache_folder *folder, const am_tenant *tenant, am_str agent);
/* Drops from memory every block and row that nothing pins and that is on disk (lossy: also what could not be written), and gives the pages of all
 * free slots back to the system. Returns the bytes of the slots that became free. */
size_t am_cache_trim(am_cache *cache, bool lossy);

/* 1..AM_NAME_MAX bytes of UTF-8 without control characters. */
am_status am_agent_name_check(am_str agent, am_error *err);

/* Where the pool's memory is. The mappings are told so that am_footprint_resident can look at them outside the engine's thread (it may take a while);
 * a free slot that was used keeps its pages. */
typedef struct am_cache_memory {
    uint64_t sealed_slot_bytes, open_slot_bytes; /* a sealed slot is a unit of a block (am_kv_layout): all of it where no layer has a window */
    const void *sealed, *open;
    size_t sealed_mapped_bytes, open_mapped_bytes;
    uint32_t n_reserved; /* sealed slots taken for what running turns may still fill */
    uint64_t index_bytes; /* entries of blocks and heads with their tokens, and the tables */
} am_cache_memory;
void am_cache_memory_get(const am_cache *cache, am_cache_memory *out);
/* Running turns: what each holds besides its agent's head. */
typedef struct am_turn_memory {
    const char *agent;
    uint32_t n_reserved, n_pinned; /* sealed slots */
    bool has_open;
} am_turn_memory;
void am_cache_turns(const am_cache *cache, void (*fn)(void *arg, const am_turn_memory *turn), void *arg);

typedef struct am_cache_stats {
    size_t memory_bytes;
    uint32_t n_sealed_slots, n_sealed_used, n_open_slots, n_open_used;
    uint32_t n_heads, n_blocks, n_blocks_disk, n_dirty;
    uint64_t disk_bytes, bytes_written, bytes_read, n_evictions, n_refused, n_write_failures, n_restored_blocks, n_orphans;
    uint64_t n_unnamed, n_shed; /* agents without a name: that there are, that were forgotten for room */
} am_cache_stats;
void am_cache_stats_get(const am_cache *cache, am_cache_stats *out);

#endif
