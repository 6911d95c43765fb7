/* All of test_int8.c on the table of AMX, by a model of its instructions. */
#if defined(__x86_64__)

#include "amx_model.h"

int all_of_test_int8(void);
#define main all_of_test_int8
#include "test_int8.c"
#undef main

int main(void) {
    int n_failed = all_of_test_int8();
    return n_failed ? n_failed : amx_tried(10000);
}

#else
int main(void) { return 0; }
#endif
