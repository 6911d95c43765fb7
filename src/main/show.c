/* Owns `show`: what a model is and what its agents would take, from headers and config alone, so that it answers at once for a model of any
 * size, and for one of which there is only the config.json. The figures come from what the loader finds and from the layout that the cache
 * uses and from the cache itself, not from a second calculation. --load reads the weights as serve would, without the agents' folder. */
#include "main/commands.h"

#include "base/clock.h"
#include "base/footprint.h"
#include "base/json.h"
#include "cache/cache.h"
#include "main/progress.h"
#include "main/served.h"
#include "model/model.h"

#include <string.h>

typedef struct kv_form {
    uint32_t bits_k, bits_v;
    am_kv_layout layout;
} kv_form;

enum { MAX_CONTEXTS = 5, MAX_FORMS = 5 };

typedef struct showing {
    const am_model_info *info;
    kv_form forms[MAX_FORMS];
    size_t n_forms;
    uint64_t tokens[MAX_CONTEXTS]; /* contexts to give figures for */
    size_t n_contexts;
    uint64_t budget;
    json_t *tensors; /* name -> [rows, columns, stacked]; NULL: not wanted */
    bool latent; /* one setting of bits: keys serve as values */
    const char *kernels; /* with --load; NULL: headers alone */
    double load_ms;
} showing;

static uint64_t default_budget(void) {
    return am_memory_total() / 4;
}

static double bytes_a_token(const am_kv_layout *layout) { return (double)layout->sealed_bytes / AM_BLOCK_TOKENS; }

/* Of layers that keep every token. */
static double global_bytes_a_token(const am_kv_layout *layout) {
    return (double)layout->part_units[AM_KV_GLOBAL] * (double)layout->unit_bytes / AM_BLOCK_TOKENS;
}

static am_status add_form(showing *s, const am_model *model, uint32_t bits_k, uint32_t bits_v, am_error *err) {
    am_kv_spec spec;
    kv_form *form = &s->forms[s->n_forms];
    for (size_t i = 0; i < s->n_forms; i++)
        if (s->forms[i].bits_k == bits_k && (s->forms[i].bits_v == bits_v || s->latent)) return AM_OK;
    am_status status = am_model_kv_spec(model, bits_k, bits_v, &spec, err);
    if (!status) status = am_kv_layout_init(&form->layout, &spec, err);
    if (status) return status;
    s->latent = spec.shared;
    form->bits_k = spec.bits_k;
    form->bits_v = spec.bits_v;
    s->n_forms++;
    return AM_OK;
}

static am_status note_tensor(void *arg, const am_weight *w, am_error *err) {
    json_t *shape = json_pack("[I,I,I]", (json_int_t)w->n_rows, (json_int_t)w->n_in, (json_int_t)w->n_expert);
    return json_object_set_new(arg, w->name, shape) ? am_fail(err, AM_ENOMEM, "no memory for a list of tensors") : AM_OK;
}

static am_status gather(showing *s, const am_model *model, const am_settings *settings, am_error *err) {
    static const uint64_t usual[] = {4096, 8192, 32768, 131072};
    s->info = am_model_info_of(model);
    s->budget = settings->kv_memory_bytes ? settings->kv_memory_bytes : default_budget();
    if (settings->ctx) s->tokens[s->n_contexts++] = settings->ctx;
    for (size_t i = 0; !settings->ctx && i < sizeof usual / sizeof usual[0]; i++)
        if (i == 0 || usual[i] <= s->info->n_ctx) s->tokens[s->n_contexts++] = usual[i];
    am_status status = add_form(s, model, 16, 16, err);
    if (!status) status = add_form(s, model, 8, 8, err);
    if (!status) status = add_form(s, model, AM_KV_BITS_K, AM_KV_BITS_V, err);
    if (!status) status = add_form(s, model, 4, 4, err);
    return status ? status : add_form(s, model, (uint32_t)settings->bits_k, (uint32_t)settings->bits_v, err);
}

