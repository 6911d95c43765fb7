/* Files and texts that mean harm: mutated tokenizer files, failing allocations, long runs. Nothing crashes, nothing is quadratic. */
#include "tok_support.h"

#include "base/fault.h"
#include "text/vocab_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One small file with nearly everything in it. */
static const char *const bytes_json =
    "{\"added_tokens\":[{\"id\":9,\"content\":\"<|end|>\",\"special\":true,\"rstrip\":true},{\"id\":10,\"content\":\"new\",\"normalized\":true,\"single_word\":true}],"
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x{2,}\"},\"content\":\"y\"},{\"type\":\"Lowercase\"}]},"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\s?\\\\p{L}+|[^\\\\s&&[^a]]|\\\\p{N}{1,3}+\"},\"behavior\":\"Isolated\",\"invert\":false},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":false},{\"type\":\"Digits\",\"individual_digits\":true}]},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<|end|>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],"
    "\"special_tokens\":{\"<|end|>\":{\"id\":\"<|end|>\",\"ids\":[9],\"tokens\":[\"<|end|>\"]}}},\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"type\":\"BPE\",\"unk_token\":null,\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"\\u0120\":5,\"\\u0120a\":6,\"1\":7,\"y\":8},"
    "\"merges\":[\"a b\",[\"ab\",\"c\"],\"\\u0120 a\"]}}";
static const char *const marks_json =
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true,\"normalized\":false}],"
    "\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,\"strip_accents\":null,\"lowercase\":true},"
    "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\",\"split\":true},"
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
    "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":1}]},"
    "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":true,\"vocab\":[[\"<unk>\",0],[\"a\",-1.5],[\"_a\",-2e0],[\"<0x41>\",-3],[\"ab\",-2.5],[\"b\",-9]]}}";
static const char *const words_json =
    "{\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},"
    "\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"a\",0],\"cls\":[\"##b\",1]},"
    "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":9,\"vocab\":{\"a\":0,\"##b\":1,\"[UNK]\":2,\"##bc\":3}}}";

static const char *const texts[] = {"", "abc abc new <|end|>  new", "a\xCC\x81 xxx 12345 \xE4\xBD\xA0", "<unk>A _a  ab", "\n\n\t", "\xF0\x9F\x98\x80 d'ABC"};

/* Uses every function once; only crashes count. */
static void use(am_tokenizer *t) {
    am_tokens tokens = {0}, more = {0};
    am_error err = {0};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        am_str text = am_str_of(texts[i]);
        const am_span typed = {text.n / 2, text.n};
        if (am_tokenizer_encode(t, text, &typed, 1, AM_ENCODE_BOS_EOS, &tokens, &err)) continue;
        am_tokenizer_extend(t, &tokens, text.n / 2, text, &typed, 1, &more, &err);
        am_buf out;
        am_buf_init(&out, 1 << 20);
        am_tokenizer_decode(t, tokens.ids, tokens.n, i & 1, &out);
        am_buf_free(&out);
        for (size_t k = 0; k < tokens.n; k++) am_tokenizer_piece(t, tokens.ids[k]);
    }
    am_tokens_free(&tokens);
    am_tokens_free(&more);
    am_tokenizer_free(t);
}

