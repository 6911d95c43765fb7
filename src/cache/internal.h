/* The cache's private types: what a block, a head, a turn and a job are, and who may touch them.
 *
 * Everything here belongs to the engine thread, except what a job carries while it is in the queue: job fields, and the slot or buffer it
 * names, which nobody else touches until am_cache_poll takes the job back.
 *
 *   part states    absent -> (advance) in memory, dirty -> (write) in memory and on disk -> (evict) on disk -> (read) both
 *   AM_PART_READING / WRITING while a job has it; such a part is neither evicted nor freed.
 *
 * A block has the parts that the model's layout has; each has its own memory, file and life. Global parts are kept by every head whose chain names
 * the block, window parts by heads one of whose points they are in reach of (keep_windows.c); only kept window parts are written.
 *
 * Who pays for a window part in memory: the running turn out of whose reserve its units came, or that found it idle, or nobody. A turn holds at most
 * as many window parts as it has paid for or has units in reserve for, so letting one go must give units back: the payer takes them from whoever
 * still uses the part (who pays from then on), else it evicts the part. Hence a part with a payer is never being written (turn_windows.c). */
#ifndef AM_CACHE_INTERNAL_H
#define AM_CACHE_INTERNAL_H

#include "cache/cache.h"
#include "model/safetensors.h"

typedef struct am_block am_block;
typedef struct am_part am_part;
typedef struct am_head am_head;
typedef struct am_job am_job;
typedef struct am_head_view am_head_view;

struct am_job {
    am_job *next;
    am_status (*run)(am_cache *cache, am_job *job, am_error *err); /* on an I/O thread; reads only what never changes in cache */
    void (*done)(am_cache *cache, am_job *job);                    /* on the engine thread */
    am_status status;
    am_error err;
    uint64_t batch; /* of reads that were added together; 0: of none */
    bool ahead;     /* its file was told to the disk before its turn came */
    am_part *part;
    uint64_t file_bytes; /* of a part's file that was written */
    am_turn *turn;
    am_head *head;
};

typedef enum am_part_busy { AM_PART_IDLE, AM_PART_READING, AM_PART_WRITING } am_part_busy;

struct am_part {
    am_block *block;
    am_kv_part kind;
    am_part *newer, *older;    /* in the list by use, all parts */
    void **units;              /* where its bytes are while it is resident: its share of the block's table */
    void **incoming;           /* where they are being read to */
    am_turn *payer;            /* window parts only; see above */
    uint32_t n_pins;           /* turns that hold it */
    uint32_t n_keeps;          /* heads that want it kept */
    am_part_busy busy;
    bool resident;
    bool on_disk, write_failed, unwanted; /* unwanted: delete when the job is back */
    am_miss lost;              /* why it is in no tier */
    uint64_t file_bytes;
    am_job job;
};

struct am_block {
    am_hash hash, parent;
    am_block *next;            /* in its hash bucket */
    int32_t *tokens;           /* [AM_BLOCK_TOKENS], or NULL while only its name is known */
    uint32_t n_turns;          /* turns that have it in their list */
    uint32_t n_heads;          /* heads whose chain names it */
    bool foreign;              /* a head of another model named it when the cache was opened */
    bool fork;                 /* somebody else's turn went another way from its end: a point of every head that has it */
    am_part *part[AM_KV_PARTS]; /* NULL: the model has no such part, and there is no such file */
    am_part *extra;            /* one that the model does not have: a file of another's */
    void **units;              /* [layout's n_units], as attention wants them */
};

/* What a commit asked to be told. */
typedef struct am_waiter {
    struct am_waiter *next;
    void (*done)(void *arg, am_status status);
    void *arg;
} am_waiter;

typedef struct am_head_image {
    char *bytes; /* the whole file */
    size_t n, sum_at;
    am_sum sum;
    uint64_t version; /* the head's `changed` it was made from */
    bool has_rows;
} am_head_image;

struct am_head {
    am_head *next; /* in its bucket */
    am_head *newer, *older; /* by use */
    am_tenant tenant;
    char agent[AM_NAME_MAX + 1];
    char *file; /* name in the folder */
    int32_t *tokens;
    uint32_t n_tokens, n_rows; /* n_rows <= n_tokens; n_rows / 256 == n_chain, except after a damaged chain */
    am_block **chain;
    uint32_t n_chain;
    uint32_t before, prompt; /* points, in blocks: the end of the turn before, the end of the last prompt */
    am_part **kept;         /* window parts that it keeps */
    uint32_t n_kept;
    void *open;             /* slot with n_rows % 256 rows, or NULL */
    bool on_disk;           /* the file holds this very state */
    bool rows_on_disk;      /* and its open rows */
    bool removed, writing, write_failed;
    bool unnamed;           /* no turn of it came with a name */
    uint32_t n_running;     /* turns */
    uint32_t n_turns;
    uint64_t created_ns, used_ns, file_bytes, changed; /* changed: counts commits */
    size_t sum_at;          /* where the file's checksum lies; rows follow it */
    am_sum sum;
    am_head_image image;    /* waiting to be written, when bytes */
    am_head_image in_flight;
    am_waiter *waiters, *in_flight_waiters;
    am_job job;
};

