/* Owns the reading of tokenizer.json's normalizer, pre_tokenizer, post_processor and decoder into flat lists of stages. A type that
 * is not in these tables is refused by name; so is an option that would change results and is not implemented. */
#include "text/hf_int.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_NEST = 8 };

static am_str type_of(const json_t *j) {
    am_str type = {"", 0};
    am_json_str(j, "type", &type, NULL);
    return type;
}

static bool is(am_str s, const char *name) { return am_str_eq(s, am_str_of(name)); }

static bool flag(const json_t *j, const char *key, bool absent) {
    bool value = absent;
    am_json_bool(j, key, &value, NULL);
    return value;
}

static am_status own(const json_t *j, const char *key, am_str *out, am_error *err) {
    am_str s;
    am_status status = am_json_str(j, key, &s, err);
    if (status) return status == AM_ENOTFOUND ? am_fail(err, AM_EFORMAT, "'%s' is missing", key) : status;
    *out = am_str_own(s);
    return out->p ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for '%s'", key);
}

static am_status refuse(const char *kind, am_str type, am_error *err) {
    return am_fail(err, AM_EUNSUPPORTED, "%s type '%.*s' is not supported", kind, (int)(type.n < 100 ? type.n : 100), type.p);
}

static am_status full(const char *kind, am_error *err) {
    return am_fail(err, AM_ELIMIT, "more than %d stages in the %s", AM_MAX_STAGES, kind);
}

/* {"String": "..."} or {"Regex": "..."} */
static am_status pattern(const json_t *j, am_regex **out, am_error *err) {
    const json_t *p = json_object_get(j, "pattern");
    am_str s;
    if (json_is_object(p) && am_json_str(p, "String", &s, NULL) == AM_OK) return am_regex_literal(s, out, err);
    if (json_is_object(p) && am_json_str(p, "Regex", &s, NULL) == AM_OK) return am_regex_compile(s, AM_REGEX_ONIGURUMA, out, err);
    return am_fail(err, AM_EFORMAT, "'pattern' must hold 'String' or 'Regex'");
}

/* Calls one for j, or for each member of a Sequence. */
typedef am_status (*reader)(am_tokenizer *t, const json_t *j, am_error *err);
static am_status each(am_tokenizer *t, const json_t *j, const char *key, reader one, int depth, am_error *err) {
    if (!j || json_is_null(j)) return AM_OK;
    if (!json_is_object(j)) return am_fail(err, AM_EFORMAT, "a member of '%s' must be an object", key);
    if (!is(type_of(j), "Sequence")) return one(t, j, err);
    const json_t *list = json_object_get(j, key);
    if (!json_is_array(list)) return am_fail(err, AM_EFORMAT, "'%s' must be an array", key);
    if (depth >= MAX_NEST) return am_fail(err, AM_ELIMIT, "'%s' is nested too deep", key);
    am_status status = AM_OK;
    for (size_t i = 0; i < json_array_size(list) && !status; i++) status = each(t, json_array_get(list, i), key, one, depth + 1, err);
    return status;
}

/* ---- normalizers */

static am_status norm_put(am_tokenizer *t, am_norm norm, am_error *err) {
    if (t->n_norm == AM_MAX_STAGES) {
        am_norm_free(&norm);
        return full("normalizer", err);
    }
    t->norm[t->n_norm++] = norm;
    return AM_OK;
}

static am_status bert_normalizer(am_tokenizer *t, const json_t *j, am_error *err) {
    bool lower = flag(j, "lowercase", true), strip = flag(j, "strip_accents", lower);
    am_status status = AM_OK;
    if (flag(j, "clean_text", true)) status = norm_put(t, (am_norm){.kind = AM_NORM_CLEAN}, err);
    if (!status && flag(j, "handle_chinese_chars", true)) status = norm_put(t, (am_norm){.kind = AM_NORM_CHINESE}, err);
    if (!status && strip) status = norm_put(t, (am_norm){.kind = AM_NORM_UNICODE}, err);
    if (!status && strip) status = norm_put(t, (am_norm){.kind = AM_NORM_STRIP_MN}, err);
    if (!status && lower) status = norm_put(t, (am_norm){.kind = AM_NORM_LOWERCASE}, err);
    return status;
}

