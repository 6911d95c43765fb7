#ifndef AM_TESTS_TEXT_TRUTH_H
#define AM_TESTS_TEXT_TRUTH_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Path of a file of the reference data ($AM_SHARED or ../shared); false when it is not there. */
bool truth_path(char *out, size_t cap, const char *name);
/* A JSON file of it; skips the running test, with a printed line, when it is absent. The caller decrefs. */
json_t *truth_json(const char *name);

#endif
