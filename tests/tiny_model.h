/* Random models small enough to make in a test: a Hugging Face folder of the Llama architecture. */
#ifndef AM_TESTS_TINY_MODEL_H
#define AM_TESTS_TINY_MODEL_H

#include <stdint.h>

typedef struct test_tiny_model {
    uint32_t n_layer, n_vocab, n_embd, n_ff, n_head, n_kv_head, head_dim;
    uint32_t window;     /* 0: the Llama architecture; else Mistral's, with windows so wide */
    uint32_t full_every; /* every so many layers one sees everything; 0: none does */
} test_tiny_model;

/* Writes config.json and model.safetensors (F32, tied) into dir. */
void test_tiny_model_write(const test_tiny_model *shape, const char *dir, uint64_t seed);
void test_tiny_model_remove(const char *dir);

#endif