static am_status base64_decode(am_str s, am_buf *out) {
    uint32_t bits = 0;
    int n = 0;
    am_status status = AM_OK;
    for (size_t i = 0; i < s.n && s.p[i] != '=' && !status; i++) {
        char c = s.p[i];
        int v = c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
        if (v < 0) return AM_EFORMAT;
        bits = bits << 6 | (uint32_t)v;
        n += 6;
        if (n >= 8) n -= 8, status = am_buf_putc(out, (char)(bits >> n));
    }
    return status;
}

static am_status charsmap(am_tokenizer *t, const json_t *j, am_error *err) {
    am_str text;
    am_status status = am_json_str(j, "precompiled_charsmap", &text, err);
    if (status) return status;
    if (text.n == 0) return AM_OK;
    am_buf map;
    am_buf_init(&map, 1 << 26);
    if (base64_decode(text, &map)) status = am_fail(err, AM_EFORMAT, "'precompiled_charsmap' is not base64");
    if (!status) status = am_charsmap_check(am_buf_str(&map), err);
    if (status) am_buf_free(&map);
    return status ? status : norm_put(t, (am_norm){.kind = AM_NORM_CHARSMAP, .content = am_buf_str(&map), .graphemes = true}, err);
}

static am_status normalizer(am_tokenizer *t, const json_t *j, am_error *err) {
    static const struct {
        const char *type;
        am_norm norm;
    } plain[] = {
        {"NFC", {.kind = AM_NORM_UNICODE, .compose = true}}, {"NFD", {.kind = AM_NORM_UNICODE}},
        {"NFKC", {.kind = AM_NORM_UNICODE, .compose = true, .compat = true}}, {"NFKD", {.kind = AM_NORM_UNICODE, .compat = true}},
        {"Lowercase", {.kind = AM_NORM_LOWERCASE}}, {"StripAccents", {.kind = AM_NORM_STRIP_ACCENTS}},
        {"ByteLevel", {.kind = AM_NORM_BYTES}}, {"Nmt", {.kind = AM_NORM_NMT}},
    };
    am_str type = type_of(j);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (is(type, plain[i].type)) return norm_put(t, plain[i].norm, err);
    if (is(type, "BertNormalizer")) return bert_normalizer(t, j, err);
    if (is(type, "Precompiled")) return charsmap(t, j, err);
    am_norm norm = {0};
    am_status status = AM_OK;
    if (is(type, "Strip")) norm = (am_norm){.kind = AM_NORM_STRIP, .left = flag(j, "strip_left", true), .right = flag(j, "strip_right", true)};
    else if (is(type, "Prepend")) norm.kind = AM_NORM_PREPEND, status = own(j, "prepend", &norm.content, err);
    else if (is(type, "Replace")) {
        norm.kind = AM_NORM_REPLACE;
        status = own(j, "content", &norm.content, err);
        if (!status) status = pattern(j, &norm.regex, err);
    } else return refuse("normalizer", type, err);
    if (status) am_norm_free(&norm);
    return status ? status : norm_put(t, norm, err);
}

am_status am_hf_normalizer(am_tokenizer *t, const json_t *j, am_error *err) { return each(t, j, "normalizers", normalizer, 0, err); }

/* ---- pre-tokenizers */

static am_status pre_put(am_tokenizer *t, am_pre pre, am_error *err) {
    if (t->n_pre == AM_MAX_STAGES) {
        am_pre_free(&pre);
        return full("pre_tokenizer", err);
    }
    t->pre[t->n_pre++] = pre;
    return AM_OK;
}

