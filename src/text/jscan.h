/* A pull reader over JSON text, for the two large members of tokenizer.json (vocabulary and merges), which as a tree of values
 * would cost more than everything else of loading. Small members are cut out by it and given to base/json.h. */
#ifndef AM_TEXT_JSCAN_H
#define AM_TEXT_JSCAN_H

#include "base/buf.h"

typedef struct am_jscan {
    const char *p, *begin, *end;
    am_buf text; /* the last string, unescaped */
} am_jscan;
void am_jscan_init(am_jscan *j, am_str text);
void am_jscan_free(am_jscan *j);
/* Takes one of {}[],: after white space; false (and nothing taken) when something else comes. */
bool am_jscan_take(am_jscan *j, char c);
/* A string; the view is good until the next. AM_EFORMAT says where the text is not JSON. */
am_status am_jscan_string(am_jscan *j, am_str *s, am_error *err);
am_status am_jscan_number(am_jscan *j, double *value, am_error *err);
am_status am_jscan_id(am_jscan *j, uint64_t *value, am_error *err); /* a whole number, digits only */
/* Steps over one value of any kind; *value is its text. Brackets and strings are matched, no more is checked. */
am_status am_jscan_skip(am_jscan *j, am_str *value, am_error *err);
am_status am_jscan_fail(const am_jscan *j, const char *wanted, am_error *err);

#endif