/* Ends from which a turn's successors may go on, besides its own. */
typedef enum am_point { AM_POINT_BEFORE, AM_POINT_PROMPT, AM_POINT_FORK, AM_N_POINTS } am_point;

struct am_turn {
    am_cache *cache;
    am_turn *next_open, *prev_open; /* in the cache's list of open turns */
    am_head *head;          /* NULL for a new or nameless agent */
    am_tenant tenant;
    am_turn_info info;
    bool ephemeral, ready;
    bool named;             /* the request said whose it is */
    bool aborted; /* waits only for its rows job to come back */
    int32_t *tokens; /* [n_tokens + n_max_new + 1]; n_past of them have rows */
    uint32_t n_prompt, n_past;
    am_block **blocks;      /* the first n_pinned are pinned: matched ones, then those sealed by this turn */
    const void *const **sealed; /* tables of blocks that are in use */
    uint32_t n_pinned, n_usable; /* n_usable: matched blocks that are reused; less than n_pinned when reading failed */
    bool *window;           /* [n_blocks]: it holds the window part of this block */
    uint32_t point[AM_N_POINTS]; /* in blocks, 0: none. Window parts in their reach are held to the end */
    void *open;
    void **units;           /* reserved */
    uint32_t n_units;
    am_block *spare;        /* preallocated entries, one a block that may come, linked by next */
    am_block *used_spare;   /* not needed after all, freed at the end */
    am_miss next_lost;      /* why the first of the prompt's chain that is in no tier is in none; AM_MISS_NONE: its name is not known */
    am_miss lost;           /* why something could not be read that cut the match short; AM_MISS_NONE: all was */
    uint32_t n_redone;      /* blocks that matched but for window parts */
    bool from_disk;
    /* rows of the open block, copied from a head's slot or read from its file */
    uint32_t n_rows;        /* how many this turn can use */
    bool reading_rows;
    am_miss rows_lost;      /* AM_MISS_NONE, or why reading failed */
    am_job rows_job;
    uint32_t rows_in_file;
    size_t rows_sum_at;
    am_sum rows_sum;
    char rows_file[320], rows_agent[AM_NAME_MAX + 1];
    uint64_t started_ns;
};

/* A head under another tag, as it was when the cache was opened. */
typedef struct am_foreign {
    am_hash key; /* tenant and agent hashed */
    uint64_t used_ns;
    am_block **chain; /* those of its blocks that are on disk; only while the cache is being opened */
    uint32_t n_chain;
} am_foreign;

/* A class of equal slots in one mapping. */
typedef struct am_pool {
    char *memory;
    size_t slot_bytes, mapped_bytes;
    uint32_t n_slots, n_free;
    void **free_slots;
} am_pool;

typedef struct am_io_queue am_io_queue;

struct am_cache {
    am_cache_options options; /* constant after open, with the four below: what I/O threads may read */
    char *dir;
    char *model_name;
    bool alone;             /* was opened while no other was */
    am_cache_folder *folder, own_folder; /* folder: own_folder when no other was given */
    am_hash tag;
    char tag_hex[65];
    am_pool sealed, open; /* sealed: units */
    am_io_queue *io;
    am_job populate_job;
    uint32_t n_ahead;       /* sealed slots that it populates */
    am_block **block_buckets;
    size_t n_block_buckets; /* power of two */
    am_part part_ring;      /* newest is ring.older; the list is circular */
    am_head **head_buckets;
    size_t n_head_buckets;
    am_head head_ring;
    am_waiter *ready_waiters; /* commits that needed no file */
    uint32_t n_open_turns;
    am_turn *turns;         /* the open ones */
    am_foreign *foreign;    /* heads under other tags */
    size_t n_foreign, cap_foreign;
    uint64_t foreign_bytes; /* of their files */
    uint64_t retry_ns;      /* when failed writes are tried again */
    _Atomic uint64_t n_refused; /* I/O threads refuse files too */
    am_cache_stats stats;
};

/* pool.c */
am_status am_pool_init(am_pool *pool, size_t slot_bytes, uint32_t n_slots, am_error *err);
void am_pool_free(am_pool *pool);
void *am_pool_take(am_pool *pool); /* NULL when none is free */
void am_pool_give(am_pool *pool, void *slot);
void am_pool_trim(am_pool *pool); /* pages of free slots go back to the system */
void am_pool_populate(const am_pool *pool, uint32_t n_slots); /* the first slots get their pages now; any thread */

