/* Owns the text of a crash report on its way out: to standard error and to the report's file, in pieces, with write
 * alone. */
#include "main/crash_out.h"

#include <string.h>
#include <unistd.h>

void am_crash_flush(am_crash_out *out) {
    for (int i = 0; i < 2; i++) {
        size_t done = 0;
        while (out->fd[i] >= 0 && done < out->n) {
            ssize_t r = write(out->fd[i], out->bytes + done, out->n - done);
            if (r <= 0)
                out->fd[i] = -1; /* the other one may still be written */
            else
                done += (size_t)r;
        }
    }
    out->n = 0;
}

static void put(am_crash_out *out, const char *p, size_t n) {
    while (n > 0) {
        size_t room = sizeof out->bytes - out->n, k = n < room ? n : room;
        memcpy(out->bytes + out->n, p, k);
        out->n += k;
        p += k;
        n -= k;
        if (out->n == sizeof out->bytes) am_crash_flush(out);
    }
}

void am_crash_put(am_crash_out *out, const char *text) { put(out, text, strlen(text)); }

static void put_base(am_crash_out *out, uint64_t value, unsigned base) {
    char digits[24];
    size_t at = sizeof digits;
    do digits[--at] = "0123456789abcdef"[value % base];
    while (value /= base);
    put(out, digits + at, sizeof digits - at);
}

void am_crash_put_number(am_crash_out *out, uint64_t value) { put_base(out, value, 10); }

void am_crash_put_hex(am_crash_out *out, uint64_t value) {
    am_crash_put(out, "0x");
    put_base(out, value, 16);
}

void am_crash_put_untrusted(am_crash_out *out, const char *text) {
    char c = '?';
    if (am_crash_read(&c, text, 1)) put(out, "?", 1);
    for (size_t i = 0; i < 256 && am_crash_read(&c, text + i, 1) == 0 && c; i++)
        put(out, (unsigned char)c < ' ' ? "?" : &c, 1);
}
