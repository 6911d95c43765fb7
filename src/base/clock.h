/* Time. Monotonic for durations and timeouts, wall for time stamps that people read. */
#ifndef AM_BASE_CLOCK_H
#define AM_BASE_CLOCK_H

#include <stdint.h>

uint64_t am_now_ns(void);  /* monotonic */
uint64_t am_wall_ns(void); /* since 1970 */
double am_ms_since(uint64_t start_ns);

#endif
