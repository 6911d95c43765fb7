/* tokenizer.json, then behind zero bytes tokenizer_config.json and a text to encode. */
#include "tok_use.h"

static am_str part(const uint8_t **data, size_t *size) {
    const uint8_t *zero = *size ? memchr(*data, 0, *size) : NULL;
    size_t n = zero ? (size_t)(zero - *data) : *size;
    am_str s = {n ? (const char *)*data : "", n};
    *data += zero ? n + 1 : n;
    *size -= zero ? n + 1 : n;
    return s;
}

FUZZ_TARGET(tokenizer_json) {
    if (size == 0) return 0;
    am_str json = part(&data, &size), config = part(&data, &size);
    am_tokenizer *t = NULL;
    am_error err = {0};
    if (am_tokenizer_load_json(json, config, &t, &err)) fuzz_check(!t && err.message[0]);
    else tok_use(t, data, size);
    return 0;
}
