/* Times loading, encoding and decoding of one tokenizer over texts, one thread: bench_tokenizer DIR|FILE TEXT... [--repeat N].
 * One JSON line per figure; bench/tokenizer-peer runs this beside Hugging Face tokenizers on the same files. */
#include "base/fs.h"
#include "text/tokenizer.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static am_status load(const char *path, am_tokenizer **t, am_error *err) {
    struct stat st;
    bool dir = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    return dir ? am_tokenizer_load_dir(path, t, err) : am_tokenizer_load_file(path, t, err);
}

static int text_time(const am_tokenizer *t, const char *path, int repeat) {
    am_buf text, back;
    am_tokens tokens = {0};
    am_error err = {0};
    am_buf_init(&text, (size_t)1 << 31);
    am_buf_init(&back, (size_t)1 << 31);
    if (am_fs_read_file(path, &text, (size_t)1 << 30, &err)) return fprintf(stderr, "%s\n", err.message), 1;
    double encode = 1e9, decode = 1e9;
    for (int i = 0; i < repeat; i++) {
        double start = now_s();
        if (am_tokenizer_encode(t, am_buf_str(&text), NULL, 0, 0, &tokens, &err)) return fprintf(stderr, "%s\n", err.message), 1;
        double mid = now_s();
        am_buf_clear(&back);
        if (am_tokenizer_decode(t, tokens.ids, tokens.n, false, &back)) return 1;
        double end = now_s();
        encode = mid - start < encode ? mid - start : encode;
        decode = end - mid < decode ? end - mid : decode;
    }
    printf("{\"text\": \"%s\", \"bytes\": %zu, \"tokens\": %zu, \"encode_s\": %.6f, \"decode_s\": %.6f, \"same\": %s}\n", path, text.n, tokens.n,
           encode, decode, am_str_eq(am_buf_str(&back), am_buf_str(&text)) ? "true" : "false");
    am_tokens_free(&tokens);
    am_buf_free(&text);
    am_buf_free(&back);
    return 0;
}

int main(int argc, char **argv) {
    int repeat = 5, failed = 0;
    if (argc > 3 && strcmp(argv[argc - 2], "--repeat") == 0) repeat = atoi(argv[argc - 1]), argc -= 2;
    if (argc < 2) return fprintf(stderr, "usage: bench_tokenizer TOKENIZER TEXT... [--repeat N]\n"), 2;
    double best = 1e9;
    am_tokenizer *t = NULL;
    am_error err = {0};
    size_t before = 0, after = 0;
    for (int i = 0; i < repeat; i++) {
        am_tokenizer_free(t);
        malloc_trim(0);
        struct mallinfo2 m = mallinfo2();
        before = m.uordblks + m.hblkhd;
        double start = now_s();
        if (load(argv[1], &t, &err)) return fprintf(stderr, "%s\n", err.message), 1;
        double took = now_s() - start;
        best = took < best ? took : best;
        m = mallinfo2();
        after = m.uordblks + m.hblkhd;
    }
    printf("{\"load_s\": %.6f, \"memory_bytes\": %zu, \"n_vocab\": %zu}\n", best, after - before, am_tokenizer_n_vocab(t));
    for (int i = 2; i < argc && !failed; i++) failed = text_time(t, argv[i], repeat);
    am_tokenizer_free(t);
    return failed;
}
