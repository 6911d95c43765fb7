/* The model inside the binary: the files of models/memo-28m, byte for byte. */
#ifndef AM_MODEL_EMBEDDED_H
#define AM_MODEL_EMBEDDED_H

#include "base/buf.h"

extern const char am_embedded_config[], am_embedded_config_end[];
extern const char am_embedded_generation[], am_embedded_generation_end[];
extern const char am_embedded_tokenizer[], am_embedded_tokenizer_end[];
extern const char am_embedded_tokenizer_config[], am_embedded_tokenizer_config_end[];
extern const char am_embedded_weights[], am_embedded_weights_end[];

#define AM_EMBEDDED(file) ((am_str){am_embedded_##file, (size_t)(am_embedded_##file##_end - am_embedded_##file)})

#endif
