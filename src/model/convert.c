/* Owns the choice of what a conversion writes, and the name of its plan, by which an interrupted one is known again. */
#include "model/convert_int.h"

#include "base/fs.h"

#include <stdio.h>
#include <string.h>

static bool ends_in(const char *s, const char *suffix) {
    size_t n = strlen(s), k = strlen(suffix);
    return n > k && strcmp(s + n - k, suffix) == 0;
}

am_status am_convert_plan(const am_convert_options *o, const void *head, size_t n_head, am_sum *out, am_error *err) {
    char path[4096], text[128];
    struct stat st;
    size_t n = strlen(o->from);
    bool gguf = ends_in(o->from, ".gguf");
    am_status status = gguf ? AM_OK : am_fs_join(path, sizeof path, o->from, "config.json", err);
    if (status) return status;
    int code = am_io->lstat(gguf ? o->from : path, &st);
    if (code < 0) return am_fail(err, AM_EIO, "%s: %s", gguf ? o->from : path, strerror(-code));
    am_sum_state *sum = am_sum_begin();
    if (!sum) return am_fail(err, AM_ENOMEM, "no memory for a checksum");
    snprintf(text, sizeof text, "convert 1 form %d source %lld %lld.%ld", (int)o->form, (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    am_sum_add(sum, text, strlen(text) + 1);
    am_sum_add(sum, o->from, n + 1);
    am_sum_add(sum, head, n_head);
    *out = am_sum_end(sum);
    return AM_OK;
}

bool am_convert_name(const am_weight *w, char name[AM_CONVERT_NAME]) {
    static const char fused[] = ".experts.gate_up_proj", down[] = ".experts.down_proj_bias";
    snprintf(name, AM_CONVERT_NAME, "%s", w->name);
    char *end = strstr(name, down);
    if (end) snprintf(end, AM_CONVERT_NAME - (size_t)(end - name), ".experts.down_proj.bias");
    end = strstr(name, fused);
    if (!end || w->n_rows != 2 * w->n_out) return false;
    snprintf(end, AM_CONVERT_NAME - (size_t)(end - name), ".experts.%s_proj%s", am_weight_row(w, 0) ? "up" : "gate", w->n_in ? "" : ".bias");
    return true;
}

am_status am_convert(const am_convert_options *o, am_convert_result *result, am_error *err) {
    *result = (am_convert_result){0};
    if (o->form == AM_TO_MLX_4 || o->form == AM_TO_MLX_8) return am_convert_mlx(o, result, err);
    if (!ends_in(o->to, ".gguf")) return am_fail(err, AM_EINVAL, "'%s' must end in .gguf, as the form says", o->to);
    return ends_in(o->from, ".gguf") ? am_convert_gguf(o, result, err) : am_convert_folder(o, result, err);
}