/* io_queue.c: a few threads that run jobs; reads go before others. */
am_status am_io_queue_create(am_cache *cache, uint32_t n_threads, am_io_queue **out, am_error *err);
void am_io_queue_free(am_io_queue *queue); /* runs what is queued, then ends the threads */
void am_io_queue_add(am_io_queue *queue, am_job *job);
void am_io_queue_add_reads(am_io_queue *queue, am_job *first); /* linked by next; may be NULL. options.wake is called when the last of them is done */
/* Calls fn with the next jobs to read parts, at most n, that it was not called with before. Under the queue's lock. */
void am_io_queue_look_ahead(am_io_queue *queue, uint32_t n, void (*fn)(void *arg, const am_job *job), void *arg);
am_job *am_io_queue_take_done(am_io_queue *queue);            /* all finished jobs, oldest first, linked by next */
bool am_io_queue_wait(am_io_queue *queue, uint32_t timeout_ms); /* until something is done; false: nothing is under way */
void am_io_queue_sync_later(am_io_queue *queue, const char *name); /* AM_DURABLE_EVERYSEC: fsync this file within a second */

/* index.c */
am_hash am_block_name(const am_tenant *tenant, const am_hash *tag, const am_hash *parent, const int32_t *tokens);
am_block *am_index_block(am_cache *cache, const am_hash *hash); /* NULL when unknown */
am_block *am_index_new_block(const am_kv_layout *layout);        /* an entry that is in no table; NULL when out of memory */
void am_index_free_block(am_block *block);                      /* of such an entry */
void am_index_add_block(am_cache *cache, am_block *block);      /* block->hash is set; no allocation */
am_block *am_index_name_block(am_cache *cache, const am_hash *hash); /* finds or makes an entry; NULL when out of memory */
am_part *am_index_name_part(am_cache *cache, am_block *block, am_kv_part kind); /* also one that is another model's; NULL when out of memory */
void am_index_drop_block(am_cache *cache, am_block *block);     /* frees the entry when nothing needs it */
void am_index_touch(am_cache *cache, am_part *part);            /* the last to be evicted */
void am_index_touch_block(am_cache *cache, am_block *block);
void am_index_demote(am_cache *cache, am_part *part);           /* the first to be evicted */
am_head *am_index_head(am_cache *cache, const am_tenant *tenant, am_str agent); /* not removed ones */
am_head *am_index_make_head(am_cache *cache, const am_tenant *tenant, am_str agent, am_error *err);
void am_index_free_head(am_cache *cache, am_head *head);
am_hash am_index_head_key(const char *tenant, am_str agent);
void am_index_touch_head(am_cache *cache, am_head *head);
bool am_index_is_foreign(const am_cache *cache, const am_tenant *tenant, am_str agent);
am_status am_index_add_foreign(am_cache *cache, const am_head_view *view);

/* shed.c */
bool am_shed_one(am_cache *cache, const char *why); /* false: nobody can go */
void am_shed_excess(am_cache *cache, const am_tenant *tenant);

/* absent.c: the folder's account of agents whose model no cache is open for; filled by who opens it alone, then by whoever closes */
void am_absent_forget_all(am_cache_folder *folder);
void am_absent_add_view(const am_cache *cache, const am_head_view *view, uint64_t block_bytes);
void am_absent_opened(const am_cache *cache); /* agents of its model are its own from now on */
void am_absent_closing(am_cache *cache);      /* and are so no more */

/* What makes state usable: the model and the form of its cache (cache.c). */
uint32_t am_cache_most_windows(const am_kv_layout *layout, uint32_t n_blocks); /* that a turn of so many blocks can hold at once */
am_hash am_model_tag(const am_kv_spec *spec, const uint8_t fingerprint[16]);

/* name.c */
char *am_head_file_name(const char *tenant, am_str agent, const char *tag_hex); /* allocated */
void am_block_file_name(am_kv_part part, const am_hash *hash, char out[96]);
bool am_block_file_parse(const char *name, am_kv_part *part, am_hash *hash); /* whether it is the name of a block's file */

/* read_ahead.c: a job that is about to read n bytes of a file at `at` says so. When they are not in memory the disk is told of all of them, and of the next
 * jobs' files. */
void am_read_ahead(const am_cache *cache, int fd, off_t at, size_t n);

