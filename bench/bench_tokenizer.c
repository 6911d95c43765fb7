/* Times one tokenizer, one thread: loading (JSON, and compiled), memory, texts there and back, and how time grows with length for ordinary
 * and for hostile texts. One JSON line per figure; bench/bench_tokenizer.py makes tables of them and runs Hugging Face's library beside it.
 *
 *     bench_tokenizer [--repeat N] [--curve] [TOKENIZER_DIR [TEXT...]]
 *
 * Without a folder a vocabulary of Llama 3's shape is made up (128,000 entries, 280,000 merges); without a text, a text. Seconds are those of
 * the clock and, as cpu_s, of the processor: the latter hold on a busy machine too. Medians; the least besides. */
#include "base/fs.h"
#include "text/tokenizer.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_REPEAT = 101, N_WORDS = 128000, N_MERGES = 280000 };

typedef struct times {
    double wall[MAX_REPEAT], cpu[MAX_REPEAT];
    int n;
} times;

static double clock_s(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void start(times *t) {
    t->wall[t->n] = -clock_s(CLOCK_MONOTONIC);
    t->cpu[t->n] = -clock_s(CLOCK_PROCESS_CPUTIME_ID);
}

static void stop(times *t) {
    t->cpu[t->n] += clock_s(CLOCK_PROCESS_CPUTIME_ID);
    t->wall[t->n++] += clock_s(CLOCK_MONOTONIC);
}

static int order(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void put(const char *name, times *t) {
    qsort(t->wall, (size_t)t->n, sizeof *t->wall, order);
    qsort(t->cpu, (size_t)t->n, sizeof *t->cpu, order);
    printf(", \"%s_s\": %.6f, \"%s_cpu_s\": %.6f, \"%s_least_s\": %.6f", name, t->wall[t->n / 2], name, t->cpu[t->n / 2], name, t->wall[0]);
}

static void die(const char *message) {
    fprintf(stderr, "bench_tokenizer: %s\n", message);
    exit(1);
}

static uint64_t rnd(void) {
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* ---- what stands in for real files */

typedef struct word {
    char p[20];
    int n, left, right;
} word;

/* Each entry joins two earlier ones; the merges left over are other ways to say the same. */
static void vocabulary_make(const char *path) {
    word *w = calloc(N_WORDS, sizeof *w);
    FILE *f = fopen(path, "w");
    if (!w || !f) die("no vocabulary can be made");
    fputs("{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{", f);
    int n = 0;
    for (int c = '!'; c <= '~'; c++)
        if (c != '"' && c != '\\') w[n++] = (word){{(char)c}, 1, -1, -1};
    w[n++] = (word){"\xC4\xA0", 2, -1, -1}; /* the space, and the newline */
    w[n++] = (word){"\xC4\x8A", 2, -1, -1};
    for (int id = 0; id < N_WORDS; id++) {
        while (id >= n) {
            int i = (int)(rnd() % (uint64_t)n), k = (int)(rnd() % (uint64_t)(n < 4000 ? n : 4000));
            if (w[i].n + w[k].n > 18 || w[k].p[0] == '\xC4') continue;
            w[n] = (word){.n = w[i].n + w[k].n, .left = i, .right = k};
            memcpy(w[n].p, w[i].p, (size_t)w[i].n);
            memcpy(w[n].p + w[i].n, w[k].p, (size_t)w[k].n);
            n++;
        }
        fprintf(f, "%s\"%s\":%d", id ? "," : "", w[id].p, id);
    }
    fputs("},\"merges\":[", f);
    int n_merges = 0;
    for (int id = 0; id < N_WORDS; id++)
        if (w[id].left >= 0) fprintf(f, "%s\"%s %s\"", n_merges++ ? "," : "", w[w[id].left].p, w[w[id].right].p);
    for (int id = 0; n_merges < N_MERGES; id = (id + 1) % N_WORDS)
        if (w[id].left >= 0) fprintf(f, ",\"%s %s\"", w[w[id].left].p, w[w[id].right].p), n_merges++;
    fputs("]}}", f);
    if (fclose(f)) die("no vocabulary can be made");
    free(w);
}

static void text_make(am_buf *out, size_t n) {
    static const char *const words[] = {"the", "of", "prince", "and", "to", "a", "said", "Pierre", "in", "was", "officers", "1805", "he", "that", "looking", "Natasha", "return"};
    while (out->n < n) {
        uint64_t r = rnd();
        am_buf_add(out, am_str_of(words[r % (sizeof words / sizeof *words)]));
        am_buf_add(out, am_str_of(r >> 20 & 7 ? " " : r >> 23 & 3 ? ", " : ".\n\n"));
    }
}

/* ---- figures */

static size_t in_use(void) {
    malloc_trim(0);
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static am_tokenizer *load_time(const char *dir, const char *compiled, int repeat) {
    times json = {0}, warm = {0};
    am_tokenizer *t = NULL;
    am_error err = {0};
    size_t memory = 0;
    for (int i = 0; i < 2 * repeat + 1; i++) {
        am_tokenizer_free(t);
        size_t before = in_use();
        times *which = i < repeat ? &json : &warm;
        start(which);
        if (am_tokenizer_load_dir_compiled(dir, i < repeat ? NULL : compiled, &t, &err)) die(err.message);
        stop(which);
        memory = in_use() - before;
        if (i == repeat) warm.n = 0; /* it was compiled just now */
    }
    printf("{\"what\": \"load\", \"n_vocab\": %zu, \"memory_bytes\": %zu", am_tokenizer_n_vocab(t), memory);
    put("json", &json);
    put("compiled", &warm);
    puts("}");
    return t;
}

/* The text as paragraphs come in: cut at the first newline behind every thousand bytes. */
static void cut_encode(const am_tokenizer *t, am_str text, am_tokens *tokens) {
    am_error err = {0};
    for (size_t b = 0, e; b < text.n; b = e) {
        const char *line = text.n - b > 1000 ? memchr(text.p + b + 1000, '\n', text.n - b - 1000) : NULL;
        e = line ? (size_t)(line - text.p) + 1 : text.n;
        if (am_tokenizer_encode(t, (am_str){text.p + b, e - b}, NULL, 0, 0, tokens, &err)) die(err.message);
    }
}

static void text_time(const am_tokenizer *t, const char *name, am_str text, int repeat) {
    am_buf back;
    am_tokens tokens = {0};
    am_error err = {0};
    times encode = {0}, decode = {0}, cut = {0};
    am_buf_init(&back, (size_t)1 << 31);
    for (int i = 0; i < repeat; i++) {
        start(&cut);
        cut_encode(t, text, &tokens);
        stop(&cut);
        start(&encode);
        if (am_tokenizer_encode(t, text, NULL, 0, 0, &tokens, &err)) die(err.message);
        stop(&encode);
        am_buf_clear(&back);
        start(&decode);
        if (am_tokenizer_decode(t, tokens.ids, tokens.n, false, &back)) die("decoding failed");
        stop(&decode);
    }
    printf("{\"what\": \"text\", \"text\": \"%s\", \"bytes\": %zu, \"tokens\": %zu, \"same\": %s", name, text.n, tokens.n, am_str_eq(am_buf_str(&back), text) ? "true" : "false");
    put("encode", &encode);
    put("cut", &cut);
    put("decode", &decode);
    puts("}");
    am_tokens_free(&tokens);
    am_buf_free(&back);
}

/* Processor time a byte from 1 KB to 10 MB, and once 50 MB: it must not grow with the length. */
static void curve(const am_tokenizer *t, const char *name, am_str unit) {
    static const size_t sizes[] = {1000, 10000, 100000, 1000000, 10000000, 50000000};
    am_tokens tokens = {0};
    am_error err = {0};
    char *text = malloc(sizes[5] + unit.n);
    if (!text) die("no memory for 50 MB");
    for (size_t i = 0; i < sizes[5]; i += unit.n) memcpy(text + i, unit.p, unit.n < sizes[5] + unit.n - i ? unit.n : sizes[5] + unit.n - i);
    printf("{\"what\": \"curve\", \"text\": \"%s\", \"ns_per_byte\": {", name);
    for (size_t k = 0; k < 6; k++) {
        size_t n = sizes[k];
        while (n && ((uint8_t)text[n] & 0xC0) == 0x80) n--; /* at a character's border */
        times one = {0};
        for (int i = 0; i < (k < 4 ? 5 : 1); i++) {
            start(&one);
            if (am_tokenizer_encode(t, (am_str){text, n}, NULL, 0, 0, &tokens, &err)) die(err.message);
            stop(&one);
        }
        qsort(one.cpu, (size_t)one.n, sizeof *one.cpu, order);
        printf("%s\"%zu\": %.1f", k ? ", " : "", sizes[k], one.cpu[one.n / 2] * 1e9 / (double)n);
        fflush(stdout);
    }
    puts("}}");
    free(text);
    am_tokens_free(&tokens);
}

static void read_text(const char *path, am_buf *text) {
    am_error err = {0};
    if (!path) text_make(text, 3200000);
    else if (am_fs_read_file(path, text, (size_t)1 << 30, &err)) die(err.message);
}

static am_status remove_from(void *dir, const char *name) {
    char path[512];
    if (am_fs_join(path, sizeof path, dir, name, NULL) == AM_OK) unlink(path);
    return AM_OK;
}

int main(int argc, char **argv) {
    int repeat = 7;
    bool curves = false;
    char made[] = "/tmp/bench-tokenizer-XXXXXX", compiled[64], path[64];
    if (!mkdtemp(made)) die("no folder in /tmp");
    snprintf(compiled, sizeof compiled, "%s/compiled", made);
    snprintf(path, sizeof path, "%s/tokenizer.json", made);
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--curve") == 0) curves = true;
        else if (strcmp(argv[i], "--repeat") == 0 && i + 1 < argc && atoi(argv[i + 1]) > 0 && atoi(argv[i + 1]) < MAX_REPEAT / 2) repeat = atoi(argv[++i]);
        else die("usage: bench_tokenizer [--repeat N] [--curve] [TOKENIZER_DIR [TEXT...]]");
    }
    const char *dir = i < argc ? argv[i++] : made;
    if (dir == made) vocabulary_make(path);
    am_tokenizer *t = load_time(dir, compiled, repeat);
    am_buf text;
    am_buf_init(&text, (size_t)1 << 31);
    for (int k = i; k < argc || k == i; k++) {
        am_buf_clear(&text);
        read_text(k < argc ? argv[k] : NULL, &text);
        text_time(t, k < argc ? argv[k] : "made up", am_buf_str(&text), repeat);
        if (curves && k == i) curve(t, "ordinary text", am_buf_str(&text));
    }
    if (curves) {
        curve(t, "all a", AM_STR("a"));
        curve(t, "all spaces", AM_STR(" "));
        curve(t, "all emoji", AM_STR("\xF0\x9F\x98\x80"));
        curve(t, "no spaces", AM_STR("qzxjkvbpygfwmucldrhsnioate"));
    }
    am_buf_free(&text);
    am_tokenizer_free(t);
    am_fs_list(compiled, remove_from, compiled, NULL);
    rmdir(compiled);
    unlink(path);
    rmdir(made);
    return 0;
}
