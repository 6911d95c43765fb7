/* What the machine, a container and affinity leave: control groups, processors, where workers stay. The layouts are the kernel's (Documentation/admin-guide/cgroup-v1
 * and cgroup-v2.rst, ABI/stable/sysfs-devices-system-cpu). */
#include "base/cgroup.h"
#include "base/cpus.h"
#include "base/workers.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char top[64];

static int make_top(void **state) {
    (void)state;
    strcpy(top, "/tmp/am_machine_XXXXXX");
    return mkdtemp(top) ? 0 : -1;
}

static int remove_top(void **state) {
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", top);
    return system(command);
}

static void put(const char *name, const char *text) {
    char command[256], path[256];
    snprintf(command, sizeof command, "mkdir -p $(dirname %s/%s)", top, name);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/%s", top, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static am_cgroup group_of(const char *list, const char *mount) {
    am_cgroup group;
    char list_path[128], mount_path[128];
    put("list", list);
    snprintf(list_path, sizeof list_path, "%s/list", top);
    snprintf(mount_path, sizeof mount_path, "%s/%s", top, mount);
    am_cgroup_find(list_path, mount_path, &group);
    return group;
}

static void a_parents_limit_counts_in_version_2(void **state) {
    (void)state;
    put("v2/a.slice/memory.max", "1073741824\n");
    put("v2/a.slice/cpu.max", "150000 100000\n");
    put("v2/a.slice/b.service/memory.max", "max\n");
    put("v2/a.slice/b.service/cpu.max", "max 100000\n");
    am_cgroup group = group_of("0::/a.slice/b.service\n", "v2");
    assert_int_equal(am_cgroup_memory_limit(&group), 1073741824);
    assert_true(am_cgroup_cpu_limit(&group) == 1.5);
    put("v2/a.slice/b.service/memory.max", "4096\n");
    put("v2/a.slice/b.service/cpu.max", "25000 50000\n");
    assert_int_equal(am_cgroup_memory_limit(&group), 4096);
    assert_true(am_cgroup_cpu_limit(&group) == 0.5);
}

static void a_namespace_shows_its_group_as_the_root(void **state) {
    (void)state;
    put("ns/memory.max", "1000\n");
    put("ns/cpu.max", "200000 100000\n");
    for (int i = 0; i < 2; i++) {
        am_cgroup group = group_of(i ? "0::/docker/0123\n" : "0::/\n", "ns"); /* a path of outside is not there */
        assert_int_equal(am_cgroup_memory_limit(&group), 1000);
        assert_true(am_cgroup_cpu_limit(&group) == 2);
    }
}

