/* Tokenizers from files other than tokenizer.json, and from what lies beside them: tokenizer.model, rank files, added_tokens.json,
 * special_tokens_map.json; vocabularies with holes; and every allocation failing once for each kind of file. */
#include "tok_support.h"

#include "base/fault.h"
#include "text/vocab_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void data(const char *name, am_buf *out) {
    char path[512];
    const char *root = getenv("AM_TEST_DATA");
    snprintf(path, sizeof path, "%s/%s", root ? root : "tests/data", name);
    tok_read(path, out);
}

static void put(const char *dir, const char *name, am_str bytes) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes.p, 1, bytes.n, f), bytes.n);
    fclose(f);
}

static void clear(const char *dir) {
    static const char *const names[] = {"tokenizer.model", "tokenizer.json", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"};
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

static void older_folders_keep_added_tokens_beside(void **state) {
    (void)state;
    char dir[] = "/tmp/am-tok-XXXXXX";
    assert_non_null(mkdtemp(dir));
    am_buf model;
    data("fuzz/tokenizer_model/kind2", &model);
    put(dir, "tokenizer.model", am_buf_str(&model));
    put(dir, "added_tokens.json", AM_STR("{\"<|x|>\": 12, \"plain\": 13, \"broken\": \"id\"}"));
    put(dir, "special_tokens_map.json", AM_STR("{\"additional_special_tokens\": [{\"content\": \"<|x|>\"}], \"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"}}"));
    put(dir, "tokenizer_config.json", AM_STR("{\"add_bos_token\": true, \"eos_token\": \"<|x|>\"}"));
    am_tokenizer *t = NULL;
    am_error err = {0};
    if (am_tokenizer_load_dir(dir, &t, &err)) fail_msg("%s", err.message);
    assert_string_equal(tok_ids(t, "ab<|x|>plain"), "7 12 13");
    assert_true(am_tokenizer_is_special(t, 12));
    assert_false(am_tokenizer_is_special(t, 13));
    assert_int_equal(am_tokenizer_bos(t), 1);
    assert_int_equal(am_tokenizer_eos(t), 12); /* the config goes first */
    am_tokens tokens = {0};
    assert_int_equal(am_tokenizer_encode(t, AM_STR("ab"), NULL, 0, AM_ENCODE_BOS_EOS, &tokens, &err), AM_OK);
    assert_int_equal(tokens.ids[0], 1);
    am_tokens_free(&tokens);
    am_tokenizer_free(t);
    put(dir, "added_tokens.json", AM_STR("[]"));
    assert_int_equal(am_tokenizer_load_dir(dir, &t, &err), AM_EFORMAT);
    assert_non_null(strstr(err.message, "added_tokens.json"));
    clear(dir);
    am_buf_free(&model);
}

/* As transformers 5.24 reads it; tests/differential_folders.py asks it itself. */
static void the_config_says_what_is_special(void **state) {
    (void)state;
    const am_str json = AM_STR("{\"added_tokens\":[{\"id\":2,\"content\":\"<x>\",\"special\":false},{\"id\":3,\"content\":\"<y>\",\"special\":true},{\"id\":4,\"content\":\"<z>\",\"special\":false}],"
                               "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"\xC4\xA0\":1},\"merges\":[]}}");
    static const struct {
        const char *config, *ids, *special; /* of "a <x> a<new>"; which of 2, 3, 4, 5 are special */
    } cases[] = {
        {"{}", "0 1 2 1 0", "0100"},
        {"{\"eos_token\":\"<x>\"}", "0 1 2 1 0", "1100"},
        {"{\"added_tokens_decoder\":{\"2\":{\"content\":\"<x>\",\"special\":true,\"lstrip\":true},\"3\":{\"content\":\"<y>\",\"special\":false}}}", "0 2 1 0", "1100"},
        {"{\"added_tokens_decoder\":{\"2\":{\"content\":\"<x>\"}},\"sep_token\":\"<z>\"}", "0 1 2 1 0", "0100"},
        {"{\"mask_token\":\"<new>\"}", "0 1 2 1 0 5", "0101"},
        {"{\"additional_special_tokens\":[\"<x>\",\"<new>\"]}", "0 1 2 1 0 5", "0101"},
        {"{\"extra_special_tokens\":{\"some_token\":\"<x>\"},\"image_token\":{\"content\":\"<z>\"}}", "0 1 2 1 0", "1110"},
        {"{\"added_tokens.json\":{\"5\":{\"content\":\"<new>\"}}}", "0 1 2 1 0 5", "0100"},
        {"{\"bos_token\":\"<y>\",\"add_bos_token\":true,\"eos_token\":null}", "0 1 2 1 0", "0100"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_tokenizer *t = NULL;
        am_error err = {0};
        if (am_tokenizer_load_json(json, am_str_of(cases[i].config), &t, &err)) fail_msg("%s", err.message);
        assert_string_equal(tok_ids(t, "a <x> a<new>"), cases[i].ids);
        for (int32_t id = 2; id < 6; id++) assert_int_equal(am_tokenizer_is_special(t, id), cases[i].special[id - 2] == '1');
        am_tokens tokens = {0};
        const am_span typed = {2, 12};
        tok_encode(t, AM_STR("a <x> a<new>"), &typed, 1, &tokens); /* from outside none of them is a token */
        for (size_t k = 0; k < tokens.n; k++) assert_true(tokens.ids[k] < 2);
        am_tokens_free(&tokens);
        am_tokenizer_free(t);
    }
}

static void holes_and_high_ids_are_harmless(void **state) {
    (void)state;
    am_tokenizer *t = tok_from_json("{\"added_tokens\":[{\"id\":900,\"content\":\"<e>\",\"special\":true}],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":3,\"b\":700,\"ab\":70},\"merges\":[\"a b\"]}}");
    assert_int_equal(am_tokenizer_n_vocab(t), 901);
    assert_string_equal(tok_ids(t, "abba<e>"), "70 700 3 900");
    am_buf out;
    tok_decode(t, (const int32_t[]){3, 4, -1, 700, 901, INT32_MAX, INT32_MIN, 900}, 8, false, &out);
    assert_true(am_str_eq(am_buf_str(&out), AM_STR("a b <e>")));
    am_buf_free(&out);
    for (int32_t id = -2; id < 1000; id++) am_tokenizer_piece(t, id);
    assert_int_equal(am_tokenizer_piece(t, 4).n, 0);
    am_tokenizer_free(t);
}

/* r50k's size, so that its split pattern is known: the bytes, then pairs and triples of letters. */
static void ranks_make(am_buf *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    am_buf_init(out, 1 << 22);
    for (int i = 0; i < 50256; i++) {
        int k = i < 256 ? i : i - 256;
        uint8_t b[3] = {(uint8_t)k, 0, 0};
        size_t n = 1;
        if (i >= 256) {
            n = k < 26 * 26 ? 2 : 3;
            k -= n == 3 ? 26 * 26 : 0;
            b[0] = (uint8_t)('a' + k % 26), b[1] = (uint8_t)('a' + k / 26 % 26), b[2] = (uint8_t)(k / 676 < 26 ? 'a' + k / 676 : 'A' + k / 676 - 26);
            if (k / 676 >= 52) b[2] = (uint8_t)(0x80 + k / 676 - 52);
        }
        if (n < 3) b[2] = 0;
        uint32_t bits = (uint32_t)b[0] << 16 | (uint32_t)b[1] << 8 | b[2];
        am_buf_printf(out, "%c%c%c%c %d\n", digits[bits >> 18], digits[bits >> 12 & 63], n > 1 ? digits[bits >> 6 & 63] : '=', n > 2 ? digits[bits & 63] : '=', i);
    }
}

#define CONFIG AM_STR("{\"added_tokens_decoder\":{\"50256\":{\"content\":\"<|endoftext|>\",\"special\":true}},\"eos_token\":\"<|endoftext|>\"}")

static void rank_files(void **state) {
    (void)state;
    am_buf ranks;
    ranks_make(&ranks);
    am_tokenizer *t = NULL;
    am_error err = {0};
    if (am_tiktoken_load(am_buf_str(&ranks), CONFIG, NULL, &t, &err)) fail_msg("%s", err.message);
    assert_int_equal(am_tokenizer_n_vocab(t), 50257);
    assert_int_equal(am_tokenizer_eos(t), 50256);
    assert_string_equal(tok_ids(t, "!<|endoftext|>"), "33 50256");
    am_tokens tokens = {0};
    am_buf back;
    am_str text = AM_STR("it's a rank file, \xE4\xBD\xA0\xE5\xA5\xBD 12345 \n\n ok");
    tok_encode(t, text, NULL, 0, &tokens);
    assert_true(tokens.n < text.n);
    tok_decode(t, tokens.ids, tokens.n, false, &back);
    assert_true(am_str_eq(am_buf_str(&back), text));
    am_buf_free(&back);
    am_tokens_free(&tokens);
    am_tokenizer_free(t);
    assert_int_equal(am_tiktoken_load(AM_STR("YQ== 0\nYg== x\n"), (am_str){"", 0}, NULL, &t, &err), AM_EFORMAT);
    assert_non_null(strstr(err.message, "line 2"));
    assert_int_equal(am_tiktoken_load(AM_STR("YQ== 0\n"), (am_str){"", 0}, NULL, &t, &err), AM_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "pat_str"));
    /* the pattern a config says, as Rust reads it: {1,2}+ gives nothing back, $ is the end of the text */
    const am_str few = AM_STR("YQ== 0\nMQ== 1\nCg== 2\nMTE= 3\nYQo= 4\nCmE= 5\n"), said = AM_STR("{\"pat_str\": \"1{1,2}+|a\\n$|.|\\n\"}");
    assert_int_equal(am_tiktoken_load(few, said, NULL, &t, &err), AM_OK);
    assert_string_equal(tok_ids(t, "111"), "3 1");
    assert_string_equal(tok_ids(t, "a\na\n"), "0 2 4");
    am_tokenizer_free(t);
    assert_int_equal(am_tiktoken_load(few, (am_str){"", 0}, "/some/cl100k_base.tiktoken", &t, &err), AM_OK);
    am_tokenizer_free(t);
    am_buf_free(&ranks);
}

/* ---- SentencePiece's user defined symbols, as its own library (0.2.3) reads them */

#define MARK "\xE2\x96\x81"

static void piece_put(am_buf *out, const char *text, float score, int type) {
    char inner[64];
    size_t n = strlen(text);
    int k = snprintf(inner, sizeof inner, "\n%c%s\x15", (char)n, text);
    memcpy(inner + k, &score, 4);
    inner[k + 4] = 0x18;
    inner[k + 5] = (char)type;
    am_buf_putc(out, '\n');
    am_buf_putc(out, (char)(k + 6));
    am_buf_append(out, inner, (size_t)k + 6);
}

/* kind: 1 Unigram, 2 BPE. What Unigram must not use is marked as unused. */
static am_tokenizer *symbols_model(int kind, int tidy) {
    static const struct {
        const char *text;
        float score;
        int type;
    } pieces[] = {{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}, {MARK MARK, 0, 4}, {MARK "the", 0, 4}, {"the", 0, 4}, {"<tool>", 0, 4}, {MARK, -1.5f, 1},
                  {"a", -2, 1}, {"t", -3, 1}, {"h", -3, 1}, {"e", -3, 1}, {"ha", -2.5f, 1}, {MARK "a", -9, 0}};
    am_buf model;
    am_buf_init(&model, 4096);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) piece_put(&model, pieces[i].text, pieces[i].score, pieces[i].type ? pieces[i].type : kind == 1 ? 5 : 1);
    const char specs[] = {0x12, 2, 0x18, (char)kind, 0x1A, 2, 0x20, (char)tidy};
    am_buf_append(&model, specs, sizeof specs);
    am_tokenizer *t = NULL;
    am_error err = {0};
    if (am_sentencepiece_load(am_buf_str(&model), (am_str){"", 0}, &t, &err)) fail_msg("%s", err.message);
    am_buf_free(&model);
    return t;
}

static void symbols_are_one_text_with_what_is_around(void **state) {
    (void)state;
    static const struct {
        const char *text, *ids[4]; /* Unigram; Unigram without extra white space; BPE; BPE without */
    } cases[] = {
        {"the", {"4", "4", "4", "4"}},
        {"a the" MARK MARK, {"7 8 4 3", "7 8 4", "13 4 3", "13 4"}},
        {MARK "the" MARK MARK MARK "a", {"3 5 3 7 8", "3 5 3 7 8", "3 5 3 13", "3 5 3 13"}},
        {"theatre  ha", {"4 8 9 0 11 3 12", "4 8 9 0 11 7 12", "4 8 9 0 11 3 12", "4 8 9 0 11 7 12"}},
        {"a<tool>the ", {"7 8 6 5 7", "7 8 6 5", "13 6 5 7", "13 6 5"}},
        {"  <tool>  a", {"7 3 6 3 8", "7 6 7 8", "3 7 6 3 8", "7 6 13"}},
        {"athe   ", {"7 8 5 7 3", "7 8 5", "13 5 3 7", "13 5"}},
        {" a a", {"3 8 7 8", "7 8 7 8", "3 8 13", "13 13"}},
    };
    for (int k = 0; k < 4; k++) {
        am_tokenizer *t = symbols_model(k / 2 + 1, k % 2);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) assert_string_equal(tok_ids(t, cases[i].text), cases[i].ids[k]);
        am_tokens tokens = {0};
        const am_span typed = {1, 7}; /* from outside it is no symbol, whatever the model can spell */
        tok_encode(t, AM_STR("a<tool>"), &typed, 1, &tokens);
        for (size_t i = 0; i < tokens.n; i++) assert_int_not_equal(tokens.ids[i], 6);
        am_tokens_free(&tokens);
        am_tokenizer_free(t);
    }
}

