/* A GGUF file as a model folder would say it: its metadata as a config.json, its tensors under Hugging Face's names. */
#ifndef AM_MODEL_GGUF_MODEL_H
#define AM_MODEL_GGUF_MODEL_H

#include "base/json.h"
#include "model/gguf.h"

/* *config: a new object with the keys of transformers' configuration class; the caller decrefs it. AM_EUNSUPPORTED names the key. */
am_status am_gguf_config(const am_gguf *gguf, json_t **config, am_error *err);

/* Hugging Face's name for a tensor of this file ("" when it is no weight of a layer: rope factors, which the config holds). */
am_status am_gguf_rename(const am_gguf *gguf, am_str name, char *out, size_t cap, am_error *err);
/* Rows of q and k whose rope pairs are neighbours (2i, 2i+1), as converters leave them for some architectures: the head's dimension; else 0. */
uint32_t am_gguf_pair_dim(const am_gguf *gguf, am_str name);
bool am_gguf_pairs(const char *arch); /* whether this is one of those architectures */

/* The way back, for writing. The architecture's name in GGUF, NULL when it has none. */
const char *am_gguf_arch_of(const char *model_type);
/* The name there of a tensor called `name` in a folder (matrices without ".weight"); *expert: which of a stack it is there, -1: the whole. False: none. */
bool am_gguf_name_of(const char *model_type, const char *name, char *out, size_t cap, int64_t *expert);

#endif
