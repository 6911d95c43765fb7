/* Runs every fuzz target (tests/fuzz) over its seeds and over all that was ever found: tests/data/fuzz/NAME. */
#include "base/fs.h"
#include "fuzz/fuzz.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

fuzz_target *fuzz_targets;

typedef struct folder {
    const fuzz_target *target;
    char dir[512];
    size_t n;
} folder;

static am_status one_file(void *arg, const char *name) {
    folder *f = arg;
    char path[1024];
    am_buf input;
    am_error err = {0};
    am_buf_init(&input, 1 << 26);
    assert_int_equal(am_fs_join(path, sizeof path, f->dir, name, &err), AM_OK);
    if (am_fs_read_file(path, &input, 1 << 25, &err)) fail_msg("%s", err.message);
    uint8_t *exact = malloc(input.n + !input.n); /* so that the sanitiser sees a read past the end */
    if (input.n) memcpy(exact, input.p, input.n);
    f->target->run(exact, input.n);
    free(exact);
    am_buf_free(&input);
    f->n++;
    return AM_OK;
}

static void every_input_is_survived(void **state) {
    folder f = {.target = *state};
    const char *root = getenv("AM_TEST_DATA");
    snprintf(f.dir, sizeof f.dir, "%s/fuzz/%s", root ? root : "tests/data", f.target->name);
    am_error err = {0};
    if (am_fs_list(f.dir, one_file, &f, &err)) fail_msg("%s", err.message);
    assert_true(f.n > 0);
    print_message("%s: %zu inputs\n", f.target->name, f.n);
}

int main(void) {
    struct CMUnitTest tests[64];
    size_t n = 0;
    for (fuzz_target *t = fuzz_targets; t && n < 64; t = t->next)
        tests[n++] = (struct CMUnitTest){t->name, every_input_is_survived, NULL, NULL, t};
    return _cmocka_run_group_tests("fuzz", tests, n, NULL, NULL);
}