/* ---- every allocation fails once */

typedef am_status (*loader)(const am_buf *file, am_tokenizer **t, am_error *err);

static am_status load_model(const am_buf *file, am_tokenizer **t, am_error *err) { return am_sentencepiece_load(am_buf_str(file), AM_STR("{\"add_bos_token\":true}"), t, err); }
static am_status load_ranks(const am_buf *file, am_tokenizer **t, am_error *err) { return am_tiktoken_load(am_buf_str(file), CONFIG, NULL, t, err); }
static am_status load_vocab(const am_buf *file, am_tokenizer **t, am_error *err) {
    static const am_str tokens[] = {{"<unk>", 5}, {"<s>", 3}, {"</s>", 4}, {"a", 1}, {"b", 1}, {"ab", 2}, {"\xC4\xA0", 2}, {"[x]", 3}};
    static const int32_t types[] = {2, 3, 3, 1, 1, 1, 1, 4};
    static const am_str merges[] = {{"a b", 3}};
    am_vocab v = {.model = AM_STR("gpt2"), .pre = AM_STR("llama-bpe"), .tokens = tokens, .types = types, .n_tokens = 8, .merges = merges, .n_merges = 1,
                  .bos = 1, .eos = 2, .unk = 0, .pad = -1, .add_bos = 1, .add_eos = 1, .add_space_prefix = -1, .remove_extra_whitespaces = -1};
    (void)file;
    return am_tokenizer_load_vocab(&v, t, err);
}

