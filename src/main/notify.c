/* Owns the notification socket. The protocol is one datagram to the address in NOTIFY_SOCKET, a path or, with a leading '@', an abstract name;
 * libsystemd would be a library for twenty lines. */
#include "main/notify.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void am_notify(const char *format, ...) {
    const char *to = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char text[1024];
    size_t n = to ? strlen(to) : 0;
    if (n < 2 || n >= sizeof address.sun_path || (to[0] != '/' && to[0] != '@')) return;
    memcpy(address.sun_path, to, n);
    if (to[0] == '@') address.sun_path[0] = 0;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    /* A manager that does not listen is its own affair: the server serves all the same. */
    ssize_t ignored = sendto(fd, text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1, MSG_NOSIGNAL | MSG_DONTWAIT,
                             (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
    (void)ignored;
    close(fd);
}

uint32_t am_notify_watchdog_ms(void) {
    const char *us = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!us || (pid && strtol(pid, NULL, 10) != (long)getpid())) return 0;
    unsigned long long value = strtoull(us, NULL, 10);
    return value / 1000 > UINT32_MAX ? UINT32_MAX : (uint32_t)(value / 1000);
}
