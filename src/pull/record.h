/* .pulled.json of a model's folder: what was pulled from where. It tells a later pull what is there already; nothing else depends on it.
 *
 *     {"source": "hf:ORG/NAME", "revision": "<commit>", "files": {"<name>": {"size": n, "sha256": "<hex>", "identity": "<of the server>"}}} */
#ifndef AM_PULL_RECORD_H
#define AM_PULL_RECORD_H

#include "pull/plan.h"

json_t *am_record_read(const char *dir); /* an empty one when there is none, or none that can be read; NULL: out of memory */
am_status am_record_write(const char *dir, const json_t *record, am_error *err);
am_status am_record_add(json_t *record, const am_plan_file *file, uint64_t size, const char *sha256, am_error *err);
/* dir has the file, as the record says of the same content. */
bool am_record_has(const json_t *record, const char *dir, const am_plan_file *file);
const char *am_record_sum(const json_t *record, const char *name); /* NULL: not known */

#endif
