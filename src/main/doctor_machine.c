/* Owns the checks of the machine: memory in all its forms, limits set from outside, the processor's instructions and
 * its clock. Everything comes from /proc, /sys and a cgroup: the server's while one runs, since whoever asks sits in
 * another (a login shell, beside a unit with MemoryMax); what a machine does not have is not mentioned. */
#include "main/doctor.h"

#include "kernels/kernels.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MIB = 1 << 20 };
#define MEMINFO "/proc/meminfo"

static double meminfo_mib(const char *word) { return am_number_in_file(MEMINFO, word) / 1024; }

static const char *whose(const am_doctor *d) { return d->server ? "the server's" : "this"; }

void am_doctor_memory(am_doctor *d) {
    double total = meminfo_mib("MemTotal:"), free_mib = meminfo_mib("MemAvailable:"), locked = meminfo_mib("Mlocked:"),
           swap = meminfo_mib("SwapTotal:"), swap_free = meminfo_mib("SwapFree:"),
           huge = am_number_in_file(MEMINFO, "HugePages_Total:"), huge_free = am_number_in_file(MEMINFO, "HugePages_Free:"),
           huge_kib = am_number_in_file(MEMINFO, "Hugepagesize:");
    am_cgroup group;
    am_cgroup_of(d->server, &group);
    if (total < 0) return;
    am_doctor_level level = free_mib < 256 ? AM_DOCTOR_BAD : free_mib < 1024 ? AM_DOCTOR_WARN : AM_DOCTOR_OK;
    am_doctor_say(
        d, level, "memory",
        level ? "end what is not needed, or give the server less --kv-memory (default: a quarter of the machine, or of a container's limit)" : "",
        "%.0f of %.0f MiB can be had; %.0f MiB are locked, %.0f of %.0f MiB of swap are used", free_mib, total, locked,
        swap - swap_free, swap);
    if (locked > 0.7 * total)
        am_doctor_say(d, AM_DOCTOR_WARN, "memory",
                      "look for who locks memory: grep VmLck /proc/[0-9]*/status (not us: we lock none)",
                      "more than 70 %% of memory is locked");
    if (huge > 0)
        am_doctor_say(d, huge_free == huge && huge * huge_kib / 1024 > 0.1 * total ? AM_DOCTOR_WARN : AM_DOCTOR_NOTE,
                      "memory",
                      huge_free == huge ? "we use none of them: sysctl vm.nr_hugepages=0 gives the memory back" : "",
                      "%.0f huge pages of %.0f KiB are set aside, %.0f of them free", huge, huge_kib, huge_free);
    double limit = (double)am_cgroup_memory_limit(&group),
           used = am_cgroup_number(group.memory, "memory.current", "memory.usage_in_bytes", "");
    if (limit > 0 && limit / MIB < total) {
        bool tight = limit - used < 256.0 * MIB;
        am_doctor_say(d, tight ? AM_DOCTOR_WARN : AM_DOCTOR_NOTE, "memory",
                      tight ? "raise the limit or lower --kv-memory" : "",
                      "%s cgroup may have %.0f MiB and has %.0f", whose(d), limit / MIB, used / MIB);
    }
    double kills = am_cgroup_number(group.memory, "memory.events", "memory.oom_control", "oom_kill ");
    if (kills > 0)
        am_doctor_say(d, AM_DOCTOR_WARN, "memory", "raise the limit or lower --kv-memory",
                      "the kernel has ended %.0f processes of %s cgroup for want of memory", kills, whose(d));
}

/* System V segments nobody is attached to any more, of this user. We make none; others' leaks are worth a word, since
 * memory seems to vanish. */
void am_doctor_shared(am_doctor *d) {
    char line[512], todo[128];
    double leaked = 0;
    unsigned n = 0, n_ours = 0;
    FILE *f = fopen("/proc/sysvipc/shm", "re");
    while (f && fgets(line, sizeof line, f)) {
        unsigned long long size;
        unsigned attached, uid;
        if (sscanf(line, " %*d %*d %*o %llu %*d %*d %u %u", &size, &attached, &uid) != 3 || attached || uid != getuid())
            continue;
        n++;
        leaked += (double)size;
    }
    if (f) fclose(f);
    DIR *shm = opendir("/dev/shm");
    for (struct dirent *e; shm && (e = readdir(shm));)
        n_ours += strstr(e->d_name, "agent_memory") || strstr(e->d_name, "agent-memory");
    if (shm) closedir(shm);
    snprintf(todo, sizeof todo, "ipcs -m lists them; ipcrm -m ID removes one (they are not ours: we make none)");
    if (n)
        am_doctor_say(d, AM_DOCTOR_NOTE, "shared", todo,
                      "%u segments of shared memory have no process any more, %.1f MiB", n, leaked / MIB);
    am_doctor_say(d, n_ours ? AM_DOCTOR_WARN : AM_DOCTOR_OK, "shared",
                  n_ours ? "ls /dev/shm; whoever made them, it was not this program" : "",
                  "%u files of shared memory under our name", n_ours);
}