static am_status behavior(const json_t *j, am_behavior absent, am_behavior *out, am_error *err) {
    static const char *const name[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    am_str s;
    *out = absent;
    if (am_json_str(j, "behavior", &s, NULL)) return AM_OK;
    for (size_t i = 0; i < 5; i++)
        if (is(s, name[i])) return *out = (am_behavior)i, AM_OK;
    return am_fail(err, AM_EUNSUPPORTED, "split behavior '%.*s' is not supported", (int)(s.n < 100 ? s.n : 100), s.p);
}

static am_status prepend_scheme(const json_t *j, am_prepend *out, am_error *err) {
    am_str scheme = AM_STR("always");
    bool given = am_json_str(j, "prepend_scheme", &scheme, NULL) == AM_OK, prefix = flag(j, "add_prefix_space", true);
    *out = is(scheme, "first") ? AM_PREPEND_FIRST : is(scheme, "never") || (!given && !prefix) ? AM_PREPEND_NEVER : AM_PREPEND_ALWAYS;
    if (given && !prefix && *out != AM_PREPEND_NEVER) return am_fail(err, AM_EFORMAT, "'add_prefix_space' does not match 'prepend_scheme'");
    if (*out == AM_PREPEND_ALWAYS && !is(scheme, "always"))
        return am_fail(err, AM_EUNSUPPORTED, "prepend_scheme '%.*s' is not supported", (int)(scheme.n < 100 ? scheme.n : 100), scheme.p);
    return AM_OK;
}

static am_status metaspace(am_tokenizer *t, const json_t *j, am_error *err) {
    am_pre pre = {.kind = AM_PRE_METASPACE, .split = flag(j, "split", true)};
    am_str mark = AM_STR("\xE2\x96\x81");
    am_json_str(j, "replacement", &mark, NULL);
    if (mark.n == 0 || mark.n > 4) return am_fail(err, AM_EFORMAT, "'replacement' must be one character");
    memcpy(pre.mark, mark.p, mark.n);
    am_status status = prepend_scheme(j, &pre.prepend, err);
    if (!status) status = am_regex_literal(mark, &pre.regex, err);
    return status ? status : pre_put(t, pre, err);
}

static am_status byte_level(am_tokenizer *t, const json_t *j, am_error *err) {
    am_pre pre = {.kind = AM_PRE_BYTES, .behavior = AM_ISOLATED, .prefix_space = flag(j, "add_prefix_space", true)};
    for (size_t i = 0; i < t->n_pre; i++)
        if (t->pre[i].kind == AM_PRE_BYTES) return am_fail(err, AM_EUNSUPPORTED, "two ByteLevel pre-tokenizers are not supported");
    am_status status = flag(j, "use_regex", true) ? am_regex_compile(AM_STR(AM_PATTERN_GPT2), AM_REGEX_ONIGURUMA, &pre.regex, err) : AM_OK;
    return status ? status : pre_put(t, pre, err);
}

static am_status split(am_tokenizer *t, const json_t *j, am_error *err) {
    am_pre pre = {.kind = AM_PRE_SPLIT, .invert = flag(j, "invert", false)};
    am_status status = behavior(j, AM_ISOLATED, &pre.behavior, err);
    if (!status) status = pattern(j, &pre.regex, err);
    return status ? status : pre_put(t, pre, err);
}

am_status am_pre_add_split(am_tokenizer *t, am_str text, am_dialect dialect, am_error *err) {
    am_pre pre = {.kind = AM_PRE_SPLIT, .behavior = AM_ISOLATED};
    am_status status = am_regex_compile(text, dialect, &pre.regex, err);
    return status ? status : pre_put(t, pre, err);
}

static am_status pretokenizer(am_tokenizer *t, const json_t *j, am_error *err) {
    am_str type = type_of(j);
    am_pre pre = {0};
    if (is(type, "ByteLevel")) return byte_level(t, j, err);
    if (is(type, "Split")) return split(t, j, err);
    if (is(type, "Metaspace")) return metaspace(t, j, err);
    if (is(type, "Digits"))
        pre = (am_pre){.kind = AM_PRE_DIGITS, .behavior = flag(j, "individual_digits", false) ? AM_ISOLATED : AM_CONTIGUOUS};
    else if (is(type, "Punctuation")) {
        pre.kind = AM_PRE_PUNCTUATION;
        am_status status = behavior(j, AM_ISOLATED, &pre.behavior, err);
        if (status) return status;
    } else if (is(type, "Whitespace")) pre.kind = AM_PRE_WHITESPACE;
    else if (is(type, "WhitespaceSplit")) pre.kind = AM_PRE_SPACE_SPLIT;
    else if (is(type, "BertPreTokenizer")) pre.kind = AM_PRE_BERT;
    else if (is(type, "CharDelimiterSplit")) {
        am_str delimiter;
        am_status status = am_json_str(j, "delimiter", &delimiter, err);
        pre = (am_pre){.kind = AM_PRE_SPLIT, .behavior = AM_REMOVED};
        if (!status) status = am_regex_literal(delimiter, &pre.regex, err);
        if (status) return status;
    } else return refuse("pre_tokenizer", type, err);
    return pre_put(t, pre, err);
}

am_status am_hf_pretokenizer(am_tokenizer *t, const json_t *j, am_error *err) {
    return each(t, j, "pretokenizers", pretokenizer, 0, err);
}

/* ---- decoders */

static am_status dec_replace(const json_t *j, am_dec *dec, am_error *err) {
    am_str s;
    const json_t *p = json_object_get(j, "pattern");
    am_status status = own(j, "content", &dec->content, err);
    if (!status && json_is_object(p) && am_json_str(p, "String", &s, NULL) == AM_OK && s.n) return own(p, "String", &dec->find, err);
    return status ? status : pattern(j, &dec->regex, err);
}

static am_status dec_strip(const json_t *j, am_dec *dec, am_error *err) {
    uint64_t start = 0, stop = 0;
    am_status status = own(j, "content", &dec->content, err);
    if (!status) status = am_json_u64(j, "start", UINT32_MAX - 1, &start, err);
    if (!status) status = am_json_u64(j, "stop", UINT32_MAX - 1, &stop, err);
    if (!status && dec->content.n == 0) status = am_fail(err, AM_EFORMAT, "Strip's 'content' must be a character");
    dec->start = (uint32_t)start;
    dec->stop = (uint32_t)stop;
    return status;
}

static am_status decoder(am_tokenizer *t, const json_t *j, am_error *err) {
    am_str type = type_of(j);
    am_dec dec = {0};
    am_status status = AM_OK;
    if (is(type, "ByteLevel")) dec.kind = AM_DEC_BYTES;
    else if (is(type, "ByteFallback")) dec.kind = AM_DEC_FALLBACK;
    else if (is(type, "Fuse")) dec.kind = AM_DEC_FUSE;
    else if (is(type, "Replace")) dec.kind = AM_DEC_REPLACE, status = dec_replace(j, &dec, err);
    else if (is(type, "Strip")) dec.kind = AM_DEC_STRIP, status = dec_strip(j, &dec, err);
    else if (is(type, "Metaspace")) {
        am_prepend prepend = AM_PREPEND_ALWAYS;
        dec.kind = AM_DEC_METASPACE;
        status = prepend_scheme(j, &prepend, err);
        dec.keep_first = prepend == AM_PREPEND_NEVER;
        if (!status) status = own(j, "replacement", &dec.find, err);
    } else if (is(type, "WordPiece")) {
        dec.kind = AM_DEC_WORDPIECE;
        dec.cleanup = flag(j, "cleanup", true);
        status = own(j, "prefix", &dec.find, err);
    } else if (is(type, "BPEDecoder")) dec.kind = AM_DEC_SUFFIX, status = own(j, "suffix", &dec.find, err);
    else return refuse("decoder", type, err);
    if (!status && t->n_dec == AM_MAX_STAGES) status = full("decoder", err);
    if (status) am_dec_free(&dec);
    else t->dec[t->n_dec++] = dec;
    return status;
}

am_status am_hf_decoder(am_tokenizer *t, const json_t *j, am_error *err) { return each(t, j, "decoders", decoder, 0, err); }

/* ---- post-processors: what they put before and after one text */

static am_status ends_put(int32_t **ids, size_t *n, size_t at, int32_t id, am_error *err) {
    size_t cap = *n;
    if (!am_grow(ids, &cap, *n + 1, sizeof **ids)) return am_fail(err, AM_ENOMEM, "no memory for the post-processor");
    memmove(*ids + at + 1, *ids + at, (*n - at) * sizeof **ids);
    (*ids)[at] = id;
    ++*n;
    return AM_OK;
}

static am_status id_check(const am_tokenizer *t, const json_t *id, am_error *err) {
    if (json_is_integer(id) && json_integer_value(id) >= 0 && (uint64_t)json_integer_value(id) < t->words.n) return AM_OK;
    return am_fail(err, AM_EFORMAT, "the post-processor names a token id that the vocabulary lacks");
}

static am_status template_item(am_tokenizer *t, const json_t *item, const json_t *specials, bool *behind, size_t *at, am_error *err) {
    const json_t *special = json_object_get(item, "SpecialToken");
    if (json_object_get(item, "Sequence")) {
        if (*behind) return am_fail(err, AM_EUNSUPPORTED, "a template with two sequences is not supported for one text");
        *behind = true;
        return AM_OK;
    }
    am_str name;
    am_status status = am_json_str(special, "id", &name, err);
    if (status) return status;
    const json_t *ids = json_object_get(json_object_getn(specials, name.p, name.n), "ids");
    if (!json_is_array(ids)) return am_fail(err, AM_EFORMAT, "the template's token '%.*s' has no ids", (int)(name.n < 100 ? name.n : 100), name.p);
    for (size_t i = 0; i < json_array_size(ids) && !status; i++) {
        const json_t *id = json_array_get(ids, i);
        status = id_check(t, id, err);
        if (status) break;
        if (*behind) status = ends_put(&t->tail, &t->n_tail, t->n_tail, (int32_t)json_integer_value(id), err);
        else status = ends_put(&t->head, &t->n_head, (*at)++, (int32_t)json_integer_value(id), err);
    }
    return status;
}

static am_status pair_end(am_tokenizer *t, const json_t *j, const char *key, bool front, am_error *err) {
    const json_t *id = json_array_get(json_object_get(j, key), 1);
    am_status status = id_check(t, id, err);
    if (status) return status;
    int32_t value = (int32_t)json_integer_value(id);
    return front ? ends_put(&t->head, &t->n_head, 0, value, err) : ends_put(&t->tail, &t->n_tail, t->n_tail, value, err);
}

static am_status postprocessor(am_tokenizer *t, const json_t *j, am_error *err) {
    am_str type = type_of(j);
    if (is(type, "ByteLevel")) return AM_OK; /* only trims offsets */
    if (t->n_tail || t->n_head) return am_fail(err, AM_EUNSUPPORTED, "post_processor type '%.*s' behind another that adds tokens is not supported", (int)(type.n < 100 ? type.n : 100), type.p);
    if (is(type, "BertProcessing") || is(type, "RobertaProcessing")) {
        am_status status = pair_end(t, j, "cls", true, err);
        return status ? status : pair_end(t, j, "sep", false, err);
    }
    if (!is(type, "TemplateProcessing")) return refuse("post_processor", type, err);
    const json_t *single = json_object_get(j, "single"), *specials = json_object_get(j, "special_tokens");
    if (!json_is_array(single)) return am_fail(err, AM_EFORMAT, "the template's 'single' must be an array");
    bool behind = false;
    size_t at = 0;
    am_status status = AM_OK;
    for (size_t i = 0; i < json_array_size(single) && !status; i++)
        status = template_item(t, json_array_get(single, i), specials, &behind, &at, err);
    if (!status && !behind) return am_fail(err, AM_EUNSUPPORTED, "a template without the text is not supported");
    return status;
}

am_status am_hf_postprocessor(am_tokenizer *t, const json_t *j, am_error *err) { return each(t, j, "processors", postprocessor, 0, err); }
