/* Owns the reading of traceparent. */
#include "server/trace.h"

#include "base/hash.h"

#include <stdio.h>
#include <string.h>

enum { ID_AT = 3, PARENT_AT = 36, FLAGS_AT = 53, LENGTH = 55 };

/* n hex digits in lower case; *zeros: nothing else than 0. */
static bool is_hex(const char *p, size_t n, bool *zeros) {
    *zeros = true;
    for (size_t i = 0; i < n; i++) {
        if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'f'))) return false;
        if (p[i] != '0') *zeros = false;
    }
    return true;
}

static bool well_formed(am_str v) {
    bool zeros, first;
    if (v.n < LENGTH || v.p[ID_AT - 1] != '-' || v.p[PARENT_AT - 1] != '-' || v.p[FLAGS_AT - 1] != '-') return false;
    if (!is_hex(v.p, 2, &first) || memcmp(v.p, "ff", 2) == 0) return false;
    if (v.n > LENGTH && (first || v.p[LENGTH] != '-')) return false;
    return is_hex(v.p + ID_AT, 32, &zeros) && !zeros && is_hex(v.p + PARENT_AT, 16, &zeros) && !zeros && is_hex(v.p + FLAGS_AT, 2, &zeros);
}

void am_trace_take(const am_http_head *head, am_trace *out) {
    am_str v = {0};
    size_t n = 0;
    *out = (am_trace){.id = ""};
    for (size_t i = 0; i < head->n_fields; i++)
        if (am_http_name_is(head->fields[i].name, "traceparent")) v = head->fields[i].value, n++;
    if (n != 1 || !well_formed(v)) return;
    memcpy(out->id, v.p + ID_AT, 32);
    memcpy(out->flags, v.p + FLAGS_AT, 2);
    uint64_t span = 0;
    while (!span) am_random_bytes(&span, sizeof span);
    snprintf(out->span, sizeof out->span, "%016llx", (unsigned long long)span);
}