static void version_1_has_a_folder_a_controller(void **state) {
    (void)state;
    put("v1/memory/box/memory.limit_in_bytes", "2048\n");
    put("v1/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("v1/cpu,cpuacct/none", "");
    put("v1/cpu/box/cpu.cfs_quota_us", "300000\n");
    put("v1/cpu/box/cpu.cfs_period_us", "100000\n");
    am_cgroup group = group_of("3:cpuset:/other\n2:cpu,cpuacct:/box\n1:memory:/box\n0::/\n", "v1");
    assert_int_equal(am_cgroup_memory_limit(&group), 2048);
    assert_true(am_cgroup_cpu_limit(&group) == 3);
    group = group_of("2:cpu:/\n1:memory:/\n", "v1");
    assert_int_equal(am_cgroup_memory_limit(&group), 0); /* no limit */
    assert_true(am_cgroup_cpu_limit(&group) == 0);
}

static void where_there_are_no_groups_nothing_is_limited(void **state) {
    (void)state;
    am_cgroup group = group_of("", "nowhere");
    assert_int_equal(am_cgroup_memory_limit(&group), 0);
    assert_true(am_cgroup_cpu_limit(&group) == 0);
    assert_true(am_cgroup_number(group.memory, "memory.max", "memory.limit_in_bytes", "") < 0);
}

static void lists_of_processors_are_read(void **state) {
    (void)state;
    am_cpus allowed = {.n = 6, .id = {0, 1, 2, 3, 8, 1023}}, got;
    am_error err;
    assert_int_equal(am_cpus_parse(AM_STR("8,0-2,1"), &allowed, &got, &err), AM_OK);
    const uint16_t expected[] = {0, 1, 2, 8};
    assert_int_equal(got.n, 4);
    assert_memory_equal(got.id, expected, sizeof expected);
    assert_int_equal(am_cpus_parse(AM_STR("1023"), &allowed, &got, &err), AM_OK);
    static const char *const wrong[] = {"", ",", "0,", "-1", "1-", "3-1", "0 1", "0-3,x", "all", "0x1", "1,,2"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(am_cpus_parse(am_str_of(wrong[i]), &allowed, &got, &err), AM_EINVAL);
        assert_non_null(strstr(err.message, "no list of processors"));
    }
    static const char *const absent[] = {"4", "0-4", "0-99999999999999999999", "1024"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        assert_int_equal(am_cpus_parse(am_str_of(absent[i]), &allowed, &got, &err), AM_EINVAL);
        assert_non_null(strstr(err.message, "none that this process may use"));
    }
}

static void threads_of_one_core_count_once(void **state) {
    (void)state;
    char sys[128];
    am_cpus all = {.n = 5, .id = {0, 1, 2, 3, 4}}, cores;
    snprintf(sys, sizeof sys, "%s/cpu", top);
    put("cpu/cpu0/topology/thread_siblings_list", "0,2\n");
    put("cpu/cpu1/topology/thread_siblings_list", "1,3\n");
    put("cpu/cpu2/topology/thread_siblings_list", "0,2\n");
    put("cpu/cpu3/topology/thread_siblings_list", "1,3\n"); /* nothing is said of 4 */
    am_cpus_cores(&all, sys, &cores);
    const uint16_t expected[] = {0, 1, 4};
    assert_int_equal(cores.n, 3);
    assert_memory_equal(cores.id, expected, sizeof expected);
    am_cpus half = {.n = 2, .id = {2, 3}}; /* their siblings are others' */
    am_cpus_cores(&half, sys, &cores);
    assert_int_equal(cores.n, 2);
}

static void no_more_threads_than_affinity_allows(void **state) {
    (void)state;
    cpu_set_t before, one;
    am_cpus allowed;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    am_cpus_allowed(&allowed);
    assert_int_equal(allowed.n, CPU_COUNT(&before));
    assert_in_range(am_cpus_threads(), 1, allowed.n);
    CPU_ZERO(&one);
    CPU_SET(allowed.id[allowed.n - 1], &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(am_cpus_threads(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void note_processor(void *arg, size_t task, size_t worker) {
    (void)task;
    for (volatile int i = 0; i < 100000; i++) continue; /* so that every worker gets some */
    ((int *)arg)[worker] = sched_getcpu();
}

static void workers_stay_where_they_are_put(void **state) {
    (void)state;
    cpu_set_t before;
    am_cpus allowed;
    am_workers *w;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    am_cpus_allowed(&allowed);
    uint32_t n = allowed.n < 4 ? allowed.n : 4;
    assert_int_equal(am_workers_create(n, &w, NULL), AM_OK);
    am_cpus reversed = {.n = n};
    for (uint32_t i = 0; i < n; i++) reversed.id[i] = allowed.id[n - 1 - i];
    assert_int_equal(am_workers_pin(w, &reversed, NULL), AM_OK);
    am_workers_pin_self(w);
    for (int round = 0; round < 50; round++) {
        int seen[4] = {-1, -1, -1, -1};
        am_workers_run(w, 64, note_processor, seen);
        for (uint32_t i = 0; i < n; i++) assert_true(seen[i] == -1 || seen[i] == reversed.id[i]);
    }
    assert_int_equal(am_workers_runs(w), n > 1 ? 50 : 0);
    am_workers_free(w);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_parents_limit_counts_in_version_2),
        cmocka_unit_test(a_namespace_shows_its_group_as_the_root),
        cmocka_unit_test(version_1_has_a_folder_a_controller),
        cmocka_unit_test(where_there_are_no_groups_nothing_is_limited),
        cmocka_unit_test(lists_of_processors_are_read),
        cmocka_unit_test(threads_of_one_core_count_once),
        cmocka_unit_test(no_more_threads_than_affinity_allows),
        cmocka_unit_test(workers_stay_where_they_are_put),
    };
    return cmocka_run_group_tests(tests, make_top, remove_top);
}