static const char *size_text(double bytes, char out[32]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t u = 0;
    while (bytes >= 1024 && u + 1 < sizeof units / sizeof units[0]) bytes /= 1024, u++;
    snprintf(out, 32, "%.*f %s", u == 0 ? 0 : 1, bytes, units[u]);
    return out;
}

static void fingerprint_hex(const am_model_info *info, char out[33]) {
    for (size_t i = 0; i < sizeof info->fingerprint; i++) snprintf(out + 2 * i, 3, "%02x", info->fingerprint[i]);
}

static void print_model(const showing *s) {
    const am_model_info *info = s->info;
    char files[32], memory[32], hex[33];
    printf("%s\n", info->name);
    printf("  architecture  %s, %u layers, width %u, %u heads, %u KV heads of %u", info->architecture, info->n_layer, info->n_embd, info->n_head,
           info->n_kv_head, info->head_dim_k);
    if (info->head_dim_v != info->head_dim_k) printf(" (values %u)", info->head_dim_v);
    printf("\n  weights       %.1f M parameters", (double)info->n_params / 1e6);
    if (info->file_bytes || s->kernels)
        printf(", %s in files, %s in memory", size_text((double)info->file_bytes, files), size_text((double)info->weight_bytes, memory));
    else
        printf(", %s as bf16", size_text((double)info->weight_bytes, memory));
    if (info->file_bytes || s->kernels) printf("\n  forms         %s", info->forms);
    printf("\n  context       %u tokens, vocabulary of %u\n", info->n_ctx, info->n_vocab);
    if (info->n_window_layers) printf("  windows       %u of %u layers see the last %u tokens\n", info->n_window_layers, info->n_layer, info->window);
    if (!s->kernels) return;
    fingerprint_hex(info, hex);
    printf("  kernels       %s\n  loaded in     %.0f ms\n  fingerprint   %s\n", s->kernels, s->load_ms, hex);
}

/* A row a setting of bits: bytes a token, then for each context what one agent takes and how many fit. */
static void print_cache(const showing *s) {
    char text[32];
    printf("\n  an agent's state, and how many fit into %s:\n  kv-bits  bytes a token", size_text((double)s->budget, text));
    for (size_t i = 0; i < s->n_contexts; i++) printf("  %12llu tokens", (unsigned long long)s->tokens[i]);
    puts("");
    for (size_t f = 0; f < s->n_forms; f++) {
        const kv_form *form = &s->forms[f];
        char bits[16], cell[64];
        snprintf(bits, sizeof bits, "%u,%u", form->bits_k, form->bits_v);
        printf("  %-7s  %13.0f", bits, global_bytes_a_token(&form->layout));
        for (size_t i = 0; i < s->n_contexts; i++) {
            uint64_t bytes = am_cache_agent_bytes(&form->layout, s->tokens[i]);
            snprintf(cell, sizeof cell, "%s x %llu", size_text((double)bytes, text), (unsigned long long)(s->budget / bytes));
            printf("  %19s", cell);
        }
        puts("");
    }
    if (!s->forms[0].layout.spec.window) return;
    printf("  bytes a token: of layers that see everything; those with windows keep %u blocks of %d tokens (not counted: what is on disk to go back\n"
           "  to the ends of the last prompt and of the turn before)\n", s->forms[0].layout.reach, AM_BLOCK_TOKENS);
}

static json_t *cache_json(const showing *s) {
    json_t *list = json_array();
    for (size_t f = 0; f < s->n_forms; f++) {
        const kv_form *form = &s->forms[f];
        json_t *contexts = json_array();
        for (size_t i = 0; i < s->n_contexts; i++) {
            uint64_t bytes = am_cache_agent_bytes(&form->layout, s->tokens[i]);
            json_array_append_new(contexts, json_pack("{s:I,s:I,s:I}", "tokens", (json_int_t)s->tokens[i], "bytes", (json_int_t)bytes, "agents",
                                                      (json_int_t)(s->budget / bytes)));
        }
        json_array_append_new(list, json_pack("{s:[i,i],s:f,s:f,s:I,s:I,s:o}", "kv_bits", (int)form->bits_k, (int)form->bits_v, "bytes_per_token",
                                              bytes_a_token(&form->layout), "bytes_per_token_global",
                                              global_bytes_a_token(&form->layout), "sealed_block_bytes", (json_int_t)form->layout.sealed_bytes,
                                              "open_block_bytes", (json_int_t)form->layout.open_bytes, "contexts", contexts));
    }
    return list;
}

