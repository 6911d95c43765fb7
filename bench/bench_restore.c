/* How quickly an agent's state comes back from disk, checksums on, beside what the same files' bytes cost to read at all. No forward pass: rows are noise.
 *
 * "after a restart": the cache is opened anew, its memory has never been touched. "after eviction": its memory has been in use. Pages of the files are in
 * the page cache (warm) or dropped before (cold). Beside them, into memory that was touched: the files read one after the other by one thread, and by two, and
 * cold ones with O_DIRECT too (direct needs whole sectors: files are read up to their last one). Before each, other memory is written, so that nobody finds
 * bytes in the processor's caches that the one before left there.
 *
 *   build/bench/bench_restore [MODEL [TOKENS [RUNS]]]      default: the embedded model's layout, 4000, 5; TMPDIR says which disk */
#include "base/fs.h"
#include "engine_bench.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { MAX_FILES = 4096, MAX_RUNS = 64, PIECE = 1 << 20, MAX_READERS = 8 };

typedef struct files {
    char path[MAX_FILES][256];
    size_t at[MAX_FILES], room; /* where each is read to, whole pages */
    char *memory;
    uint32_t n;
    uint64_t bytes;
} files;

static files found;

static void find_files(const char *dir) {
    DIR *d = opendir(dir);
    found.n = 0, found.bytes = 0;
    for (struct dirent *e; d && (e = readdir(d)) && found.n < MAX_FILES;) {
        struct stat st;
        if (!strstr(e->d_name, ".safetensors")) continue;
        snprintf(found.path[found.n], sizeof found.path[0], "%.90s/%.160s", dir, e->d_name);
        if (stat(found.path[found.n], &st) != 0) continue;
        found.at[found.n++] = found.room;
        found.room += ((size_t)st.st_size + PIECE) & ~(size_t)4095;
        found.bytes += (uint64_t)st.st_size;
    }
    if (d) closedir(d);
    found.memory = mmap(NULL, found.room + PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(found.memory, found.room + PIECE, MADV_HUGEPAGE);
    memset(found.memory, 1, found.room + PIECE);
}

static void drop_pages(void) {
    for (uint32_t i = 0; i < found.n; i++) {
        int fd = open(found.path[i], O_RDONLY);
        if (fd < 0) continue;
        fdatasync(fd);
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
}

static void empty_caches(void) {
    static char other[128 << 20];
    static char value;
    memset(other, ++value, sizeof other);
}

/* ---- plain reading ---- */

typedef struct reader {
    pthread_t thread;
    uint32_t first, step;
    bool direct;
    char *to; /* as large as all files */
} reader;

static void *read_files(void *arg) {
    const reader *r = arg;
    for (uint32_t i = r->first; i < found.n; i += r->step) {
        int fd = open(found.path[i], O_RDONLY | (r->direct ? O_DIRECT : 0));
        for (char *to = r->to + found.at[i]; fd >= 0 && read(fd, to, PIECE) == PIECE; to += PIECE) {}
        if (fd >= 0) close(fd);
    }
    return NULL;
}

static double plain_ms(uint32_t n_readers, bool direct) {
    reader readers[MAX_READERS];
    for (uint32_t i = 0; i < n_readers; i++) readers[i] = (reader){.first = i, .step = n_readers, .direct = direct, .to = found.memory};
    empty_caches();
    uint64_t start = am_now_ns();
    for (uint32_t i = 0; i < n_readers; i++)
        if (pthread_create(&readers[i].thread, NULL, read_files, &readers[i])) return 0;
    for (uint32_t i = 0; i < n_readers; i++) pthread_join(readers[i].thread, NULL);
    return am_ms_since(start);
}

/* ---- the agent ---- */

typedef struct bench {
    bench_engine b;
    am_cache *cache;
    int32_t *tokens;
    uint32_t n;
    pthread_mutex_t lock; /* protects woken */
    pthread_cond_t wake;
    bool woken;
} bench;

static void wake(void *arg) {
    bench *b = arg;
    pthread_mutex_lock(&b->lock);
    b->woken = true;
    pthread_cond_signal(&b->wake);
    pthread_mutex_unlock(&b->lock);
}

static am_status open_turn(bench *b, am_turn **turn, am_error *err) {
    static const am_tenant tenant;
    am_turn_request request = {.tenant = &tenant, .agent = AM_STR("agent"), .tokens = b->tokens, .n_tokens = b->n + 1, .n_max_new = 1};
    return am_turn_open(b->cache, &request, turn, err);
}

static am_status make_agent(bench *b, am_error *err) {
    uint64_t seed = 1;
    am_turn *turn;
    for (uint32_t i = 0; i <= b->n; i++) b->tokens[i] = (int32_t)bench_dice(&seed, am_model_info_of(b->b.model)->n_vocab);
    am_status status = am_cache_open(&b->b.options.cache, &b->cache, err);
    if (!status) status = open_turn(b, &turn, err);
    if (status) return status;
    for (uint32_t at = 0, count; at < b->n; at += count) {
        count = b->n - at < AM_BLOCK_TOKENS ? b->n - at : AM_BLOCK_TOKENS;
        uint16_t *rows = am_turn_open_block(turn);
        for (size_t i = 0; i < b->b.options.cache.layout.open_bytes / 2; i++) rows[i] = (uint16_t)(bench_dice(&seed, 1 << 15) & 0xbbff); /* finite halves */
        am_turn_advance(turn, b->tokens + at, count);
    }
    am_turn_commit(turn, NULL, 0, NULL, NULL);
    status = am_cache_flush(b->cache, err);
    am_cache_close(b->cache);
    b->cache = NULL;
    return status;
}

/* From a turn's opening to where it can run: ms. */
static am_status restore(bench *b, double *ms, am_error *err) {
    am_turn *turn;
    empty_caches();
    uint64_t start = am_now_ns();
    am_status status = open_turn(b, &turn, err);
    while (!status && (status = am_turn_ready(turn)) == AM_AGAIN) {
        pthread_mutex_lock(&b->lock);
        while (!b->woken) pthread_cond_wait(&b->wake, &b->lock);
        b->woken = false;
        pthread_mutex_unlock(&b->lock);
        am_cache_poll(b->cache);
        status = AM_OK;
    }
    *ms = am_ms_since(start);
    if (status) return status;
    const am_turn_info *info = am_turn_info_of(turn);
    if (info->tier != AM_WARM || info->n_cached != b->n) status = am_fail(err, AM_ECORRUPT, "%u of %u tokens came back, %s", info->n_cached, b->n, am_tier_name(info->tier));
    am_turn_abort(turn);
    return status;
}

static am_status measure(bench *b, bool restarted, bool cold, double *ms, am_error *err) {
    am_status status = AM_OK;
    if (restarted) {
        am_cache_close(b->cache);
        b->cache = NULL;
        status = am_cache_open(&b->b.options.cache, &b->cache, err);
        if (!status) status = am_cache_flush(b->cache, err); /* a server has long been ready when the first turn comes */
    } else {
        am_cache_evict(b->cache, NULL, (am_str){0}, NULL);
    }
    if (cold) drop_pages();
    return status ? status : restore(b, ms, err);
}

static void show(const char *name, double *ms, int runs) {
    double median = bench_median(ms, runs);
    printf("%-44s %8.2f ms %8.2f GB/s\n", name, median, (double)found.bytes / median * 1e-6);
}

static am_status rows(bench *b, int runs, am_error *err) {
    double ms[8][MAX_RUNS];
    am_status status = AM_OK;
    for (int run = -1; !status && run < runs; run++) { /* in turn, so that a disk whose rate drifts drifts for all; the first is not counted */
        int i = run < 0 ? 0 : run;
        for (int cold = 0; !status && cold < 2; cold++) {
            double *at[4];
            for (int row = 0; row < 4; row++) at[row] = &ms[4 * cold + row][i];
            plain_ms(1, false); /* pages are there, whatever was dropped before */
            status = measure(b, true, cold, at[0], err);
            if (!status) status = measure(b, false, cold, at[1], err);
            if (cold) drop_pages();
            *at[2] = plain_ms(1, cold);
            if (cold) drop_pages();
            *at[3] = plain_ms(2, cold);
        }
    }
    static const char *const names[8] = {"warm pages: restored after a restart", "warm pages: restored after eviction", "warm pages: read by one thread", "warm pages: read by two",
                                         "cold pages: restored after a restart", "cold pages: restored after eviction", "cold pages: O_DIRECT, one thread", "cold pages: O_DIRECT, two"};
    for (int row = 0; !status && row < 8; row++) show(names[row], ms[row], runs);
    return status;
}

int main(int argc, char **argv) {
    bench b = {.n = argc > 2 ? (uint32_t)atoi(argv[2]) : 4000, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    int runs = argc > 3 ? atoi(argv[3]) : 5;
    am_error err = {0};
    if (runs < 1 || runs > MAX_RUNS) runs = 5;
    am_status status = bench_load(&b.b, argc > 1 && *argv[1] ? argv[1] : NULL, &err);
    am_cache_options *o = &b.b.options.cache;
    b.tokens = am_calloc((size_t)b.n + 1, sizeof *b.tokens);
    if (!status) {
        o->n_turns = 1;
        o->n_ctx = b.n + AM_BLOCK_TOKENS;
        o->memory_bytes = 2 * am_cache_least_bytes(&o->layout, o->n_ctx) + 4 * o->layout.open_bytes;
        o->wake = wake;
        o->wake_arg = &b;
        status = b.tokens ? make_agent(&b, &err) : AM_ENOMEM;
    }
    if (!status) status = am_cache_open(o, &b.cache, &err);
    if (!status) {
        find_files(b.b.dir);
        printf("%s, %u tokens, %u files of %.1f MB in %s, table %s\n", am_model_info_of(b.b.model)->name, b.n, found.n, (double)found.bytes * 1e-6, b.b.dir, b.b.kernels->name);
        status = rows(&b, runs, &err);
    }
    if (status) fprintf(stderr, "bench_restore: %s\n", err.message[0] ? err.message : am_status_text(status));
    am_cache_close(b.cache);
    free(b.tokens);
    bench_free(&b.b);
    return status != AM_OK;
}
