/* Owns .pulled.json. */
#include "pull/record.h"

#include "base/fs.h"

#include <string.h>

enum { MAX_RECORD = 16 << 20 };
static const char record_name[] = ".pulled.json";

json_t *am_record_read(const char *dir) {
    char path[4096];
    json_t *record = NULL;
    if (am_fs_join(path, sizeof path, dir, record_name, NULL) == AM_OK && am_json_read(path, MAX_RECORD, &record, NULL) == AM_OK && json_is_object(record)) return record;
    json_decref(record);
    return json_object();
}

am_status am_record_write(const char *dir, const json_t *record, am_error *err) {
    am_buf text;
    am_buf_init(&text, MAX_RECORD);
    am_status status = am_json_dump(record, &text);
    if (status) am_fail(err, status, "what was pulled is too much to be noted");
    else status = am_fs_write_atomic(dir, ".pulled.json.tmp", record_name, &(am_str){text.p, text.n}, 1, true, err);
    am_buf_free(&text);
    return status;
}

am_status am_record_add(json_t *record, const am_plan_file *file, uint64_t size, const char *sha256, am_error *err) {
    json_t *files = json_object_get(record, "files");
    if (!files && !json_object_set_new(record, "files", json_object())) files = json_object_get(record, "files");
    json_t *one = json_pack("{s:I, s:s, s:s}", "size", (json_int_t)size, "sha256", sha256, "identity", am_plan_identity(file));
    return json_object_set_new(files, file->name, one) ? am_fail(err, AM_ENOMEM, "no memory for a list of files") : AM_OK;
}

static const json_t *entry(const json_t *record, const char *name) { return json_object_get(json_object_get(record, "files"), name); }

bool am_record_has(const json_t *record, const char *dir, const am_plan_file *file) {
    const json_t *one = entry(record, file->name);
    const char *identity = json_string_value(json_object_get(one, "identity")), *sum = json_string_value(json_object_get(one, "sha256"));
    char path[4096];
    struct stat st;
    if (!identity || !*identity || (file->sha256 ? !sum || strcmp(sum, file->sha256) != 0 : strcmp(identity, am_plan_identity(file)) != 0)) return false;
    if (am_fs_join(path, sizeof path, dir, file->name, NULL) || am_io->lstat(path, &st) || !S_ISREG(st.st_mode)) return false;
    return (uint64_t)st.st_size == file->size && st.st_size == json_integer_value(json_object_get(one, "size"));
}

const char *am_record_sum(const json_t *record, const char *name) { return json_string_value(json_object_get(entry(record, name), "sha256")); }
