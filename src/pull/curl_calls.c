/* Owns the loading of libcurl, in whichever of Debian's forms is there. */
#include "pull/curl_calls.h"

#include <dlfcn.h>
#include <stddef.h>

static void *open_library(void) {
    static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof names / sizeof names[0]; i++) library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return library;
}

am_status am_curl_open(const am_curl **out, am_error *err) {
    static am_curl calls;
    static bool open;
    static const struct {
        const char *name;
        size_t offset;
    } members[] = {
#define AM_CURL_ROW(call) {"curl_" #call, offsetof(am_curl, call)},
        AM_CURL_CALLS(AM_CURL_ROW)
#undef AM_CURL_ROW
    };
    *out = &calls;
    if (open) return AM_OK;
    void *library = open_library();
    if (!library) return am_fail(err, AM_EUNSUPPORTED, "pulling models wants libcurl, which is not here: apt install libcurl4");
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        void *found = dlsym(library, members[i].name);
        if (!found) return am_fail(err, AM_EUNSUPPORTED, "this libcurl has no %s: it is too old", members[i].name);
        *(void **)((char *)&calls + members[i].offset) = found;
    }
    if (calls.global_init(CURL_GLOBAL_DEFAULT)) return am_fail(err, AM_EUNSUPPORTED, "libcurl does not start");
    open = true;
    return AM_OK;
}
