/* Signals of the running server, as one place to wait at. */
#ifndef AM_MAIN_CONTROL_H
#define AM_MAIN_CONTROL_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum am_control_event { AM_CONTROL_TIME, AM_CONTROL_STOP, AM_CONTROL_RELOAD } am_control_event;

/* Before any other thread is started: blocks the signals in all of them. From now on a signal to stop ends the process at once, as nothing was taken
 * yet, until am_control_loaded. */
am_status am_control_start(am_error *err);
void am_control_loaded(void);
am_control_event am_control_wait(uint32_t ms);
extern volatile int am_control_hurry; /* nonzero: a second signal to stop has come */

#endif
