/* Compiled vocabularies: the tables that loading a large tokenizer.json makes, kept in a file, so that the next start reads them
 * instead of parsing megabytes of JSON. The file's name is the checksum of the tokenizer.json it was made of; it may be deleted at any
 * time. A file that is cut, changed or of another layout is refused, and the JSON is parsed as if there were none. */
#ifndef AM_TEXT_COMPILED_H
#define AM_TEXT_COMPILED_H

#include "base/hash.h"
#include "text/tokenizer_int.h"

/* The small members of a tokenizer.json, as JSON texts; empty where absent. AM_HF_REST: the model's, less its vocabulary and merges. */
typedef enum am_hf_part { AM_HF_NORMALIZER, AM_HF_PRE_TOKENIZER, AM_HF_POST_PROCESSOR, AM_HF_DECODER, AM_HF_ADDED, AM_HF_REST, AM_HF_N_PARTS } am_hf_part;

typedef struct am_compiled {
    am_words words; /* sealed */
    am_bpe bpe;     /* only the table of pairs */
    am_buf text;    /* what part is a view of */
    am_str part[AM_HF_N_PARTS];
} am_compiled;

/* Reads what was compiled of the tokenizer.json with this checksum. AM_ENOTFOUND when there is none, AM_EFORMAT when it is damaged. */
am_status am_compiled_read(const char *dir, am_sum key, am_compiled *out, am_error *err);
/* Writes it, whole or not at all. words and bpe are those right after the model was read. */
am_status am_compiled_write(const char *dir, am_sum key, const am_words *words, const am_bpe *bpe, const am_str part[AM_HF_N_PARTS], am_error *err);
void am_compiled_free(am_compiled *compiled);

#endif
