/* The tokenizer part of a GGUF file's metadata, for tests of the text room, which has no GGUF reader of its own. */
#ifndef TESTS_TOK_GGUF_H
#define TESTS_TOK_GGUF_H

#include "text/tokenizer.h"

typedef struct tok_gguf {
    am_buf file;
    am_vocab vocab;
    am_str *tokens, *merges;
    float *scores;
    int32_t *types;
} tok_gguf;
void tok_gguf_open(const char *path, tok_gguf *g); /* a failure fails the test */
void tok_gguf_close(tok_gguf *g);

#endif
