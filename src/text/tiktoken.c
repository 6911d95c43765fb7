/* Owns tiktoken rank files: one "base64 rank" per line, where the rank is the id and also the order of merging: of all neighbours whose
 * joined bytes are an entry, those with the lowest rank are joined first. The file says neither how text is split nor which special
 * tokens there are: special tokens come from tokenizer_config.json; the split from its "pat_str" (as tiktoken calls it), else from the
 * number of ranks, else from the file's name. */
#include "text/vocab_int.h"
#include "text/hf_int.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int sextet(char c) {
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* One line at *p: base64, a space, digits. */
static bool line_read(const char **p, const char *end, am_buf *bytes, uint64_t *rank) {
    uint32_t bits = 0;
    int n = 0;
    am_buf_clear(bytes);
    for (; *p < end && sextet(**p) >= 0; ++*p) {
        bits = bits << 6 | (uint32_t)sextet(**p);
        n += 6;
        if (n >= 8 && (n -= 8, am_buf_putc(bytes, (char)(bits >> n)))) return false;
    }
    while (*p < end && **p == '=') ++*p;
    if (*p >= end || **p != ' ' || bytes->n == 0) return false;
    ++*p;
    const char *digits = *p;
    for (*rank = 0; *p < end && **p >= '0' && **p <= '9' && *rank < UINT32_MAX; ++*p) *rank = *rank * 10 + (uint64_t)(**p - '0');
    if (*p == digits) return false;
    while (*p < end && (**p == '\r' || **p == '\n')) ++*p;
    return true;
}

static const char *pattern_name(size_t n_ranks) {
    switch (n_ranks) {
    case 50256: /* r50k, p50k less its white space */
    case 50257:
    case 50280: return "gpt-2";
    case 100256: /* cl100k */
    case 128000: return "llama-bpe";
    case 151643: return "qwen2";
    case 199998: /* o200k */
    case 200000: return "gpt-4o";
    case 151329: return "glm4";
    case 163584: return "kimi-k2";
    default: return NULL;
    }
}

/* The split of a vocabulary of another size that is called as one of these. */
static const char *pattern_of_file(const char *path) {
    static const char *const known[][2] = {{"gpt2", "gpt-2"}, {"r50k", "gpt-2"}, {"p50k", "gpt-2"}, {"cl100k", "llama-bpe"}, {"o200k", "gpt-4o"}, {"qwen", "qwen2"}};
    const char *slash = path ? strrchr(path, '/') : NULL, *name = slash ? slash + 1 : path ? path : "";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncasecmp(name, known[i][0], strlen(known[i][0])) == 0) return known[i][1];
    return NULL;
}

static am_status split_read(am_tokenizer *t, am_str config, size_t n_ranks, const char *path, am_error *err) {
    json_t *j = NULL;
    am_str pattern = {0};
    am_status status = config.n ? am_json_parse(config, false, &j, err) : AM_OK;
    if (status) am_error_prefix(err, "tokenizer_config.json");
    const char *name = pattern_name(n_ranks);
    if (!name) name = pattern_of_file(path);
    if (status) goto out;
    if (am_json_str(j, "pat_str", &pattern, NULL) == AM_OK) status = am_pre_add_split(t, pattern, AM_REGEX_RUST, err);
    else if (name) status = am_stage_patterns(t, am_pre_name_find(am_str_of(name)), err);
    else status = am_fail(err, AM_EUNSUPPORTED, "a rank file of %zu entries: its split pattern is not known; name it as 'pat_str' in tokenizer_config.json", n_ranks);
out:
    json_decref(j);
    return status;
}

static am_status ranks_read(am_tokenizer *t, am_str file, size_t *n, am_error *err) {
    am_buf bytes;
    am_buf_init(&bytes, file.n + 1);
    am_status status = AM_OK;
    for (const char *p = file.p, *end = file.p + file.n; p < end && !status; ++*n) {
        uint64_t rank;
        if (!line_read(&p, end, &bytes, &rank)) status = am_fail(err, AM_EFORMAT, "rank file: line %zu is not base64 and a rank", *n + 1);
        else status = am_words_add(&t->words, rank, am_buf_str(&bytes), err);
    }
    am_buf_free(&bytes);
    return status;
}

am_status am_tiktoken_load(am_str file, am_str config, const char *path, am_tokenizer **out, am_error *err) {
    *out = NULL;
    am_tokenizer *t = am_tokenizer_create();
    if (!t) return am_fail(err, AM_ENOMEM, "no memory for the tokenizer");
    size_t n = 0;
    uint32_t *rank = NULL;
    t->bpe.byte_level = t->bpe.ignore_merges = true;
    am_status status = ranks_read(t, file, &n, err);
    if (!status) status = split_read(t, config, n, path, err);
    if (!status) status = am_stage_dec(t, AM_DEC_BYTES, (am_str){"", 0}, (am_str){"", 0}, err);
    if (!status) status = am_words_seal(&t->words, err);
    if (!status && !(rank = am_calloc(t->words.n, sizeof *rank))) status = am_fail(err, AM_ENOMEM, "no memory for the merges");
    for (size_t i = 0; !status && i < t->words.n; i++) rank[i] = (uint32_t)i;
    if (!status) status = am_bpe_merges_from_words(t, rank, err);
    if (!status) status = am_hf_config(t, config, true, err);
    if (!status) status = am_tokenizer_seal(t, (am_str[]){file, config}, 2, err);
    free(rank);
    if (status) am_tokenizer_free(t);
    else *out = t;
    return status;
}
