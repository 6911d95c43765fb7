/* Owns `doctor`: the list of checks, run in order, and how their findings are printed. A check looks and says; with
 * --fix it also mends what cannot do harm (permissions, orphans of crashes). It never ends a process and never removes
 * an agent. */
#include "main/doctor.h"

#include "base/fs.h"
#include "cache/cache.h"
#include "main/commands.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void (*const checks[])(am_doctor *doctor) = {
    am_doctor_port,   am_doctor_processes, am_doctor_crashes, am_doctor_folder, am_doctor_files, am_doctor_disk,
    am_doctor_memory, am_doctor_shared,    am_doctor_limits,  am_doctor_cpu,    am_doctor_clock};
static const char *const level_names[] = {"ok", "note", "warning", "bad"};

static void add(am_doctor *d, const char *level, const char *check, const char *text, const char *todo) {
    json_array_append_new(
        d->findings, json_pack("{s:s, s:s, s:s, s:s}", "level", level, "check", check, "text", text, "todo", todo));
    if (d->settings->json) return;
    printf("%-8s %-10s %s\n", level, check, text);
    if (*todo) printf("%-19s -> %s\n", "", todo);
}

void am_doctor_say(am_doctor *d, am_doctor_level level, const char *check, const char *todo, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    add(d, level_names[level], check, text, todo);
}

void am_doctor_fixed(am_doctor *d, const char *check, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    add(d, "fixed", check, text, "");
}

static void find_dirs(am_doctor *d) {
    const char *data = d->settings->data_dir ? d->settings->data_dir : am_settings_home();
    snprintf(d->data_dir, sizeof d->data_dir, "%s", data);
    if (!*data || am_fs_join(d->caches, sizeof d->caches, data, "caches", NULL)) return;
    d->has_dir = access(d->caches, F_OK) == 0;
    d->served = d->has_dir && am_cache_lock_held(d->caches, d->who);
}

static size_t count(const am_doctor *d, const char *level) {
    size_t n = 0, i;
    json_t *finding;
    json_array_foreach(d->findings, i, finding) n +=
        strcmp(json_string_value(json_object_get(finding, "level")), level) == 0;
    return n;
}

int am_command_doctor(am_settings *settings) {
    am_doctor d = {.settings = settings, .fix = settings->fix, .findings = json_array()};
    if (!d.findings) return AM_EXIT_FAILED;
    find_dirs(&d);
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) checks[i](&d);
    size_t n_bad = count(&d, "bad"), n_warnings = count(&d, "warning"), n_fixed = count(&d, "fixed");
    if (settings->json) {
        json_t *all = json_pack("{s:i, s:i, s:i, s:O}", "bad", (int)n_bad, "warnings", (int)n_warnings, "fixed",
                                (int)n_fixed, "findings", d.findings);
        json_dumpf(all, stdout, JSON_INDENT(1));
        puts("");
        json_decref(all);
    } else {
        printf("%zu bad, %zu warnings, %zu fixed\n", n_bad, n_warnings, n_fixed);
    }
    json_decref(d.findings);
    return n_bad ? AM_EXIT_FOUND : 0;
}