/* block_file.c, head_file.c */
am_status am_block_file_read(am_cache *cache, am_job *job, am_error *err);
am_status am_block_file_write(am_cache *cache, am_job *job, am_error *err);
/* A whole block's file, checked by itself: form, length, checksum. The tokens are [AM_BLOCK_TOKENS]; kv views into bytes, when they were asked for. */
typedef struct am_block_view {
    am_kv_part part;
    am_hash hash, parent, tag;
    int32_t tokens[AM_BLOCK_TOKENS];
    am_buf bytes;
    size_t kv_at, kv_bytes;
} am_block_view;
am_status am_block_file_view(const char *dir, const char *name, am_block_view *out, am_error *err); /* the caller frees out->bytes */
am_status am_head_file_build(const am_cache *cache, const am_head *head, am_head_image *out, am_error *err);
am_status am_head_file_write(am_cache *cache, am_job *job, am_error *err);
/* A head's file, read and checked up to its `sum`; the rest are views into its bytes. */
struct am_head_view {
    am_buf bytes;
    am_st *file;
    am_str agent, tag;
    char tenant[64];
    const uint8_t *tokens, *chain, *points;
    uint64_t n_tokens, n_chain, n_points, n_rows, created_ns, used_ns, n_turns, rows_bytes, file_bytes;
    uint64_t window; /* 0: no layer has one */
    bool has_global; /* not all layers have one */
    bool unnamed;
    size_t sum_at; /* the sum, then rows_bytes of rows, then their sum, when there are rows */
};
/* Looks at dir, tag_hex and layout of the cache alone. AM_EFORMAT, AM_ECORRUPT, AM_ENOTFOUND, AM_EIO; on success the caller frees *out. */
am_status am_head_file_view(const am_cache *cache, const char *name, am_head_view *out, am_error *err);
void am_head_view_free(am_head_view *view);

am_status am_head_file_load(am_cache *cache, const char *name, am_error *err); /* adds the head, or notes a foreign one */
am_status am_head_file_read_rows(am_cache *cache, am_job *job, am_error *err);
/* The rows of a head's file and the sums around them: handed over piece by piece as they are read, and to be trusted only when all were and the answer is
 * AM_OK. AM_ENOTFOUND when it is not the file any more whose sum is given. */
typedef struct am_head_rows {
    const uint8_t *sum; /* [16] */
    size_t at, n_bytes; /* of the sum; of the rows behind it */
    size_t piece_bytes; /* divides n_bytes */
    void (*take)(void *arg, uint32_t piece, const uint8_t *bytes);
    void *arg;
} am_head_rows;
am_status am_head_rows_read(int fd, const char *path, const am_head_rows *rows, am_error *err);
/* Moves a file to refused/ and logs why. Any thread. */
void am_refuse_file(am_cache *cache, const char *name, am_status status, const char *reason);

/* keep.c: what stays in memory and what goes to disk */
void am_keep_count_disk(am_cache *cache, int64_t bytes); /* files of this cache grew, or shrank */
static inline bool am_keep_wanted(const am_part *part) { return part->kind == AM_KV_GLOBAL || part->n_keeps > 0; } /* on disk */
void am_keep_write_part(am_cache *cache, am_part *part);
void am_keep_delete_file(am_cache *cache, am_part *part); /* of a part that is on disk */
void am_keep_write_head(am_cache *cache, am_head *head);
bool am_keep_evictable(const am_part *part);
void am_keep_evict_part(am_cache *cache, am_part *part);
void am_keep_give_units(am_cache *cache, am_part *part); /* it is resident no more */
void am_keep_delete_block(am_cache *cache, am_block *block); /* memory and disk, as far as nobody has it */
void am_keep_unkeep(am_cache *cache, am_part *part);      /* one head less keeps it */
void am_keep_settle(am_cache *cache, am_part *part);      /* a job is back: what was put off because of it */
static inline uint32_t am_part_units(const am_cache *cache, const am_part *part) { return cache->options.layout.part_units[part->kind]; }
void *am_keep_open_slot(am_cache *cache);   /* evicts idle heads' rows; NULL when none can be had now */
bool am_keep_units(am_cache *cache, void **units, uint32_t n); /* all or none */
void am_keep_drop_rows(am_cache *cache, am_head *head); /* from memory */
bool am_keep_rows_droppable(const am_head *head);
void am_keep_set_chain(am_cache *cache, am_head *head, am_block **chain, uint32_t n); /* takes the array */
void am_keep_windows(am_cache *cache, am_head *head);     /* the window parts of its points are kept, others no more (keep_windows.c) */
void am_keep_fork(am_cache *cache, am_block *block, uint32_t i); /* a turn parted from others at the end of this block, the i-th of its chain */
void am_keep_forget_head(am_cache *cache, am_head *head);   /* memory and disk; blocks only it used too */
void am_keep_waiters_done(am_waiter *waiters, am_status status);
void am_keep_retry(am_cache *cache);
void am_keep_quota(am_cache *cache);

#endif
