/* The text side of a model without its weights: tokenizer and chat templates, wherever a model keeps them. */
#ifndef AM_MODEL_TEXT_SOURCE_H
#define AM_MODEL_TEXT_SOURCE_H

#include "model/gguf.h"
#include "text/chat.h"

/* path: a model folder, a GGUF file, or one tokenizer file (tokenizer.json, tokenizer.model, tiktoken ranks; templates are then looked for in
 * its folder). NULL: the embedded model. What there is none of is NULL; AM_ENOTFOUND when there is neither. Both are the caller's. */
am_status am_text_source_open(const char *path, am_tokenizer **tokenizer, am_chat **chat, am_error *err);

/* The same from an open GGUF file, which is not needed afterwards. */
am_status am_text_source_gguf(const am_gguf *gguf, am_tokenizer **tokenizer, am_chat **chat, am_error *err);

#endif
