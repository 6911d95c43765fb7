/* What a model is called, to be pulled and to be found again once it is there.
 *
 *     hf:ORG/NAME[@REVISION][:CHOICE]    ORG/NAME...    https://HOST/.../FILE.gguf
 *
 * CHOICE picks one GGUF file of several: its name, or the name of a quantisation in it (Q4_K_M). A file from a plain URL goes by HOST/FILE. */
#ifndef AM_PULL_SOURCE_H
#define AM_PULL_SOURCE_H

#include "base/buf.h"

typedef struct am_source {
    char org[128], name[128], revision[128], choice[200]; /* revision: "main" unless said; choice: empty unless said */
    char file[200];  /* of a plain URL; else empty */
    const char *url; /* the caller's; NULL: a hub's model */
} am_source;

am_status am_source_parse(const char *text, am_source *out, am_error *err);
/* A name that may become one of a file: a path's last part, no control characters, nothing hidden. */
bool am_source_file_ok(am_str name);
/* The file of a GGUF name that a choice means: its name, or a tag that stands in it between other signs than letters, digits and _. */
bool am_source_chooses(const char *choice, const char *file);
/* How many files a GGUF name is one of ("x-00002-of-00003.gguf": 3), and the first one's name in first; 1: alone. */
unsigned am_source_parts(const char *file, char first[200]);

#endif
