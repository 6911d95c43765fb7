/* Owns the checks of servers: who has the port, processes that should not be there, crashes that were not looked at. */
#include "main/doctor.h"

#include "base/fs.h"
#include "base/procs.h"
#include "main/client.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { START_S = 120 }; /* a server without a port that is older does not start any more */

void am_doctor_port(am_doctor *d) {
    unsigned port = (unsigned)d->settings->port;
    am_proc proc;
    char todo[256];
    am_status status = am_proc_of_port(port, &proc);
    if (status == AM_ENOTFOUND) {
        am_doctor_say(d, AM_DOCTOR_OK, "port", "", "port %u is free", port);
        return;
    }
    if (!status && strcmp(proc.name, "agent_memory") == 0) d->server = proc.pid;
    bool answers = am_client_find(d->settings->host, (uint16_t)port, 0);
    snprintf(todo, sizeof todo, "choose another --port, or end it: kill -TERM $(lsof -ti:%u -sTCP:LISTEN)", port);
    if (status) {
        am_doctor_say(d, answers ? AM_DOCTOR_OK : AM_DOCTOR_BAD, "port", answers ? "" : todo,
                      "port %u belongs to another user's process%s", port,
                      answers ? ", a server of ours that answers" : "");
    } else if (strcmp(proc.name, "agent_memory") != 0) {
        am_doctor_say(d, AM_DOCTOR_BAD, "port", todo, "port %u belongs to pid %d (%s)", port, proc.pid, proc.command);
    } else if (answers) {
        am_doctor_say(d, AM_DOCTOR_OK, "port", "", "port %u: pid %d (%s) answers, up %.0f s, %.0f MiB in memory", port,
                      proc.pid, proc.command, proc.age_s, (double)proc.rss_bytes / (1 << 20));
    } else {
        snprintf(todo, sizeof todo, "wait if it was just started; else agent-memory stop --port %u --force", port);
        am_doctor_say(d, AM_DOCTOR_BAD, "port", todo, "port %u: pid %d (%s) does not answer (state %c, up %.0f s)",
                      port, proc.pid, proc.command, proc.state, proc.age_s);
    }
}

typedef struct looker {
    am_doctor *doctor;
    unsigned n_servers;
    uint64_t rss_bytes, swap_bytes, locked_bytes;
} looker;

static am_status look_at_process(void *arg, const am_proc *p) {
    looker *l = arg;
    char todo[160];
    if (strcmp(p->name, "agent_memory") != 0 || p->pid == getpid()) return AM_OK;
    l->rss_bytes += p->rss_bytes;
    l->swap_bytes += p->swap_bytes;
    l->locked_bytes += p->locked_bytes;
    if (p->state == 'Z') {
        snprintf(todo, sizeof todo, "it holds no memory; its parent, pid %d, should wait for it: restart that one",
                 p->parent);
        am_doctor_say(l->doctor, AM_DOCTOR_WARN, "processes", todo, "pid %d has ended but is still listed (a zombie)",
                      p->pid);
    } else if (strstr(p->command, " serve")) {
        l->n_servers++;
        snprintf(todo, sizeof todo, "kill -TERM %d, and kill -9 %d when it does not go", p->pid, p->pid);
        if (p->state == 'T') {
            am_doctor_say(l->doctor, AM_DOCTOR_BAD, "processes", todo, "pid %d (%s) was stopped by a signal", p->pid,
                          p->command);
        } else if (p->age_s > START_S && p->uid == getuid() && !am_proc_listens(p->pid)) {
            am_doctor_say(l->doctor, AM_DOCTOR_WARN, "processes", todo,
                          "pid %d (%s) serves no port, %.0f s after its start", p->pid, p->command, p->age_s);
        }
    }
    return AM_OK;
}

void am_doctor_processes(am_doctor *d) {
    looker l = {.doctor = d};
    am_error err = {0};
    if (am_proc_each(look_at_process, &l, &err)) {
        am_doctor_say(d, AM_DOCTOR_NOTE, "processes", "", "%s", err.message);
        return;
    }
    am_doctor_say(d, AM_DOCTOR_OK, "processes", "",
                  "%u servers of ours: %.0f MiB in memory, %.0f MiB locked, %.0f MiB in swap", l.n_servers,
                  (double)l.rss_bytes / (1 << 20), (double)l.locked_bytes / (1 << 20),
                  (double)l.swap_bytes / (1 << 20));
    if (l.swap_bytes > 16 << 20)
        am_doctor_say(d, AM_DOCTOR_WARN, "processes", "give the server less --kv-memory, or the machine less to do",
                      "a server of ours is partly in swap: answers will stutter");
    if (d->served)
        am_doctor_say(d, AM_DOCTOR_OK, "processes", "", "the data folder is in use by %s",
                      *d->who ? d->who : "a process");
}

typedef struct reports {
    unsigned n;
    char newest[64];
} reports;

static am_status look_at_report(void *arg, const char *name) {
    reports *r = arg;
    if (strlen(name) < sizeof r->newest && strstr(name, ".txt")) {
        r->n++;
        if (strtoull(name, NULL, 10) >= strtoull(r->newest, NULL, 10)) strcpy(r->newest, name);
    }
    return AM_OK;
}

void am_doctor_crashes(am_doctor *d) {
    char dir[4200], todo[4400];
    reports r = {0};
    if (!d->data_dir[0] || am_fs_join(dir, sizeof dir, d->data_dir, "crash", NULL) || access(dir, F_OK) != 0) return;
    if (am_fs_list(dir, look_at_report, &r, NULL) || !r.n) return;
    snprintf(todo, sizeof todo, "read %.4100s/%s, report it, then remove it", dir, r.newest);
    double age = difftime(time(NULL), (time_t)strtoull(r.newest, NULL, 10));
    am_doctor_say(d, age < 86400 ? AM_DOCTOR_WARN : AM_DOCTOR_NOTE, "crashes", todo,
                  "%u crash reports, the newest %.1f hours old", r.n, age / 3600);
}
