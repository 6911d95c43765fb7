/* The streaming decoder: the first byte picks a tokenizer, each pair of bytes behind it is an id, also of ids there are none of. */
#include "tok_use.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_KINDS = 6 };

/* Byte-level pieces that end inside characters, byte fallback, marks, WordPiece with clean-up, an end-of-word suffix, no decoder. */
static const char *const decoder[N_KINDS] = {
    "\"decoder\":{\"type\":\"ByteLevel\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\"}",
    ("\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
     "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}"),
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"always\"}]}",
    "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}",
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"BPEDecoder\",\"suffix\":\"_\"},{\"type\":\"Fuse\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a+\"},\"content\":\"b\"}]}",
    "\"decoder\":null",
};

static am_tokenizer *kind_load(size_t kind) {
    char json[8192];
    int n = snprintf(json, sizeof json, "{%s,\"added_tokens\":[{\"id\":270,\"content\":\"<|end|>\",\"special\":true},{\"id\":271,\"content\":\"\xC3\xA9\"}],\"model\":{\"type\":\"BPE\",\"vocab\":{",
                     decoder[kind]);
    static const char *const pieces[] = {"a", "_a", "##b", "do not", "_", "\xC3\x82\xC4\xA9", "\xC3\xA2\xC4\xA4", ".", "'", "n't"};
    for (int b = 0; b < 256; b++) n += snprintf(json + n, sizeof json - (size_t)n, "\"<0x%02X>\":%d,", (unsigned)b, b);
    for (int i = 0; i < 10; i++) n += snprintf(json + n, sizeof json - (size_t)n, "\"%s\":%d%s", pieces[i], 256 + i, i < 9 ? "," : "");
    snprintf(json + n, sizeof json - (size_t)n, "},\"merges\":[]}}");
    am_tokenizer *t = NULL;
    am_error err = {0};
    fuzz_check(am_tokenizer_load_json(am_str_of(json), (am_str){"", 0}, &t, &err) == AM_OK);
    return t;
}

FUZZ_TARGET(detok) {
    static am_tokenizer *kinds[N_KINDS]; /* for the life of the program */
    if (size == 0) return 0;
    size_t kind = data[0] % N_KINDS, n = (size - 1) / 2;
    if (!kinds[kind]) kinds[kind] = kind_load(kind);
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    for (size_t i = 0; i < n; i++) ids[i] = (int16_t)(data[1 + 2 * i] | (data[2 + 2 * i] & 0x81) << 8);
    tok_use_decode(kinds[kind], ids, n, data[0] & 0x80);
    free(ids);
    return 0;
}