void am_doctor_limits(am_doctor *d) {
    struct rlimit files, core, memory;
    if (prlimit(d->server, RLIMIT_NOFILE, NULL, &files) == 0 && files.rlim_cur < 4096)
        am_doctor_say(d, AM_DOCTOR_WARN, "limits", "ulimit -n 65536, or LimitNOFILE= in the unit",
                      "only %llu files may be open at once, connections among them",
                      (unsigned long long)files.rlim_cur);
    if (prlimit(d->server, RLIMIT_AS, NULL, &memory) == 0 && memory.rlim_cur != RLIM_INFINITY)
        am_doctor_say(d, AM_DOCTOR_WARN, "limits", "ulimit -v unlimited", "the address space is limited to %.0f MiB",
                      (double)memory.rlim_cur / MIB);
    if (prlimit(d->server, RLIMIT_CORE, NULL, &core) == 0 && core.rlim_cur == 0)
        am_doctor_say(d, AM_DOCTOR_OK, "limits", "", "no core files; a crash leaves its report in %s/crash",
                      d->data_dir);
}

void am_doctor_cpu(am_doctor *d) {
    static const char *const wanted[] = {"avx2",     "fma",         "f16c",        "avx512f",  "avx512bw",
                                         "avx512vl", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8",
                                         "asimd",    "asimddp",     "i8mm",        "sve"};
    char flags[8192] = "", has[256] = "", word[32];
    am_error err = {0};
    const am_kernels *kernels = NULL;
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && fgets(flags, sizeof flags, f) && strncmp(flags, "flags", 5) != 0 && strncmp(flags, "Features", 8) != 0)
        continue;
    if (f) fclose(f);
    flags[strcspn(flags, "\n")] = ' ';
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        snprintf(word, sizeof word, " %s ", wanted[i]);
        if (strstr(flags, word)) snprintf(has + strlen(has), sizeof has - strlen(has), " %s", wanted[i]);
    }
    if (am_kernels_pick(d->settings->isa, &kernels, &err)) {
        am_doctor_say(d, AM_DOCTOR_BAD, "cpu", "leave --isa out: the best is chosen", "%s", err.message);
        return;
    }
    bool slow = strcmp(kernels->name, "scalar") == 0;
    am_doctor_say(d, slow ? AM_DOCTOR_WARN : AM_DOCTOR_OK, "cpu",
                  slow ? "a virtual machine should pass the host's processor on (-cpu host)" : "",
                  "kernel table %s; %ld processors, which have%s", kernels->name, sysconf(_SC_NPROCESSORS_ONLN),
                  *has ? has : " none of the instructions we know");
}

void am_doctor_clock(am_doctor *d) {
    char path[128], governor[32] = "";
    double throttled = 0, worst = 1;
    for (int i = 0; i < 1024; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d", i);
        if (access(path, F_OK) != 0) break;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/thermal_throttle/core_throttle_count", i);
        double n = am_number_in_file(path, "");
        if (n > 0) throttled += n;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_max_freq", i);
        double now = am_number_in_file(path, "");
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/cpuinfo_max_freq", i);
        double most = am_number_in_file(path, "");
        if (now > 0 && most > 0 && now / most < worst) worst = now / most;
    }
    FILE *f = fopen("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "re");
    if (f && !fgets(governor, sizeof governor, f)) governor[0] = 0;
    if (f) fclose(f);
    governor[strcspn(governor, "\n")] = 0;
    am_cgroup group;
    am_cgroup_of(d->server, &group);
    double waits = am_cgroup_number(group.cpu, "cpu.stat", "cpu.stat", "nr_throttled "),
           quota = am_cgroup_cpu_limit(&group);
    if (throttled > 0)
        am_doctor_say(d, AM_DOCTOR_WARN, "clock", "better cooling",
                      "the processor was slowed down for heat %.0f times since boot", throttled);
    if (worst < 0.9)
        am_doctor_say(d, AM_DOCTOR_WARN, "clock", "cpupower frequency-set -u, or the power profile",
                      "the clock is limited to %.0f %% of what the processor can do", worst * 100);
    if (strcmp(governor, "powersave") == 0)
        am_doctor_say(d, AM_DOCTOR_NOTE, "clock", "cpupower frequency-set -g performance",
                      "the governor is powersave (with intel_pstate that is harmless)");
    if (quota > 0)
        am_doctor_say(d, waits > 0 ? AM_DOCTOR_WARN : AM_DOCTOR_NOTE, "clock",
                      waits > 0 ? "raise the quota, or set --threads below it" : "",
                      "%s cgroup has a quota of %.1f processors' time and was held up %.0f times", whose(d), quota, waits > 0 ? waits : 0);
    if (throttled <= 0 && worst >= 0.9 && quota <= 0)
        am_doctor_say(d, AM_DOCTOR_OK, "clock", "", "nothing slows the processor down, as far as can be seen");
}
