/* Owns the reading of `quantization_config` objects that name a method: GPTQ, AWQ and FP8, in the forms that their tools write. What changes
 * how the tensors are to be read is checked; what only says how they came about is not. */
#include "model/config.h"

#include <string.h>
#include <strings.h>

static bool is(const json_t *v, const char *text) { return json_is_string(v) && strcasecmp(json_string_value(v), text) == 0; }

static const json_t *either(const json_t *quant, const char *key, const char *older) {
    const json_t *v = json_object_get(quant, key);
    return v ? v : json_object_get(quant, older);
}

static am_status refuse(const char *key, const json_t *v, am_error *err) {
    char whole[96];
    snprintf(whole, sizeof whole, "quantization_config.%s", key);
    if (!v) return am_fail(err, AM_EFORMAT, "'%s' is missing", whole);
    return am_config_bad_value(AM_EUNSUPPORTED, whole, v, NULL, err);
}

static am_status read_group(const json_t *v, am_scheme *out, am_error *err) {
    json_int_t group = json_integer_value(v);
    out->group = group > 0 ? (uint32_t)group : 0;
    bool right = json_is_integer(v) && (group == -1 || (group >= 16 && group <= 1 << 20 && group % 16 == 0));
    return right ? AM_OK : refuse("group_size", v, err);
}

static am_status read_gptq(const json_t *quant, am_scheme *out, am_error *err) {
    const json_t *bits = json_object_get(quant, "bits"), *form = json_object_get(quant, "checkpoint_format");
    const json_t *dynamic = json_object_get(quant, "dynamic"), *marlin = json_object_get(quant, "is_marlin_format");
    out->kind = AM_SCHEME_GPTQ;
    out->bits = (uint32_t)json_integer_value(bits);
    if (!json_is_integer(bits) || (out->bits != 4 && out->bits != 8)) return refuse("bits", bits, err);
    bool v2 = is(form, "gptq_v2");
    if (form && !json_is_null(form) && !v2 && !is(form, "gptq")) return refuse("checkpoint_format", form, err);
    if (json_is_true(marlin)) return refuse("is_marlin_format", marlin, err);
    if (json_object_size(dynamic)) return refuse("dynamic", dynamic, err);
    out->zero_offset = v2 ? 0 : 1; /* the first form stores zero points less one */
    return read_group(json_object_get(quant, "group_size"), out, err);
}

static am_status read_awq(const json_t *quant, am_scheme *out, am_error *err) {
    const json_t *bits = either(quant, "bits", "w_bit"), *version = json_object_get(quant, "version"), *zero = json_object_get(quant, "zero_point");
    out->kind = AM_SCHEME_AWQ;
    out->bits = 4;
    if (json_integer_value(bits) != 4) return refuse("bits", bits, err);
    if (version && !is(version, "gemm")) return refuse("version", version, err);
    if (json_is_false(zero)) return refuse("zero_point", zero, err);
    return read_group(either(quant, "group_size", "q_group_size"), out, err);
}

static am_status read_fp8(const json_t *quant, am_scheme *out, am_error *err) {
    const json_t *fmt = json_object_get(quant, "fmt"), *block = json_object_get(quant, "weight_block_size");
    out->kind = AM_SCHEME_FP8;
    if (fmt && !is(fmt, "e4m3")) return refuse("fmt", fmt, err);
    if (!block || json_is_null(block)) return AM_OK;
    json_int_t rows = json_integer_value(json_array_get(block, 0)), cols = json_integer_value(json_array_get(block, 1));
    if (json_array_size(block) != 2 || rows < 1 || rows > 1 << 20 || cols < 1 || cols > 1 << 20) return refuse("weight_block_size", block, err);
    out->block_out = (uint32_t)rows;
    out->block_in = (uint32_t)cols;
    return AM_OK;
}

am_status am_scheme_read(const json_t *quant, am_scheme *out, am_error *err) {
    const json_t *method = json_object_get(quant, "quant_method"), *format = json_object_get(quant, "format");
    *out = (am_scheme){0};
    if (is(method, "gptq")) return read_gptq(quant, out, err);
    if (is(method, "awq")) return read_awq(quant, out, err);
    if (is(method, "fp8") || is(method, "fbgemm_fp8")) return read_fp8(quant, out, err);
    if (is(method, "compressed-tensors")) return is(format, "float-quantized") ? read_fp8(quant, out, err) : refuse("format", format, err);
    return refuse("quant_method", method, err);
}
