/* What the files of the conversion share. */
#ifndef AM_MODEL_CONVERT_INT_H
#define AM_MODEL_CONVERT_INT_H

#include "model/convert.h"
#include "model/part_file.h"

am_status am_convert_mlx(const am_convert_options *options, am_convert_result *result, am_error *err);
am_status am_convert_gguf(const am_convert_options *options, am_convert_result *result, am_error *err);

/* Everything that decides the output's bytes: the form, the head, the source's path, length and time. */
am_status am_convert_plan(const am_convert_options *options, const void *head, size_t n_head, am_sum *out, am_error *err);

#endif
