/* jansson, with the product's limits and errors. Values are jansson's own; who holds a reference decrefs it. */
#ifndef AM_BASE_JSON_H
#define AM_BASE_JSON_H

#include "base/buf.h"

#include <jansson.h>

/* Parses one JSON text. Rejects duplicate keys when `strict` (files of ours and model files) and keeps the last one when not
 * (requests, as clients' own libraries do). Integers beyond 64 bits become reals, a NUL in a member's name U+FFFD; half a surrogate pair and
 * bytes that are not UTF-8 are refused. AM_EFORMAT says line and column. Depth is bounded by jansson (2048). */
am_status am_json_parse(am_str text, bool strict, json_t **out, am_error *err);
/* The same, not strict, for what is to be shown to a model: an integer beyond 64 bits loses no digit. It is a string of U+0001 and the digits, which
 * am_json_dump writes as the integer again, and templates too (am_json_is_wide). */
am_status am_json_parse_exact(am_str text, json_t **out, am_error *err);
bool am_json_is_wide(am_str string);
am_status am_json_read(const char *path, size_t max_bytes, json_t **out, am_error *err);

/* Members with a type: AM_ENOTFOUND when absent or null, AM_EFORMAT (naming key and type found) when of another type. */
am_status am_json_u64(const json_t *object, const char *key, uint64_t max, uint64_t *out, am_error *err);
am_status am_json_f64(const json_t *object, const char *key, double *out, am_error *err);
am_status am_json_bool(const json_t *object, const char *key, bool *out, am_error *err);
am_status am_json_str(const json_t *object, const char *key, am_str *out, am_error *err); /* view into the object */

/* Compact text of a value, appended to buf. */
am_status am_json_dump(const json_t *value, am_buf *buf);
am_status am_json_dump_spaced(const json_t *value, am_buf *buf); /* with blanks where Python's json.dumps has them */
/* A JSON string literal of s with its quotes, appended; bytes that are not UTF-8 become U+FFFD. */
am_status am_json_quote(am_str s, am_buf *buf);

#endif
