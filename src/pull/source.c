/* Owns the reading of model names. What a hub or a URL calls a file becomes a name on this disk, so everything but plain names is refused here. */
#include "pull/source.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool is_word(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_'; }

bool am_source_file_ok(am_str name) {
    if (name.n == 0 || name.n > 190 || name.p[0] == '.') return false;
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] <= ' ' || name.p[i] == '/' || name.p[i] == '\\' || name.p[i] == 127) return false;
    return true;
}

/* As hubs have them: letters, digits and ._- , not at the ends and no two of the last in a row. */
static bool repo_part_ok(const char *s, size_t n) {
    if (n == 0 || n > 96 || !is_word(s[0]) || s[n - 1] == '.' || s[n - 1] == '-') return false;
    for (size_t i = 0; i < n; i++) {
        if (!is_word(s[i]) && s[i] != '-' && s[i] != '.') return false;
        if (i && s[i] == s[i - 1] && (s[i] == '-' || s[i] == '.')) return false;
    }
    return true;
}

static bool ends_in(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcasecmp(s + n - m, end) == 0;
}

/* %41 and its like; false: cut short, or a NUL. */
static bool unescape(const char *p, size_t n, char out[200]) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned c = (unsigned char)p[i];
        if (c == '%' && (i + 2 >= n || sscanf(p + i + 1, "%2x", &c) != 1 || c == 0)) return false;
        if (p[i] == '%') i += 2;
        if (k + 1 >= 200) return false;
        out[k++] = (char)c;
    }
    out[k] = 0;
    return true;
}

static am_status parse_url(const char *text, am_source *out, am_error *err) {
    const char *host = strstr(text, "://") + 3, *path = host + strcspn(host, "/?#"), *end = path + strcspn(path, "?#"), *last = end;
    while (last > path && last[-1] != '/') last--;
    const char *at = memchr(host, '@', (size_t)(path - host)), *name = at ? at + 1 : host;
    size_t n_host = strcspn(name, ":/?#");
    if (at) return am_fail(err, AM_EINVAL, "an address with a user's name in it is refused");
    if (!unescape(last, (size_t)(end - last), out->file) || !am_source_file_ok(am_str_of(out->file)) || !ends_in(out->file, ".gguf"))
        return am_fail(err, AM_EINVAL, "the address of a .gguf file is wanted (a model of several files comes from a hub: ORG/NAME)");
    if (!repo_part_ok(name, n_host)) return am_fail(err, AM_EINVAL, "'%.*s' is no host's name", (int)n_host, name);
    snprintf(out->org, sizeof out->org, "%.*s", (int)n_host, name);
    char first[200];
    unsigned n_parts = am_source_parts(out->file, first);
    if (n_parts > 1) return am_fail(err, AM_EINVAL, "%s is one of %u files; a model of several files comes from a hub: ORG/NAME:%s", out->file, n_parts, first);
    size_t stem = strlen(out->file) - 5;
    for (size_t i = 0; i < stem && i + 1 < sizeof out->name; i++) out->name[i] = is_word(out->file[i]) || out->file[i] == '-' || out->file[i] == '.' ? out->file[i] : '_';
    if (!repo_part_ok(out->name, strlen(out->name))) return am_fail(err, AM_EINVAL, "no model can be called '%s'", out->name);
    out->url = text;
    return AM_OK;
}

static bool text_ok(const char *s) {
    for (; *s; s++)
        if ((unsigned char)*s <= ' ' || *s == 127 || strchr("?#%\\@:", *s)) return false;
    return true;
}

am_status am_source_parse(const char *text, am_source *out, am_error *err) {
    *out = (am_source){.revision = "main"};
    if (strncasecmp(text, "https://", 8) == 0 || strncasecmp(text, "http://", 7) == 0) return parse_url(text, out, err);
    const char *p = strncmp(text, "hf:", 3) == 0 ? text + 3 : text, *slash = strchr(p, '/');
    size_t n_org = slash ? (size_t)(slash - p) : 0, n_name = slash ? strcspn(slash + 1, "@:") : 0;
    if (!slash || !repo_part_ok(p, n_org) || !repo_part_ok(slash + 1, n_name))
        return am_fail(err, AM_EINVAL, "'%.100s' is no model's name: ORG/NAME, ORG/NAME@REVISION, ORG/NAME:FILE.gguf, ORG/NAME:Q4_K_M or https://HOST/FILE.gguf", text);
    snprintf(out->org, sizeof out->org, "%.*s", (int)n_org, p);
    snprintf(out->name, sizeof out->name, "%.*s", (int)n_name, slash + 1);
    for (p = slash + 1 + n_name; *p;) {
        char sign = *p++, *to = sign == '@' ? out->revision : out->choice;
        size_t n = strcspn(p, "@:"), cap = sign == '@' ? sizeof out->revision : sizeof out->choice;
        if (n == 0 || n >= cap) return am_fail(err, AM_EINVAL, "'%.100s': nothing, or too much, after %c", text, sign);
        memcpy(to, p, n);
        to[n] = 0;
        p += n;
    }
    if (!text_ok(out->revision) || strstr(out->revision, "..") || out->revision[0] == '/') return am_fail(err, AM_EINVAL, "'%s' is no revision", out->revision);
    if (*out->choice && !am_source_file_ok(am_str_of(out->choice))) return am_fail(err, AM_EINVAL, "'%s' is no file's name and no quantisation's", out->choice);
    return AM_OK;
}

bool am_source_chooses(const char *choice, const char *file) {
    if (strcmp(choice, file) == 0) return true;
    size_t n = strlen(choice);
    for (const char *p = file; *p; p++)
        if (strncasecmp(p, choice, n) == 0 && !is_word(p[n]) && (p == file || !is_word(p[-1]))) return true;
    return false;
}

unsigned am_source_parts(const char *file, char first[200]) {
    size_t n = strlen(file), tail = strlen("-00001-of-00001.gguf");
    unsigned i, count;
    snprintf(first, 200, "%s", file);
    if (n <= tail || n >= 200 || sscanf(file + n - tail, "-%5u-of-%5u.gguf", &i, &count) != 2 || count < 2 || i < 1 || i > count) return 1;
    memcpy(first + n - tail, "-00001", 6);
    return count;
}
