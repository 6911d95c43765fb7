/* What the files of the crash report share: output and look-up that a signal handler may use. No function here
 * allocates, locks or uses stdio. */
#ifndef AM_MAIN_CRASH_OUT_H
#define AM_MAIN_CRASH_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct am_crash_out {
    int fd[2]; /* -1: none */
    size_t n;
    char bytes[512];
} am_crash_out;

void am_crash_put(am_crash_out *out, const char *text);
void am_crash_put_number(am_crash_out *out, uint64_t value);
void am_crash_put_hex(am_crash_out *out, uint64_t value);
void am_crash_flush(am_crash_out *out);
/* A string that may lie in memory that is gone; "?" then. */
void am_crash_put_untrusted(am_crash_out *out, const char *text);

void am_crash_symbols_setup(void); /* maps our own symbol table and notes where the libraries lie */
/* "name+0x12 (agent_memory+0x1234)", or the library's name and offset, or nothing known. */
void am_crash_put_symbol(am_crash_out *out, uintptr_t address);
bool am_crash_is_code(uintptr_t address); /* in one of our own functions */
/* Copies n bytes from anywhere; 0, or -1 where nothing is mapped. */
int am_crash_read(void *to, const void *from, size_t n);

#endif
