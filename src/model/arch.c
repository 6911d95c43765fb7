/* The architectures there are. A new one is a file beside this with its am_arch, and a line here. */
#include "model/internal.h"

#include <stdio.h>
#include <string.h>

#define AM_ARCH_LIST(X) X(deepseek_v2) X(llama) X(mistral) X(qwen2) X(qwen3) X(qwen3_moe) X(phi3) X(gemma2) X(gemma3) X(gemma3_text) X(gpt_oss) X(olmo2) X(smollm3)

#define AM_ARCH_DECLARE(name) extern const am_arch am_arch_##name;
AM_ARCH_LIST(AM_ARCH_DECLARE)
#define AM_ARCH_ENTRY(name) &am_arch_##name,
static const am_arch *const archs[] = {AM_ARCH_LIST(AM_ARCH_ENTRY)};
enum { N_ARCHS = sizeof archs / sizeof archs[0] };

const am_arch *am_arch_find(const char *model_type) {
    for (size_t i = 0; i < N_ARCHS; i++)
        if (strcmp(archs[i]->model_type, model_type) == 0) return archs[i];
    return NULL;
}

am_status am_arch_unknown(const char *model_type, am_error *err) {
    char list[256] = "";
    size_t n = 0;
    for (size_t i = 0; i < N_ARCHS && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", archs[i]->model_type);
    return am_fail(err, AM_EUNSUPPORTED, "'model_type' is \"%s\", which is not supported; there are: %s", model_type, list);
}