static uint64_t state = 88172645463325252u;
static uint64_t rnd(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static am_status load_any(am_str text, am_tokenizer **t, am_error *err) {
    if (text.n && text.p[0] == '{') return am_tokenizer_load_json(text, (am_str){"", 0}, t, err);
    return rnd() & 1 ? am_sentencepiece_load(text, (am_str){"", 0}, t, err) : am_tiktoken_load(text, (am_str){"", 0}, NULL, t, err);
}

/* Bytes changed, cut, doubled, members swapped for others' bytes: loads or fails with a message, and never more. */
static void mutate(am_str source, int n) {
    char *text = malloc(source.n * 2 + 1);
    static const char *const junk[] = {"null", "-1", "1e9", "[]", "{}", "\"\"", "99999999999", "true", "\\u0000", "\\ud800", "\xFF", "{\"type\":\"Sequence\"}", "16777215", ",", "]", "\"a\""};
    size_t loaded = 0;
    for (int i = 0; i < n; i++) {
        size_t len = source.n;
        memcpy(text, source.p, len);
        for (size_t k = rnd() % 4 + 1; k > 0 && len; k--) {
            size_t at = rnd() % len;
            const char *j = junk[rnd() % (sizeof junk / sizeof *junk)];
            switch (rnd() % 4) {
            case 0: text[at] = (char)rnd(); break;
            case 1: len = rnd() % 8 ? len : at; break;
            case 2:
                if (len + strlen(j) < source.n * 2) memmove(text + at + strlen(j), text + at, len - at), memcpy(text + at, j, strlen(j)), len += strlen(j);
                break;
            default: {
                size_t cut = rnd() % 12 + 1;
                if (at + cut < len) memmove(text + at, text + at + cut, len - at - cut), len -= cut;
            }
            }
        }
        am_tokenizer *t = NULL;
        am_error err = {0};
        if (load_any((am_str){text, len}, &t, &err)) assert_true(err.message[0] && !t);
        else loaded++, use(t);
    }
    free(text);
    assert_true(loaded > 0);
}

static void mutated_json_never_crashes(void **s) {
    (void)s;
    use(tok_from_json(bytes_json));
    use(tok_from_json(marks_json));
    use(tok_from_json(words_json));
    mutate(am_str_of(bytes_json), 3000);
    mutate(am_str_of(marks_json), 3000);
    mutate(am_str_of(words_json), 2000);
}

static size_t field(char *out, int number, int type, const void *p, size_t n) {
    out[0] = (char)(number << 3 | type);
    if (type == 2) out[1] = (char)n, memcpy(out + 2, p, n);
    else memcpy(out + 1, p, n);
    return n + (type == 2 ? 2 : 1);
}

/* A SentencePiece model of a handful of pieces. */
static size_t model_make(char *out, char kind) {
    static const struct {
        const char *text;
        float score;
        char type;
    } piece[] = {{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}, {"\xE2\x96\x81", -3, 1}, {"a", -4, 1}, {"b", -5, 1}, {"ab", -1, 1}, {"\xE2\x96\x81" "ab", -2, 1}, {"<0x41>", 0, 6}, {"[x]", 0, 4}};
    size_t n = 0;
    for (size_t i = 0; i < sizeof piece / sizeof *piece; i++) {
        char body[64];
        size_t k = field(body, 1, 2, piece[i].text, strlen(piece[i].text));
        k += field(body + k, 2, 5, &piece[i].score, 4);
        k += field(body + k, 3, 0, &piece[i].type, 1);
        n += field(out + n, 1, 2, body, k);
    }
    char trainer[2] = {3 << 3, kind};
    n += field(out + n, 2, 2, trainer, 2);
    return n;
}

static void sentencepiece_models_load_and_never_crash(void **s) {
    (void)s;
    char file[1024];
    for (char kind = 1; kind <= 2; kind++) {
        am_str model = {file, model_make(file, kind)};
        am_tokenizer *t = NULL;
        am_error err = {0};
        if (am_sentencepiece_load(model, (am_str){"", 0}, &t, &err)) fail_msg("%s", err.message);
        assert_string_equal(tok_ids(t, "ab  ab"), "7 7");
        assert_string_equal(tok_ids(t, "A"), "3 8");
        assert_string_equal(tok_ids(t, "a[x]a"), "3 4 9 4"); /* one text: no second mark behind the symbol, as SentencePiece itself has it */
        assert_string_equal(tok_ids(t, "a <s>"), "3 4 1");
        am_tokenizer_free(t);
        mutate(model, 3000);
    }
}

/* Every allocation fails once, while loading and while in use: an error each time, nothing leaked (under ASan). */
static void failing_allocations_are_errors(void **s) {
    (void)s;
    static const char *const files[] = {bytes_json, marks_json, words_json};
    for (size_t f = 0; f < 3; f++) {
        for (long n = 1; n < 100000; n++) {
            am_tokenizer *t = NULL;
            am_error err = {0};
            am_fault_alloc_at(n);
            am_status status = am_tokenizer_load_json(am_str_of(files[f]), (am_str){"", 0}, &t, &err);
            bool hit = status != AM_OK;
            am_tokens tokens = {0};
            if (!status && am_tokenizer_encode(t, am_str_of(texts[1]), NULL, 0, 0, &tokens, &err)) hit = true;
            am_buf out;
            am_buf_init(&out, 1 << 20);
            if (!hit && am_tokenizer_decode(t, tokens.ids, tokens.n, false, &out)) hit = true;
            am_fault_alloc_at(0);
            am_tokens_free(&tokens);
            am_buf_free(&out);
            am_tokenizer_free(t);
            if (!hit) break;
        }
    }
}

static double encode_seconds(const am_tokenizer *t, const char *unit, size_t n) {
    size_t k = strlen(unit);
    char *text = malloc(n + k);
    for (size_t i = 0; i < n; i += k) memcpy(text + i, unit, k);
    am_tokens tokens = {0};
    struct timespec a, b;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    tok_encode(t, (am_str){text, n - n % k}, NULL, 0, &tokens);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    am_tokens_free(&tokens);
    free(text);
    return (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9;
}

/* Quadratic would be a factor of 64 from 64 KiB to 512 KiB, linear is 8; the guard lies far from both. */
static void long_runs_are_not_quadratic(void **s) {
    (void)s;
    static const char *const names[] = {"testdata/tokenizers/hf/llama3", "testdata/tokenizers/hf/qwen2.5", "testdata/tokenizers/hf/phi-3-mini", "testdata/tokenizers/hf/t5-small"};
    static const char *const units[] = {"a", " ", "\n", "us", "\xE4\xBD\xA0", "a ", "e\xCC\x81", "\xCC\x81", "!", " \n", "<|im_end|>", "<"};
    for (size_t m = 0; m < sizeof names / sizeof *names; m++) {
        am_tokenizer *t = tok_load(names[m]);
        if (!t) skip();
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
            double small = encode_seconds(t, units[i], 64 << 10), large = encode_seconds(t, units[i], 512 << 10);
            if (large > 24 * small + 0.5) fail_msg("%s, '%s' repeated: %.3f s for 64 KiB, %.3f s for 512 KiB", names[m], units[i], small, large);
        }
        am_tokenizer_free(t);
    }
}

static void what_is_not_known_is_named(void **s) {
    (void)s;
    static const struct {
        const char *json, *named;
    } cases[] = {
        {"{\"model\":{\"type\":\"Telepathy\",\"vocab\":{}}}", "Telepathy"},
        {"{\"normalizer\":{\"type\":\"Rot13\"},\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "Rot13"},
        {"{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"},\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "UnicodeScripts"},
        {"{\"decoder\":{\"type\":\"CTC\"},\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "CTC"},
        {"{\"post_processor\":{\"type\":\"Stamp\"},\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "Stamp"},
        {"{\"added_tokens\":[{\"id\":1,\"content\":\"  \",\"normalized\":true}],\"normalizer\":{\"type\":\"Strip\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}", "added token 1, '  '"},
        {"{\"model\":{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{},\"merges\":[]}}", "dropout"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a(?~b)\"},\"behavior\":\"Isolated\",\"invert\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "(?~b)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_tokenizer *t = NULL;
        am_error err = {0};
        assert_int_equal(am_tokenizer_load_json(am_str_of(cases[i].json), (am_str){"", 0}, &t, &err), AM_EUNSUPPORTED);
        assert_non_null(strstr(err.message, cases[i].named));
    }
    static const char *const bad[] = {
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999},\"merges\":[]}}", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\ud800\":0},\"merges\":[]}}", "{}", "[]", "", "{\"model\":",
        "{\"model\":{\"type\":\"Unigram\",\"unk_id\":7,\"vocab\":[[\"a\",0]]}}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        am_tokenizer *t = NULL;
        am_error err = {0};
        assert_int_equal(am_tokenizer_load_json(am_str_of(bad[i]), (am_str){"", 0}, &t, &err), AM_EFORMAT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mutated_json_never_crashes),     cmocka_unit_test(sentencepiece_models_load_and_never_crash),
        cmocka_unit_test(failing_allocations_are_errors), cmocka_unit_test(long_runs_are_not_quadratic),
        cmocka_unit_test(what_is_not_known_is_named),
    };
    return cmocka_run_group_tests_name("tokenizer_hostile", tests, NULL, NULL);
}
