/* A GGUF file: directory and metadata by the reader alone, then as a model, from its headers and whole. */
#include "model_use.h"

#include "model/gguf.h"

FUZZ_TARGET(gguf) {
    am_gguf *g = NULL;
    am_error err = {0};
    if (am_gguf_open_bytes(data, size, "fuzz", &g, &err)) {
        fuzz_check(!g && err.message[0]);
        return 0;
    }
    for (size_t i = 0; i < am_gguf_n_tensors(g); i++) {
        const am_gguf_tensor *t = am_gguf_tensor_at(g, i);
        fuzz_check(t->p >= data && t->n_bytes <= size && (size_t)(t->p - data) <= size - t->n_bytes);
    }
    am_gguf_free(g);
    const char *path = model_file("model.gguf", data, size);
    model_use(path, true);
    model_use(path, false);
    return 0;
}
