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

const am_ggml_format *am_convert_ggml(const am_convert_options *options); /* Q4_0 or Q8_0 */
void am_convert_block(const am_convert_options *options, const float *x, uint8_t *to); /* 32 values into one block of it */

/* Keys of a GGUF file, appended; *n counts them. */
void am_gguf_put_u32(am_buf *buf, const char *key, uint32_t v);
void am_gguf_put_f32(am_buf *buf, const char *key, float v);
void am_gguf_put_text(am_buf *buf, const char *key, am_str v);
/* The tokenizer and template of a folder; nothing when there is none, or none that GGUF has a name for. */
am_status am_gguf_put_vocabulary(am_buf *buf, const char *dir, uint32_t n_vocab, uint64_t *n, am_error *err);

/* Everything that decides the output's bytes: the form, the head, the source's path, length and time. */
am_status am_convert_plan(const am_convert_options *options, const void *head, size_t n_head, am_sum *out, am_error *err);

#endif
