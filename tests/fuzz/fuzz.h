/* A fuzz target is one file fuzz_NAME.c in this folder that says FUZZ_TARGET(NAME) { ... return 0; }, with `data` and `size`.
 *
 * `make fuzz FUZZ=NAME SECONDS=n` links it with libFuzzer. The same file is linked into tests/test_fuzz.c, which runs it over every file of
 * tests/data/fuzz/NAME: seeds, and whatever was ever found. A broken promise ends the program through fuzz_check. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

typedef int (*fuzz_run)(const uint8_t *data, size_t size);
typedef struct fuzz_target {
    const char *name;
    fuzz_run run;
    struct fuzz_target *next;
} fuzz_target;
extern fuzz_target *fuzz_targets; /* all that are linked into test_fuzz */

#ifdef FUZZ_ALONE
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
#define FUZZ_TARGET(target) int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
#else
#define FUZZ_TARGET(target)                                                                                            \
    static int target##_run(const uint8_t *data, size_t size);                                                         \
    __attribute__((constructor)) static void target##_add(void) {                                                      \
        static fuzz_target self = {#target, target##_run, NULL};                                                       \
        self.next = fuzz_targets;                                                                                      \
        fuzz_targets = &self;                                                                                          \
    }                                                                                                                  \
    static int target##_run(const uint8_t *data, size_t size)
#endif

#define fuzz_check(promise)                                                                                            \
    do {                                                                                                               \
        if (!(promise)) __builtin_trap();                                                                              \
    } while (0)

#endif