static am_status use(const am_tokenizer *t, am_error *err) {
    am_tokens tokens = {0}, more = {0};
    am_buf out;
    const am_span typed = {3, 6};
    am_str text = AM_STR("ab [x] ababababababababababababababababababababab <s>");
    am_buf_init(&out, 1 << 20);
    am_detok *d = NULL;
    am_status status = am_tokenizer_encode(t, text, &typed, 1, AM_ENCODE_BOS_EOS, &tokens, err);
    if (!status) status = am_tokenizer_extend(t, &tokens, 4, text, &typed, 1, &more, err);
    if (!status) status = am_tokenizer_decode(t, tokens.ids, tokens.n, false, &out);
    if (!status && !(d = am_detok_create(t, true))) status = AM_ENOMEM;
    for (size_t i = 0; !status && i < tokens.n; i++) status = am_detok_push(d, tokens.ids[i], &out);
    if (!status) status = am_detok_finish(d, &out);
    am_detok_free(d);
    am_tokens_free(&tokens);
    am_tokens_free(&more);
    am_buf_free(&out);
    return status;
}

static void all_fail(loader load, const am_buf *file) {
    size_t n_failed = 0, n_good = 0; /* some allocations can be done without; behind the last every run is good */
    for (long n = 1; n_good < 50; n++) {
        am_tokenizer *t = NULL;
        am_error err = {0};
        am_fault_alloc_at(n);
        am_status loaded = load(file, &t, &err), status = loaded ? loaded : use(t, &err);
        am_fault_alloc_at(0);
        if (loaded) assert_true(!t && err.message[0]);
        am_tokenizer_free(t);
        n_good = status ? 0 : n_good + 1;
        n_failed += status != AM_OK;
    }
    assert_true(n_failed > 20);
    print_message("%zu allocations\n", n_failed);
}

static void failing_allocations_are_errors(void **state) {
    (void)state;
    am_buf file;
    static const char *const names[] = {"fuzz/tokenizer_model/kind1", "fuzz/tokenizer_model/kind2"};
    for (size_t i = 0; i < 2; i++) {
        data(names[i], &file);
        all_fail(load_model, &file);
        am_buf_free(&file);
    }
    all_fail(load_vocab, NULL);
    ranks_make(&file);
    all_fail(load_ranks, &file);
    am_buf_free(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(older_folders_keep_added_tokens_beside), cmocka_unit_test(holes_and_high_ids_are_harmless), cmocka_unit_test(the_config_says_what_is_special),
        cmocka_unit_test(rank_files), cmocka_unit_test(symbols_are_one_text_with_what_is_around), cmocka_unit_test(failing_allocations_are_errors),
    };
    return cmocka_run_group_tests_name("tokenizer_files", tests, NULL, NULL);
}
