/* Owns <data folder>/chats/<agent>.json: an array of messages, rewritten after every turn. The server keeps tokens, not text, so what a person reads
 * again has to be kept by the program they read it in. Removing a file forgets the talk, not the agent. */
#include "main/transcript.h"

#include "base/fs.h"
#include "main/client.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 256 << 20 };

am_status am_transcript_open(am_transcript *transcript, const char *data_dir, const char *agent, am_error *err) {
    char path[8192];
    am_buf name;
    *transcript = (am_transcript){0};
    am_status status = AM_OK;
    am_buf_init(&name, sizeof transcript->name - 1);
    if (agent) {
        if ((status = am_client_path(&name, "", agent, ".json"))) status = am_fail(err, status, "the agent's name is too long");
        if (!status) status = am_fs_join(transcript->dir, sizeof transcript->dir, data_dir, "chats", err);
        if (!status) status = am_fs_join(path, sizeof path, transcript->dir, name.p, err);
        if (!status) memcpy(transcript->name, name.p, name.n + 1);
        if (!status && (status = am_json_read(path, MAX_BYTES, &transcript->messages, err)) == AM_ENOTFOUND) status = AM_OK;
        if (!status && transcript->messages && !json_is_array(transcript->messages))
            status = am_fail(err, AM_EFORMAT, "%s is not a list of messages", path);
    }
    am_buf_free(&name);
    if (!status && !transcript->messages && !(transcript->messages = json_array())) status = am_fail(err, AM_ENOMEM, "no memory");
    return status;
}

am_status am_transcript_save(const am_transcript *transcript, am_error *err) {
    if (!transcript->name[0]) return AM_OK;
    char tmp[sizeof transcript->name + 8];
    snprintf(tmp, sizeof tmp, "%s.tmp", transcript->name);
    char *text = json_dumps(transcript->messages, JSON_INDENT(1));
    if (!text) return am_fail(err, AM_ENOMEM, "no memory to keep the conversation");
    am_str part = am_str_of(text);
    am_status status = am_fs_mkdirs(transcript->dir, err);
    if (!status) status = am_fs_write_atomic(transcript->dir, tmp, transcript->name, &part, 1, true, err);
    free(text);
    return status;
}

void am_transcript_close(am_transcript *transcript) {
    json_decref(transcript->messages);
    transcript->messages = NULL;
}

static json_t *message_of(const char *role, am_str text) {
    json_t *content = json_stringn(text.n ? text.p : "", text.n);
    return content ? json_pack("{s:s, s:o}", "role", role, "content", content) : NULL; /* NULL: not UTF-8, or no memory */
}

am_status am_transcript_add(am_transcript *transcript, const char *role, am_str text) {
    return json_array_append_new(transcript->messages, message_of(role, text)) ? AM_EINVAL : AM_OK;
}

static bool has_role(const json_t *message, const char *role) {
    const char *own = json_string_value(json_object_get(message, "role"));
    return own && strcmp(own, role) == 0;
}

bool am_transcript_drop(am_transcript *transcript, const char *role) {
    size_t n = json_array_size(transcript->messages);
    return n && has_role(json_array_get(transcript->messages, n - 1), role) && json_array_remove(transcript->messages, n - 1) == 0;
}

void am_transcript_reset(am_transcript *transcript, const char *system) {
    json_t *first = json_incref(json_array_get(transcript->messages, 0));
    json_array_clear(transcript->messages);
    if (system && *system) am_transcript_add(transcript, "system", am_str_of(system));
    else if (!system && has_role(first, "system")) json_array_append(transcript->messages, first);
    json_decref(first);
}