static am_status print_json(const showing *s, am_error *err) {
    const am_model_info *i = s->info;
    json_t *all = json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "name", i->name, "architecture",
                            i->architecture, "format", i->format, "forms", i->forms, "parameters", (json_int_t)i->n_params, "file_bytes",
                            (json_int_t)i->file_bytes, "memory_bytes", (json_int_t)i->weight_bytes, "context", (json_int_t)i->n_ctx,
                            "vocabulary", (json_int_t)i->n_vocab, "layers", (json_int_t)i->n_layer, "window_layers",
                            (json_int_t)i->n_window_layers, "window", (json_int_t)i->window, "width", (json_int_t)i->n_embd, "heads",
                            (json_int_t)i->n_head, "kv_heads", (json_int_t)i->n_kv_head, "head_dim_k", (json_int_t)i->head_dim_k,
                            "head_dim_v", (json_int_t)i->head_dim_v, "budget_bytes", (json_int_t)s->budget, "cache", cache_json(s));
    if (!all) return am_fail(err, AM_ENOMEM, "no memory for the description");
    if (s->tensors) json_object_set(all, "tensors", s->tensors);
    if (s->kernels) {
        char hex[33];
        fingerprint_hex(i, hex);
        json_object_update_new(all, json_pack("{s:s, s:f, s:s}", "kernels", s->kernels, "load_ms", s->load_ms, "fingerprint", hex));
    }
    json_dumpf(all, stdout, JSON_INDENT(1));
    puts("");
    json_decref(all);
    return AM_OK;
}

static am_status load(showing *s, am_settings *settings, am_model **out, am_error *err) {
    const char *path = settings->config ? settings->config : settings->model, *name = NULL;
    am_progress progress = {0};
    am_workers *workers = NULL;
    uint64_t start = am_now_ns();
    am_model_options options = {.survey = !settings->load, .n_ctx = (uint32_t)settings->ctx, .progress = am_progress_update, .progress_arg = &progress};
    am_status status = settings->n_args ? am_served_find(settings, settings->args[0], &path, &name, err) : AM_OK;
    if (settings->tensors) {
        options.weight = note_tensor;
        options.weight_arg = s->tensors = json_object();
    }
    if (!status && settings->load) {
        status = am_kernels_pick(settings->isa, &options.kernels, err);
        if (!status) status = am_workers_create(settings->threads ? settings->threads : am_cpus_threads(), &workers, err);
        options.workers = workers;
    }
    if (!status) status = am_model_load(path, &options, out, err);
    am_progress_end(&progress);
    am_workers_free(workers);
    if (!status && settings->load) s->kernels = options.kernels->name;
    s->load_ms = am_ms_since(start);
    return status;
}

int am_command_show(am_settings *settings) {
    am_error err = {0};
    am_model *model = NULL;
    showing s = {0};
    if (settings->load && settings->tensors) {
        fprintf(stderr, "agent-memory: --load and --tensors exclude each other: who lists tensors does not keep them\n");
        return AM_EXIT_USAGE;
    }
    am_status status = load(&s, settings, &model, &err);
    if (!status) status = gather(&s, model, settings, &err);
    if (!status && settings->json) status = print_json(&s, &err);
    else if (!status) {
        const char *name;
        json_t *t;
        print_model(&s);
        json_object_foreach(s.tensors, name, t)
            printf("  %-60s %6lld x %lld%s\n", name, json_integer_value(json_array_get(t, 0)), json_integer_value(json_array_get(t, 1)),
                   json_integer_value(json_array_get(t, 2)) ? " in a stack" : "");
        print_cache(&s);
    }
    if (status) fprintf(stderr, "agent-memory: %s\n", err.message);
    json_decref(s.tensors);
    am_model_free(model);
    return status ? AM_EXIT_FAILED : 0;
}
