#ifndef AM_TESTS_TEXT_TRUTH_H
#define AM_TESTS_TEXT_TRUTH_H

#include "base/buf.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Path of a file of the reference data ($AM_SHARED or ../shared); false when it is not there. */
bool truth_path(char *out, size_t cap, const char *name);
/* A JSON file of it; skips the running test, with a printed line, when it is absent. The caller decrefs. */
json_t *truth_json(const char *name);

/* Shows each file of the folder that AM_CHAT_TEMPLATES names: any other templates at hand. Without one the running test is skipped. */
void truth_more_templates(void (*show)(void *arg, const char *name, am_str source), void *arg);

#endif
