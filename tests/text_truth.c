/* What the tests of text/ share: where the truth lies that is not part of the repository. */
#include "text_truth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fs.h"
#include "base/json.h"

bool truth_path(char *out, size_t cap, const char *name) {
    const char *dir = getenv("AM_SHARED");
    snprintf(out, cap, "%s/%s", dir ? dir : "../shared", name);
    return access(out, R_OK) == 0;
}

json_t *truth_json(const char *name) {
    char path[4096];
    json_t *json = NULL;
    am_error err;
    if (!truth_path(path, sizeof path, name)) {
        printf("no %s: set AM_SHARED to the folder of the reference data\n", path);
        skip();
    }
    if (am_json_read(path, 64u << 20, &json, &err)) fail_msg("%s", err.message);
    return json;
}

typedef struct shown {
    const char *dir;
    void (*show)(void *arg, const char *name, am_str source);
    void *arg;
} shown;

static am_status show_file(void *arg, const char *name) {
    const shown *s = arg;
    char path[4096];
    am_buf text;
    am_buf_init(&text, 1 << 22);
    if (am_fs_join(path, sizeof path, s->dir, name, NULL) == AM_OK && am_fs_read_file(path, &text, 1 << 22, NULL) == AM_OK) s->show(s->arg, name, am_buf_str(&text));
    am_buf_free(&text);
    return AM_OK;
}

void truth_more_templates(void (*show)(void *arg, const char *name, am_str source), void *arg) {
    shown s = {getenv("AM_CHAT_TEMPLATES"), show, arg};
    am_error err = {0};
    if (!s.dir) skip();
    if (am_fs_list(s.dir, show_file, &s, &err)) fail_msg("%s", err.message);
}
