/* What the tests of text/ share: where the truth lies that is not part of the repository. */
#include "text_truth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

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
