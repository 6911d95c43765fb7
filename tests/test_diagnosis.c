/* What the tools of diagnosis stand on: the records of what is in hand, processes and ports, pages, and the reading of
 * a data folder. */
#include "base/footprint.h"
#include "base/fs.h"
#include "base/inhand.h"
#include "base/procs.h"
#include "cache/verify.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static void records_say_what_is_in_hand(void **state) {
    (void)state;
    am_inhand *a = am_inhand_take("model-a", "avx2"), *b = am_inhand_take("model-b", "scalar");
    assert_non_null(a);
    assert_ptr_not_equal(a, b);
    am_inhand_put(a, "req_1", "alice");
    am_inhand_put(a, "req_2", "bob");
    size_t n_found = 0;
    for (size_t i = 0; i < AM_INHAND_ENGINES; i++) {
        const am_inhand *hand = am_inhand_at(i);
        if (!hand) continue;
        n_found++;
        if (strcmp(hand->model, "model-a") != 0) continue;
        assert_int_equal(atomic_load(&hand->n), 2);
        assert_string_equal(atomic_load(&hand->agent[1]), "bob");
    }
    assert_int_equal(n_found, 2);
    for (int i = 0; i < 3 * AM_INHAND_REQUESTS; i++)
        am_inhand_put(a, "many", ""); /* more than there is room for are only counted */
    am_inhand_done(a);
    assert_int_equal(atomic_load(&a->n), 0);
    am_inhand_give(a);
    am_inhand_give(b);
    am_inhand *all[AM_INHAND_ENGINES + 1];
    for (size_t i = 0; i <= AM_INHAND_ENGINES; i++) all[i] = am_inhand_take("m", "k");
    assert_null(all[AM_INHAND_ENGINES]);
    am_inhand_put(NULL, "req", "");
    am_inhand_done(NULL);
    for (size_t i = 0; i <= AM_INHAND_ENGINES; i++) am_inhand_give(all[i]);
    const char *request, *agent;
    am_inhand_thread("req_9", "eve");
    am_inhand_own(&request, &agent);
    assert_string_equal(request, "req_9");
    assert_string_equal(agent, "eve");
    am_inhand_thread(NULL, NULL);
}

static void addresses_lead_to_mapped_files(void **state) {
    (void)state;
    static char all[10100], *const bytes = all + 100;
    size_t offset;
    am_inhand_map(bytes, 10000, "/models/x/model.safetensors");
    assert_string_equal(am_inhand_file(bytes + 9000, &offset), "/models/x/model.safetensors");
    assert_int_equal(offset, 9000);
    assert_null(am_inhand_file(bytes - 1, &offset));
    am_inhand_unmap(bytes);
    assert_null(am_inhand_file(bytes + 9000, &offset));
}

static void ports_lead_to_processes(void **state) {
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    am_proc proc;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, n) || listen(fd, 1) ||
                         getsockname(fd, (struct sockaddr *)&address, &n),
                     0);
    assert_int_equal(am_proc_of_port(ntohs(address.sin_port), &proc), AM_OK);
    assert_int_equal(proc.pid, getpid());
    assert_true(am_proc_listens(getpid()));
    close(fd);
    assert_int_equal(am_proc_of_port(ntohs(address.sin_port), &proc), AM_ENOTFOUND);
    assert_int_equal(am_proc_read(getpid(), &proc), AM_OK);
    assert_int_equal(proc.parent, getppid());
    assert_true(proc.rss_bytes > 0 && proc.peak_bytes >= proc.rss_bytes && strstr(proc.command, "test_diagnosis"));
}

static void pages_are_counted_when_they_were_touched(void **state) {
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 1000 * page;
    char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    madvise(p, n, MADV_NOHUGEPAGE);
    assert_int_equal(am_footprint_resident(p, n), 0);
    for (size_t i = 0; i < 100; i++) p[7 * i * page] = 1;
    assert_int_equal(am_footprint_resident(p, n), 100 * page);
    munmap(p, n);
    assert_int_equal(am_footprint_resident(p, n), 0);
    am_footprint f;
    am_footprint_read(&f);
    assert_true(f.rss > 0 && f.peak >= f.rss && f.program > 0);
    if (!AM_SANITIZED) assert_true(f.heap_used > 0); /* a sanitizer has an allocator of its own */
}

typedef struct seen {
    am_finding_kind kind[16];
    size_t n;
} seen;

static void note(void *arg, const am_finding *finding) {
    seen *s = arg;
    if (s->n < 16) s->kind[s->n++] = finding->kind;
}

static void put_file(const char *dir, const char *name, const char *text) {
    am_str part = am_str_of(text);
    am_error err = {0};
    assert_int_equal(am_fs_write_atomic(dir, "t", name, &part, 1, false, &err), AM_OK);
}

static bool saw(const seen *s, am_finding_kind kind) {
    for (size_t i = 0; i < s->n; i++)
        if (s->kind[i] == kind) return true;
    return false;
}

static void a_folder_is_read_file_by_file(void **state) {
    (void)state;
    char dir[] = "/tmp/am-diagnosis-XXXXXX", block[96];
    assert_non_null(mkdtemp(dir));
    memset(block, 0, sizeof block);
    snprintf(block, sizeof block, "b-%064d.safetensors", 7);
    put_file(dir, "half.tmp.safetensors", "x");
    put_file(dir, "a~012345678901.safetensors", "no head");
    put_file(dir, block, "\x02\0\0\0\0\0\0\0{}");
    put_file(dir, "README", "hello");
    seen s = {.n = 0};
    am_verify_result r;
    am_error err = {0};
    am_verify_options o = {.dir = dir, .on_finding = note, .arg = &s};
    assert_int_equal(am_verify(&o, &r, &err), AM_OK);
    assert_int_equal(r.n_wrong, 3);
    assert_true(saw(&s, AM_FINDING_ORPHAN) && saw(&s, AM_FINDING_FORMAT) && saw(&s, AM_FINDING_STRANGER));
    o.repair = true;
    assert_int_equal(am_verify(&o, &r, &err), AM_OK);
    assert_int_equal(r.n_repaired, 3);
    o.repair = false;
    assert_int_equal(am_verify(&o, &r, &err), AM_OK);
    assert_int_equal(r.n_wrong, 0);
    assert_int_equal(r.n[AM_FINDING_REFUSED], 1);
    o.dir = "/tmp/am-diagnosis-not-there";
    assert_int_equal(am_verify(&o, &r, &err), AM_ENOTFOUND);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_say_what_is_in_hand),   cmocka_unit_test(addresses_lead_to_mapped_files),
        cmocka_unit_test(ports_lead_to_processes),       cmocka_unit_test(pages_are_counted_when_they_were_touched),
        cmocka_unit_test(a_folder_is_read_file_by_file),
    };
    return cmocka_run_group_tests_name("diagnosis", tests, NULL, NULL);
}
