/* SentencePiece's tokenizer.model; a file that begins with 'T' is a tiktoken rank file behind it. */
#include "tok_use.h"

#include "text/vocab_int.h"

FUZZ_TARGET(tokenizer_model) {
    if (size == 0) return 0;
    bool ranks = data[0] == 'T';
    am_str file = {(const char *)data + ranks, size - ranks};
    am_tokenizer *t = NULL;
    am_error err = {0};
    am_status status = ranks ? am_tiktoken_load(file, (am_str){"", 0}, NULL, &t, &err) : am_sentencepiece_load(file, (am_str){"", 0}, &t, &err);
    if (status) fuzz_check(!t && err.message[0]);
    else tok_use(t, data, size);
    return 0;
}
