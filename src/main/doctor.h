/* What the files of `doctor` share: what was found, and how it is said. */
#ifndef AM_MAIN_DOCTOR_H
#define AM_MAIN_DOCTOR_H

#include "base/cgroup.h"
#include "base/json.h"
#include "main/settings.h"

typedef enum am_doctor_level {
    AM_DOCTOR_OK,   /* as it should be */
    AM_DOCTOR_NOTE, /* worth knowing */
    AM_DOCTOR_WARN, /* will be slow or fail one day */
    AM_DOCTOR_BAD   /* does not work, or loses something */
} am_doctor_level;

typedef struct am_doctor {
    const am_settings *settings;
    char data_dir[4096], caches[4096];
    bool fix, has_dir, served; /* served: a server has the data folder */
    char who[512];             /* which one, as it said */
    int server;                /* pid of ours that has the port; 0: none */
    json_t *findings;
} am_doctor;

/* One finding: which check, what was seen, and what to do about it ("" when nothing). */
void am_doctor_say(am_doctor *doctor, am_doctor_level level, const char *check, const char *todo, const char *format,
                   ...) __attribute__((format(printf, 5, 6)));
/* The same for what --fix mended. */
void am_doctor_fixed(am_doctor *doctor, const char *check, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* doctor_server.c */
void am_doctor_port(am_doctor *doctor);
void am_doctor_processes(am_doctor *doctor);
void am_doctor_crashes(am_doctor *doctor);
/* doctor_disk.c */
void am_doctor_folder(am_doctor *doctor);
void am_doctor_files(am_doctor *doctor);
void am_doctor_disk(am_doctor *doctor);
/* doctor_machine.c */
void am_doctor_memory(am_doctor *doctor);
void am_doctor_shared(am_doctor *doctor);
void am_doctor_limits(am_doctor *doctor);
void am_doctor_cpu(am_doctor *doctor);
void am_doctor_clock(am_doctor *doctor);


#endif
