/* A model folder: the first line is config.json, the rest model.safetensors. First the headers alone, then all of it. */
#include "model_use.h"

#include <string.h>

FUZZ_TARGET(model) {
    const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
    if (!end) return 0;
    model_file("config.json", data, (size_t)(end - data));
    model_file("model.safetensors", end + 1, size - (size_t)(end - data) - 1);
    model_use(model_dir, true);
    model_use(model_dir, false);
    return 0;
}
