/* Owns writing an MLX folder: one model.safetensors of affine groups, config.json, and the source's other files.
 *
 * The architecture's own loading decides what there is: a survey lists the tensors, so the header can be written first, then a second loading hands
 * over each matrix as the engine would use it, and its rows are quantised into their place. So every architecture and every stored form that loads can be
 * converted, and what is written is what was computed with. What MLX leaves as it is stays numbers: vectors, routers, rows no group divides. */
#include "model/convert_int.h"

#include "base/fs.h"
#include "model/gguf_model.h"
#include "model/internal.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ROWS_PER_TASK = 16, MAX_CONFIG_BYTES = 16 << 20, MAX_SIDE_BYTES = 256 << 20 };

/* One tensor of the source, and the one or three it becomes. */
typedef struct planned {
    char *name;
    uint32_t n_rows, n_in, n_expert, group; /* n_in 0: a vector; group 0: numbers */
    am_dtype dtype;                         /* of the numbers */
    uint64_t at[3];                         /* weight, scales, biases */
} planned;

typedef struct mlx {
    const am_convert_options *o;
    uint32_t bits;
    planned *list;
    size_t n, cap;
    json_t *index; /* name -> place in list */
    am_part_file *file;
    uint8_t *buffer; /* of one step */
    size_t n_buffer;
    am_region *regions;
    size_t n_regions, cap_regions;
    float expert_scale; /* of what experts give: DeepSeek's folders have no words for weights that are normalised and scaled, GGUF files have */
    bool less_one; /* norms of a GGUF file hold 1 more than folders of this architecture have */
} mlx;

static uint32_t row_of(const am_weight *w, uint32_t o, bool apart) { return apart ? o : (uint32_t)am_weight_row(w, o); }

static bool ends_in(const char *s, const char *suffix) {
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && strcmp(s + n - k, suffix) == 0;
}

static uint32_t group_of(const char *name, uint32_t n_in) {
    if (ends_in(name, "mlp.gate") || ends_in(name, "mlp.router")) return 0;
    return n_in % 64 == 0 ? 64 : n_in % 32 == 0 ? 32 : 0;
}

static am_status plan_weight(void *arg, const am_weight *w, am_error *err) {
    mlx *x = arg;
    char name[AM_CONVERT_NAME];
    bool apart = am_convert_name(w, name);
    if (json_object_get(x->index, name)) return AM_OK;
    if (x->n == x->cap) {
        size_t cap = x->cap ? 2 * x->cap : 256;
        planned *list = realloc(x->list, cap * sizeof *list);
        if (!list) return am_fail(err, AM_ENOMEM, "no memory for a list of tensors");
        x->list = list;
        x->cap = cap;
    }
    planned *p = &x->list[x->n];
    *p = (planned){strdup(name), apart ? w->n_out : w->n_rows, w->n_in, w->n_expert, 0, AM_F32, {0}};
    if (!p->name || json_object_set_new(x->index, name, json_integer((json_int_t)x->n))) return am_fail(err, AM_ENOMEM, "no memory for a list of tensors");
    x->n++;
    if (p->n_in) p->group = group_of(name, p->n_in);
    if (p->n_in && !p->group && (w->mat->dtype == AM_F16 || w->mat->dtype == AM_BF16)) p->dtype = w->mat->dtype; /* routers decide by small differences */
    return AM_OK;
}

static am_st_dtype stored(am_dtype dtype) { return dtype == AM_F32 ? AM_ST_F32 : dtype == AM_F16 ? AM_ST_F16 : AM_ST_BF16; }

/* Entries of one tensor: how many there are. */
static size_t entries_of(const mlx *x, const planned *p, am_st_entry *e, char names[3][AM_CONVERT_NAME]) {
    static const char *const suffixes[] = {".weight", ".scales", ".biases"};
    size_t n = p->group ? 3 : 1;
    for (size_t i = 0; i < n; i++) {
        uint32_t d = 0;
        snprintf(names[i], AM_CONVERT_NAME, "%.240s%s", p->name, p->n_in ? suffixes[i] : "");
        e[i] = (am_st_entry){.name = names[i], .dtype = p->group ? (i ? AM_ST_F16 : AM_ST_U32) : stored(p->dtype)};
        if (p->n_expert) e[i].shape[d++] = p->n_expert;
        e[i].shape[d++] = p->n_rows;
        if (p->n_in) e[i].shape[d++] = !p->group ? p->n_in : i ? p->n_in / p->group : p->n_in * x->bits / 32;
        e[i].n_dim = d;
    }
    return n;
}

