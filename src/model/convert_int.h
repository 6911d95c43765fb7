/* What the files of the conversion share. */
#ifndef AM_MODEL_CONVERT_INT_H
#define AM_MODEL_CONVERT_INT_H

#include "base/buf.h"
#include "model/convert.h"
#include "model/ggml_blocks.h"
#include "model/part_file.h"

am_status am_convert_mlx(const am_convert_options *options, am_convert_result *result, am_error *err);
am_status am_convert_gguf(const am_convert_options *options, am_convert_result *result, am_error *err);
am_status am_convert_folder(const am_convert_options *options, am_convert_result *result, am_error *err); /* to GGUF */

enum { AM_CONVERT_NAME = 256 };
/* A tensor's name in a written file. gpt-oss: rows of gate and up alternate in released files, others have them apart, and so does what is written: true for
 * such a part, whose rows are counted by themselves then. */
bool am_convert_name(const am_weight *weight, char name[AM_CONVERT_NAME]);

const am_ggml_format *am_convert_ggml(const am_convert_options *options); /* that matrices get */
uint32_t am_convert_file_type(const am_convert_options *options);         /* general.file_type */

/* Keys of a GGUF file, appended; *n counts them. */
void am_gguf_put_u32(am_buf *buf, const char *key, uint32_t v);
void am_gguf_put_f32(am_buf *buf, const char *key, float v);
void am_gguf_put_text(am_buf *buf, const char *key, am_str v);
void am_gguf_put_bool(am_buf *buf, const char *key, bool v);
/* The keys of the model itself. AM_EUNSUPPORTED names the key of its config that GGUF has no words for. */
am_status am_gguf_put_model(am_buf *buf, const am_model *model, uint64_t *n, am_error *err);
/* What scores are multiplied by over what llama.cpp takes, which has no key for it: goes into the weights of q. */
double am_gguf_query_factor(const am_model *model);
/* The tokenizer and template of a folder; "none" when there is none, or none that GGUF has lists for. */
am_status am_gguf_put_text_keys(am_buf *buf, const char *dir, const am_model *model, uint64_t *n, am_error *err);

/* Everything that decides the output's bytes: the form, the head, the source's path, length and time. */
am_status am_convert_plan(const am_convert_options *options, const void *head, size_t n_head, am_sum *out, am_error *err);

#endif
