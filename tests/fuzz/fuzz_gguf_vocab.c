/* The vocabulary of a GGUF file, and its chat template's metadata as far as the reader looks. */
#include "tok_use.h"

#include "model/gguf.h"

FUZZ_TARGET(gguf_vocab) {
    am_gguf *g = NULL;
    am_vocab vocab;
    am_tokenizer *t = NULL;
    am_error err = {0};
    if (am_gguf_open_bytes(data, size, "fuzz", &g, &err)) {
        fuzz_check(!g && err.message[0]);
        return 0;
    }
    if (am_gguf_vocab(g, &vocab, &err) == AM_OK) {
        if (am_tokenizer_load_vocab(&vocab, &t, &err)) fuzz_check(!t && err.message[0]);
        else tok_use(t, NULL, 0);
        am_gguf_vocab_free(&vocab);
    }
    am_gguf_free(g);
    return 0;
}
