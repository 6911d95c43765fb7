/* Text to token ids and back, exactly as the model's reference tokenizer does it.
 *
 * Sources: Hugging Face tokenizer.json (+ tokenizer_config.json), SentencePiece tokenizer.model, tiktoken rank files, and the
 * vocabulary of a GGUF file (handed over as am_vocab, so that this room needs no GGUF reader). A tokenizer is immutable after
 * loading and may be used by many threads at once. What a file asks for and we do not implement is AM_EUNSUPPORTED and names it.
 *
 * A tokenizer.json's `truncation` and `padding` are for batches of a model that reads fixed lengths; texts here are never cut or filled.
 *
 * User text never becomes a control token: `input` names the byte ranges of the text that came from outside (ascending, not
 * overlapping; am_template_render makes them). An added token is recognised only where none of its bytes lies in one, unless it is
 * plain text (not special, and without <>[]{}| in it: runs of spaces, for instance), and no model makes a special token of more than one character of such text, even where its vocabulary holds one (</s> in T5's). */
#ifndef AM_TEXT_TOKENIZER_H
#define AM_TEXT_TOKENIZER_H

#include "base/buf.h"

typedef struct am_tokenizer am_tokenizer;

typedef struct am_span {
    size_t begin, end; /* bytes */
} am_span;

/* Token ids with the byte offset where each begins; offsets has n + 1 entries, the last is the end of the text. Tokens that
 * stand for no text (BOS) have an empty range. Zero-initialise; free with am_tokens_free; reused when passed again. */
typedef struct am_tokens {
    int32_t *ids;
    uint32_t *offsets;
    size_t n;
    size_t cap;
    uint32_t *ends; /* [n] with AM_ENCODE_ENDS: where each token's own text ends; before the next one's offset where something between belongs to none */
    size_t max; /* encoding gives up with AM_ELIMIT when there would be more, ids[0..n) being the first of them; 0: as many as there are */
} am_tokens;
void am_tokens_free(am_tokens *tokens);

/* A vocabulary as GGUF metadata holds it (tokenizer.ggml.*); views stay the caller's and are not kept. */
typedef struct am_vocab {
    am_str model; /* "llama", "gpt2", "bert", "t5" ... */
    am_str pre;   /* "llama-bpe", "qwen2", ...; may be empty */
    const am_str *tokens;
    const float *scores;    /* may be NULL */
    const int32_t *types;   /* may be NULL: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte */
    size_t n_tokens;
    const am_str *merges;
    size_t n_merges;
    int32_t bos, eos, unk, pad;                  /* -1 when absent */
    int8_t add_bos, add_eos, add_space_prefix;   /* -1 when absent */
    int8_t remove_extra_whitespaces;             /* -1 when absent */
    am_str precompiled_charsmap;                 /* may be empty */
    const bool *rstrip;                          /* [n_tokens] added tokens that take the blanks behind them; may be NULL */
} am_vocab;

/* From a model folder: tokenizer.json, else tokenizer.model, else a tiktoken file; with the configs beside it. */
am_status am_tokenizer_load_dir(const char *dir, am_tokenizer **out, am_error *err);
/* The same; a large tokenizer.json is read from what was compiled of it into compiled_dir (made when missing), or compiled there. NULL: no such files. */
am_status am_tokenizer_load_dir_compiled(const char *dir, const char *compiled_dir, am_tokenizer **out, am_error *err);
/* From one file: tokenizer.json, tokenizer.model or a tiktoken rank file, told apart by content; its config is looked for beside it. */
am_status am_tokenizer_load_file(const char *path, am_tokenizer **out, am_error *err);
/* From texts in memory; config may be empty. */
am_status am_tokenizer_load_json(am_str tokenizer_json, am_str tokenizer_config, am_tokenizer **out, am_error *err);
am_status am_tokenizer_load_vocab(const am_vocab *vocab, am_tokenizer **out, am_error *err);
/* The way back: lists of n_tokens entries that mean what a tokenizer does, all in `memory`. AM_EUNSUPPORTED when there are none: only BPE, by bytes with a split
 * pattern that has a name, or SentencePiece's. What lists cannot say is left out: which blanks added tokens take, composition (NFC). */
am_status am_vocab_of(const am_tokenizer *tokenizer, size_t n_tokens, am_arena *memory, am_vocab *out, am_error *err);
void am_tokenizer_free(am_tokenizer *tokenizer);

enum {
    AM_ENCODE_ENDS = 2,    /* fill ends */
    AM_ENCODE_BOS_EOS = 1, /* run the post-processor: add BOS/EOS where the tokenizer is set to (not for rendered templates) */
};
am_status am_tokenizer_encode(const am_tokenizer *tokenizer, am_str text, const am_span *input, size_t n_input,
                              unsigned flags, am_tokens *out, am_error *err);

/* No text of so many bytes has fewer tokens: what tells at once that one is much too long. 0 where nothing is known. */
size_t am_tokenizer_least(const am_tokenizer *tokenizer, size_t n_bytes);

/* The same result as am_tokenizer_encode of the whole text, made from `known`: the tokens of an earlier text that shares its
 * first n_same bytes with this one (same input ranges there too). Re-encodes only from a place where the seam is exact. */
am_status am_tokenizer_extend(const am_tokenizer *tokenizer, const am_tokens *known, size_t n_same, am_str text,
                              const am_span *input, size_t n_input, am_tokens *out, am_error *err);

size_t am_tokenizer_n_vocab(const am_tokenizer *tokenizer);
int32_t am_tokenizer_bos(const am_tokenizer *tokenizer); /* -1 when there is none */
int32_t am_tokenizer_eos(const am_tokenizer *tokenizer);
bool am_tokenizer_is_special(const am_tokenizer *tokenizer, int32_t id); /* a control token: hidden from output */
bool am_tokenizer_is_added(const am_tokenizer *tokenizer, int32_t id);   /* any added token, special or not */
int32_t am_tokenizer_find(const am_tokenizer *tokenizer, am_str token);  /* id of an added token or piece; -1 */
/* The bytes an id stands for inside a running text (byte-level undone, no whitespace clean-up); a view that lives as long as
 * the tokenizer. Empty for ids out of range. May be part of a UTF-8 character. Added tokens give their content. */
am_str am_tokenizer_piece(const am_tokenizer *tokenizer, int32_t id);
/* 16 bytes that change when anything changes the ids a text gets; part of the model tag. */
void am_tokenizer_fingerprint(const am_tokenizer *tokenizer, uint8_t out[16]);

/* Streaming decoder: what has been pushed so far, cut so that no UTF-8 character is ever split; the concatenation of all pieces
 * and the finish equals am_tokenizer_decode of all ids. Bytes that can never become UTF-8 come out as U+FFFD. */
typedef struct am_detok am_detok;
am_detok *am_detok_create(const am_tokenizer *tokenizer, bool skip_special); /* NULL when out of memory */
void am_detok_keep(am_detok *detok, const int32_t *ids, size_t n); /* control tokens that are not skipped; the caller's, until am_detok_free */
void am_detok_free(am_detok *detok);
void am_detok_reset(am_detok *detok);
am_status am_detok_push(am_detok *detok, int32_t id, am_buf *out); /* appends what became certain */
am_status am_detok_finish(am_detok *detok, am_buf *out);
am_status am_tokenizer_decode(const am_tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip_special, am_buf *out);

#endif
