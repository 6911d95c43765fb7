/* What the two halves of the tokenizer.json loader share. */
#ifndef AM_TEXT_HF_INT_H
#define AM_TEXT_HF_INT_H

#include "base/json.h"
#include "text/tokenizer_int.h"

/* Each adds its stages to t; NULL and JSON null add none. AM_EUNSUPPORTED names a type that is not known. */
am_status am_hf_normalizer(am_tokenizer *t, const json_t *j, am_error *err);
am_status am_hf_pretokenizer(am_tokenizer *t, const json_t *j, am_error *err);
am_status am_hf_decoder(am_tokenizer *t, const json_t *j, am_error *err);
am_status am_hf_postprocessor(am_tokenizer *t, const json_t *j, am_error *err); /* needs sealed words and added tokens */
/* One split by pattern, matches isolated; for loaders that know a pattern by name. */
am_status am_pre_add_split(am_tokenizer *t, am_str pattern, am_dialect dialect, am_error *err);

/* Reads tokenizer_config.json and its like into t: added tokens, which of them are special, bos, eos. add_ends: what it says of putting
 * those two around a text counts too. */
#define AM_HF_ADDED_FILE "added_tokens.json" /* a member for what that file says, as "added_tokens_decoder" would have it */
am_status am_hf_config(am_tokenizer *t, am_str config, bool add_ends, am_error *err);
/* The token's content, be it a string or an object with one; empty when neither. */
am_str am_hf_content(const json_t *j);
am_status am_hf_added(am_tokenizer *t, const json_t *j, uint64_t id, am_error *err);

/* tokenizer.json from its text. compiled_dir: where compiled vocabularies are kept (compiled.h); NULL: nowhere. */
am_status am_hf_load(am_str text, am_str config, const char *compiled_dir, am_tokenizer **out, am_error *err);

#endif
