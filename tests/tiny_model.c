/* Owns the making of random test models: weights are uniform, scaled so that logits spread and attention is not flat. */
#include "tiny_model.h"

#include "model/safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { PER_LAYER = 9, MAX_TENSORS = 2 + 16 * PER_LAYER };

static void write_file(const char *dir, const char *name, const char *p, size_t n) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static size_t list_tensors(const test_tiny_model *m, am_st_entry *e, char names[][64]) {
    uint64_t n = m->n_embd, q = (uint64_t)m->n_head * m->head_dim, kv = (uint64_t)m->n_kv_head * m->head_dim, ff = m->n_ff;
    const struct {
        const char *name;
        uint64_t rows, cols;
    } layer[PER_LAYER] = {{"input_layernorm", n, 0}, {"self_attn.q_proj", q, n}, {"self_attn.k_proj", kv, n},
                          {"self_attn.v_proj", kv, n}, {"self_attn.o_proj", n, q}, {"post_attention_layernorm", n, 0},
                          {"mlp.gate_proj", ff, n}, {"mlp.up_proj", ff, n}, {"mlp.down_proj", n, ff}};
    size_t count = 0;
    e[count++] = (am_st_entry){"model.embed_tokens.weight", AM_ST_F32, 2, {m->n_vocab, n}};
    for (uint32_t i = 0; i < m->n_layer; i++)
        for (size_t t = 0; t < PER_LAYER; t++, count++) {
            snprintf(names[count], 64, "model.layers.%u.%s.weight", i, layer[t].name);
            e[count] = (am_st_entry){names[count], AM_ST_F32, layer[t].cols ? 2 : 1, {layer[t].rows, layer[t].cols}};
        }
    e[count++] = (am_st_entry){"model.norm.weight", AM_ST_F32, 1, {n}};
    return count;
}

static void write_windows(const test_tiny_model *m, am_buf *config) {
    assert_int_equal(am_buf_printf(config, ",\"use_sliding_window\":true,\"sliding_window\":%u,\"max_position_embeddings\":16384,\"layer_types\":[", m->window), AM_OK);
    for (uint32_t i = 0; i < m->n_layer; i++) {
        bool full = m->full_every && i % m->full_every == m->full_every - 1;
        assert_int_equal(am_buf_printf(config, "%s\"%s_attention\"", i ? "," : "", full ? "full" : "sliding"), AM_OK);
    }
    assert_int_equal(am_buf_putc(config, ']'), AM_OK);
}

void test_tiny_model_write(const test_tiny_model *m, const char *dir, uint64_t seed) {
    static char names[MAX_TENSORS][64];
    am_st_entry entries[MAX_TENSORS];
    am_buf file, config;
    am_error err;
    assert_true(m->n_layer <= 16);
    am_buf_init(&file, 64 << 20);
    am_buf_init(&config, 4096);
    size_t n = list_tensors(m, entries, names);
    assert_int_equal(am_st_header_build(&(am_st_layout){entries, n, NULL, 0, 8}, &file, NULL, &err), AM_OK);
    for (size_t i = 0; i < n; i++) {
        size_t count = entries[i].shape[0] * (entries[i].n_dim == 2 ? entries[i].shape[1] : 1);
        float spread = entries[i].n_dim == 2 ? 3 / sqrtf((float)entries[i].shape[1]) : 0.5f, middle = entries[i].n_dim == 2 ? 0 : 1;
        for (size_t k = 0; k < count; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            float x = middle + spread * ((float)(seed >> 40) / (float)(1 << 23) - 1);
            assert_int_equal(am_buf_append(&file, &x, sizeof x), AM_OK);
        }
    }
    assert_int_equal(am_buf_printf(&config,
                                   "{\"model_type\":\"%s\",\"num_hidden_layers\":%u,\"vocab_size\":%u,\"hidden_size\":%u,"
                                   "\"intermediate_size\":%u,\"num_attention_heads\":%u,\"num_key_value_heads\":%u,\"head_dim\":%u,"
                                   "\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":true,\"eos_token_id\":2",
                                   m->window ? "smollm3" : "llama", m->n_layer, m->n_vocab, m->n_embd, m->n_ff, m->n_head, m->n_kv_head, m->head_dim),
                     AM_OK);
    if (m->window) write_windows(m, &config);
    assert_int_equal(am_buf_putc(&config, '}'), AM_OK);
    write_file(dir, "model.safetensors", file.p, file.n);
    write_file(dir, "config.json", config.p, config.n);
    am_buf_free(&file);
    am_buf_free(&config);
}

void test_tiny_model_remove(const char *dir) {
    static const char *const names[] = {"model.safetensors", "config.json"};
    char path[4096];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}
