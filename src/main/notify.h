/* What the service manager is told (systemd's sd_notify protocol): ready, reloading, stopping, alive. Without one nothing happens. */
#ifndef AM_MAIN_NOTIFY_H
#define AM_MAIN_NOTIFY_H

#include <stdint.h>

/* Lines of NAME=VALUE, as sd_notify(3) lists them. */
void am_notify(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* How often the manager wants to hear WATCHDOG=1, in ms; 0: it does not. */
uint32_t am_notify_watchdog_ms(void);

#endif
