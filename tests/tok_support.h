/* What the tokenizer's tests share: where the truth lies, and loading by name. */
#ifndef TESTS_TOK_SUPPORT_H
#define TESTS_TOK_SUPPORT_H

#include "base/json.h"
#include "text/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

/* $AM_SHARED or ../shared, joined with name; a static buffer. NULL (and a printed line) when it is not there. */
const char *tok_truth(const char *name);
/* A tokenizer from a folder of the truth; NULL when the folder is absent; a failure to load fails the test. */
am_tokenizer *tok_load(const char *name);
am_tokenizer *tok_from_json(const char *json); /* must load */
json_t *tok_json(const char *path);            /* must parse */
void tok_read(const char *path, am_buf *buf);  /* must read; buf is initialised here */

/* Encodes, and checks the offsets' promises. */
void tok_encode(const am_tokenizer *t, am_str text, const am_span *input, size_t n_input, am_tokens *out);
/* "id id id" of an encoding, in a static buffer; for short texts. */
const char *tok_ids(const am_tokenizer *t, const char *text);
/* Decodes at once and as a stream (checking that the pieces are whole characters), and checks that both are equal. */
void tok_decode(const am_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, am_buf *out);

#endif