/* The header of all, and each tensor's place behind it. */
static am_status layout(mlx *x, am_buf *head, uint64_t *n_bytes, am_error *err) {
    am_st_entry *e = am_calloc(3 * x->n, sizeof *e);
    char(*names)[AM_CONVERT_NAME] = am_calloc(3 * x->n, sizeof *names);
    am_status status = e && names ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for a header");
    size_t n = 0;
    uint64_t data = 0;
    for (size_t i = 0; !status && i < x->n; i++) n += entries_of(x, &x->list[i], e + n, names + n);
    am_st_pair format = {"format", AM_STR("mlx")};
    if (!status) status = am_st_header_build(&(am_st_layout){e, n, &format, 1, 64}, head, &data, err);
    uint64_t at = head->n;
    *n_bytes = at + data;
    n = 0;
    for (size_t i = 0; !status && i < x->n; i++)
        for (size_t k = 0; k < (x->list[i].group ? 3u : 1u); k++, n++) {
            x->list[i].at[k] = at;
            uint64_t bytes = am_st_dtype_bytes(e[n].dtype);
            for (uint32_t d = 0; d < e[n].n_dim; d++) bytes *= e[n].shape[d];
            at += bytes;
        }
    free(e);
    free(names);
    return status;
}

/* One group as MLX quantises it: the end of the range that is farther from zero is kept exactly, and zero is a code. Source: mlx's quantize. */
static void quantise(const float *x, uint32_t n, uint32_t bits, uint8_t *codes, uint16_t *scale, uint16_t *bias) {
    float low = x[0], high = x[0], top = (float)((1u << bits) - 1);
    for (uint32_t i = 1; i < n; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    bool below = fabsf(low) > fabsf(high);
    float s = fmaxf((high - low) / top, 1e-7f), edge = below ? low : high;
    if (!below) s = -s;
    float steps = rintf(edge / s);
    s = steps != 0 ? edge / steps : s;
    *scale = am_f32_to_f16(s);
    *bias = steps != 0 ? am_f32_to_f16(edge) : 0;
    float step = am_f16_to_f32(*scale), first = am_f16_to_f32(*bias);
    for (uint32_t i = 0; i < n; i++) {
        float code = step != 0 ? rintf((x[i] - first) / step) : 0;
        uint8_t c = (uint8_t)fminf(fmaxf(code, 0), top);
        if (bits == 8) codes[i] = c;
        else codes[i / 2] = (uint8_t)(i % 2 ? codes[i / 2] | c << 4 : c);
    }
}

/* The bytes of a step: n_out rows of codes, of scales, of biases; or of numbers. */
typedef struct step {
    const mlx *x;
    const am_weight *w;
    const planned *p;
    size_t row_bytes, scale_bytes; /* of a row */
    float *rows;                   /* [workers][n_in] */
} step;

static void step_task(void *arg, size_t task, size_t worker) {
    const step *s = arg;
    uint32_t n_in = s->w->n_in, first = (uint32_t)task * ROWS_PER_TASK, left = s->w->n_out - first;
    float *row = s->rows + worker * n_in, scale_by = strstr(s->p->name, ".switch_mlp.down_proj") ? s->x->expert_scale : 1;
    uint8_t *scales = s->x->buffer + s->row_bytes * s->w->n_out, *biases = scales + s->scale_bytes * s->w->n_out;
    for (uint32_t o = first; o < first + (left < ROWS_PER_TASK ? left : ROWS_PER_TASK); o++) {
        uint8_t *to = s->x->buffer + o * s->row_bytes;
        s->x->o->kernels->mat_row(row, s->w->mat, o);
        for (uint32_t i = 0; scale_by != 1 && i < n_in; i++) row[i] *= scale_by;
        for (uint32_t i = 0; !s->p->group && i < n_in; i++) {
            uint16_t h = s->p->dtype == AM_F16 ? am_f32_to_f16(row[i]) : am_f32_to_bf16(row[i]);
            if (s->p->dtype == AM_F32) memcpy(to + 4 * i, &row[i], 4);
            else memcpy(to + 2 * i, &h, 2);
        }
        for (uint32_t i = 0; s->p->group && i < n_in; i += s->p->group) {
            uint32_t g = i / s->p->group;
            uint16_t scale, bias;
            quantise(row + i, s->p->group, s->x->bits, to + i * s->x->bits / 8, &scale, &bias);
            memcpy(scales + o * s->scale_bytes + 2 * g, &scale, 2);
            memcpy(biases + o * s->scale_bytes + 2 * g, &bias, 2);
        }
    }
}

/* Where the rows of a step lie in one tensor; runs of rows are one region. */
static am_status add_regions(mlx *x, const am_weight *w, const planned *p, uint64_t base, size_t row_bytes, am_error *err) {
    bool apart = p->n_rows != w->n_rows;
    for (uint32_t o = 0; o < w->n_out; o++) {
        uint64_t at = base + ((uint64_t)w->expert * p->n_rows + row_of(w, o, apart)) * row_bytes;
        if (x->n_regions && o && x->regions[x->n_regions - 1].at + x->regions[x->n_regions - 1].n == at) {
            x->regions[x->n_regions - 1].n += row_bytes;
            continue;
        }
        if (x->n_regions == x->cap_regions) {
            size_t cap = x->cap_regions ? 2 * x->cap_regions : 64;
            am_region *r = realloc(x->regions, cap * sizeof *r);
            if (!r) return am_fail(err, AM_ENOMEM, "no memory for a list of rows");
            x->regions = r;
            x->cap_regions = cap;
        }
        x->regions[x->n_regions++] = (am_region){at, row_bytes};
    }
    return AM_OK;
}

static am_status room(mlx *x, size_t n, am_error *err) {
    if (n <= x->n_buffer) return AM_OK;
    free(x->buffer);
    x->n_buffer = 0;
    x->buffer = am_alloc_aligned(n);
    if (!x->buffer) return am_fail(err, AM_ENOMEM, "no memory for %zu bytes of a tensor", n);
    x->n_buffer = n;
    return AM_OK;
}

static am_status fill_matrix(mlx *x, step *s, am_error *err) {
    size_t n_workers = x->o->workers ? am_workers_count(x->o->workers) : 1, n_tasks = (s->w->n_out - 1) / ROWS_PER_TASK + 1;
    s->rows = am_calloc(n_workers * s->w->n_in, sizeof *s->rows);
    if (!s->rows) return am_fail(err, AM_ENOMEM, "no memory for rows of '%s'", s->w->name);
    if (x->o->workers) am_workers_run(x->o->workers, n_tasks, step_task, s);
    else
        for (size_t i = 0; i < n_tasks; i++) step_task(s, i, 0);
    free(s->rows);
    return AM_OK;
}

static void fill_vector(mlx *x, const am_weight *w) {
    bool less = x->less_one && strstr(w->name, "norm");
    for (uint32_t i = 0; i < w->n_out; i++) {
        float v = w->vector[i] - (less ? 1.0f : 0.0f);
        memcpy(x->buffer + 4 * i, &v, 4);
    }
}

static am_status write_weight(void *arg, const am_weight *w, am_error *err) {
    mlx *x = arg;
    char name[AM_CONVERT_NAME];
    am_convert_name(w, name);
    const planned *p = &x->list[json_integer_value(json_object_get(x->index, name))];
    step s = {.x = x, .w = w, .p = p};
    size_t number = p->dtype == AM_F32 ? 4 : 2;
    s.row_bytes = p->group ? (size_t)p->n_in * x->bits / 8 : (p->n_in ? p->n_in : 1) * number;
    s.scale_bytes = p->group ? p->n_in / p->group * 2u : 0;
    x->n_regions = 0;
    am_status status = add_regions(x, w, p, p->at[0], s.row_bytes, err);
    if (!status && p->group) status = add_regions(x, w, p, p->at[1], s.scale_bytes, err);
    if (!status && p->group) status = add_regions(x, w, p, p->at[2], s.scale_bytes, err);
    if (!status) status = room(x, w->n_out * (s.row_bytes + 2 * s.scale_bytes), err);
    if (status || am_part_file_done(x->file, x->regions, x->n_regions, x->buffer)) return status;
    if (w->n_in) status = fill_matrix(x, &s, err);
    else fill_vector(x, w);
    return status ? status : am_part_file_write(x->file, x->regions, x->n_regions, x->buffer, err);
}

static am_status write_config(const mlx *x, json_t *config, am_error *err) {
    am_buf text;
    am_buf_init(&text, MAX_CONFIG_BYTES);
    json_object_del(config, "quantization_config");
    if (x->expert_scale != 1) json_object_set_new(config, "routed_scaling_factor", json_real(1));
    am_status status = json_object_set_new(config, "quantization", json_pack("{s:i,s:i}", "group_size", 64, "bits", (int)x->bits)) ? AM_ENOMEM : AM_OK;
    json_t *quant = json_object_get(config, "quantization");
    for (size_t i = 0; !status && i < x->n; i++)
        if (x->list[i].group == 32 && json_object_set_new(quant, x->list[i].name, json_pack("{s:i,s:i}", "group_size", 32, "bits", (int)x->bits)))
            status = AM_ENOMEM;
    if (!status) status = am_json_dump(config, &text);
    if (status) am_fail(err, status, "no memory for the config");
    else status = am_fs_write_atomic(x->o->to, ".config.tmp", "config.json", &(am_str){text.p, text.n}, 1, true, err);
    am_buf_free(&text);
    return status;
}

typedef struct folders {
    char from[4096], to[4096];
    am_error *err;
} folders;

static am_status copy_file(void *arg, const char *name) {
    const folders *f = arg;
    char path[8192];
    am_buf text;
    am_buf_init(&text, MAX_SIDE_BYTES + 1);
    am_status status = am_fs_join(path, sizeof path, f->from, name, f->err);
    if (!status) status = am_fs_read_file(path, &text, MAX_SIDE_BYTES, f->err);
    if (!status && text.n) status = am_fs_write_atomic(f->to, ".side.tmp", name, &(am_str){text.p, text.n}, 1, true, f->err);
    am_buf_free(&text);
    return status == AM_ENOTFOUND ? AM_OK : status;
}

/* Tokenizer, templates, generation settings: as they are. */
static am_status copy_side_files(const mlx *x, am_error *err) {
    static const char *const names[] = {"generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
                                        "added_tokens.json", "chat_template.jinja", "chat_template.json", "vocab.json", "merges.txt"};
    am_status status = AM_OK;
    folders f = {.err = err};
    snprintf(f.from, sizeof f.from, "%s", x->o->from);
    snprintf(f.to, sizeof f.to, "%s", x->o->to);
    for (size_t i = 0; !status && i < sizeof names / sizeof names[0]; i++) status = copy_file(&f, names[i]);
    static const char more[] = "additional_chat_templates";
    struct stat st;
    if (!status) status = am_fs_join(f.from, sizeof f.from, x->o->from, more, err);
    if (!status) status = am_fs_join(f.to, sizeof f.to, x->o->to, more, err);
    if (status || stat(f.from, &st) || !S_ISDIR(st.st_mode)) return status;
    status = am_fs_mkdirs(f.to, err);
    return status ? status : am_fs_list(f.from, copy_file, &f, err);
}

static am_status source_config(const mlx *x, bool gguf, json_t **out, am_error *err) {
    char path[4096];
    if (gguf) {
        am_gguf *g;
        am_status status = am_gguf_open(x->o->from, &g, err);
        if (status) return status;
        status = am_gguf_config(g, out, err);
        am_gguf_free(g);
        return status;
    }
    am_status status = am_fs_join(path, sizeof path, x->o->from, "config.json", err);
    return status ? status : am_json_read(path, MAX_CONFIG_BYTES, out, err);
}

static am_status write_all(mlx *x, am_convert_result *result, am_error *err) {
    am_model *model = NULL;
    am_buf head;
    am_sum plan, sum;
    char path[4096];
    am_model_options options = {.kernels = x->o->kernels, .survey = true, .weight = plan_weight, .weight_arg = x};
    am_buf_init(&head, 1u << 30);
    am_status status = am_model_load(x->o->from, &options, &model, err);
    bool gguf = ends_in(x->o->from, ".gguf");
    if (!status) x->less_one = gguf && strncmp(am_model_info_of(model)->architecture, "gemma", 5) == 0;
    if (!status && gguf && model->expert_normalise && model->kv_lora) x->expert_scale = model->expert_scale;
    am_model_free(model);
    model = NULL;
    if (!status) status = layout(x, &head, &result->n_bytes, err);
    if (!status) status = am_convert_plan(x->o, head.p, head.n, &plan, err);
    if (!status) status = am_fs_join(path, sizeof path, x->o->to, "model.safetensors", err);
    if (!status) status = am_part_file_open(path, head.p, head.n, &plan, &x->file, err);
    options = (am_model_options){.kernels = x->o->kernels, .workers = x->o->workers, .progress = x->o->progress, .progress_arg = x->o->progress_arg,
                                 .weight = write_weight, .weight_arg = x};
    if (!status) status = am_model_load(x->o->from, &options, &model, err);
    am_model_free(model);
    am_buf_free(&head);
    if (!status) status = am_part_file_finish(x->file, result->n_bytes, &sum, err);
    if (status) return status;
    am_sum_hex(&sum, result->sum);
    result->n_tensors = x->n;
    result->n_steps = am_part_file_steps(x->file);
    result->n_resumed = am_part_file_resumed(x->file);
    return AM_OK;
}

am_status am_convert_mlx(const am_convert_options *o, am_convert_result *result, am_error *err) {
    mlx x = {.o = o, .bits = o->form == AM_TO_MLX_4 ? 4 : 8, .expert_scale = 1, .index = json_object()};
    json_t *config = NULL;
    bool gguf = ends_in(o->from, ".gguf");
    am_status status = x.index ? am_fs_mkdirs(o->to, err) : am_fail(err, AM_ENOMEM, "no memory to convert");
    if (!status) status = source_config(&x, gguf, &config, err);
    if (!status) status = write_all(&x, result, err);
    if (!status) status = write_config(&x, config, err);
    if (!status && !gguf) status = copy_side_files(&x, err);
    json_decref(config);
    json_decref(x.index);
    am_part_file_close(x.file);
    for (size_t i = 0; i < x.n; i++) free(x.list[i].name);
    free(x.list);
    free(x.regions);
    free(x.buffer);
    return status;
}
