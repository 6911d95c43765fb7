/* Owns the account of resident memory: files by /proc/self/smaps, stacks and zero-initialised data by asking the system
 * page by page, the heap by asking the allocator. The parts come from different witnesses, so their sum can be held
 * against the RSS. */
#include "base/footprint.h"

#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_STACKS = 512, PAGES_AT_ONCE = 4096, CLAIMED = -1 };

/* A place is claimed, written, and only then a thread's. Whoever reads may meet a new owner's p with the old one's n: mincore refuses what is not mapped. */
static struct {
    atomic_int thread; /* 0: free; or CLAIMED */
    _Atomic(char *) p;
    atomic_size_t n;
} stacks[MAX_STACKS];

static bool lives(int thread) { return syscall(SYS_tgkill, getpid(), thread, 0) == 0; }

void am_footprint_add_stack(void) {
    pthread_attr_t attr;
    void *p;
    size_t n;
    int self = (int)syscall(SYS_gettid);
    if (self == getpid() || pthread_getattr_np(pthread_self(), &attr))
        return; /* the first thread's has a name in smaps */
    if (pthread_attr_getstack(&attr, &p, &n) == 0) {
        for (size_t i = 0; i < MAX_STACKS; i++) {
            int was = atomic_load(&stacks[i].thread);
            if (was == CLAIMED || (was && was != self && lives(was)) || !atomic_compare_exchange_strong(&stacks[i].thread, &was, CLAIMED)) continue;
            atomic_store(&stacks[i].p, p);
            atomic_store(&stacks[i].n, n);
            atomic_store(&stacks[i].thread, self);
            break;
        }
    }
    pthread_attr_destroy(&attr);
}

uint64_t am_footprint_resident(const void *p, size_t n) {
    unsigned char in_core[PAGES_AT_ONCE];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = 0, before = (uintptr_t)p % page;
    for (size_t at = 0; n && at < n + before; at += PAGES_AT_ONCE * page) {
        size_t part = n + before - at < PAGES_AT_ONCE * page ? n + before - at : PAGES_AT_ONCE * page;
        if (mincore((char *)p - before + at, part, in_core) != 0) break; /* unmapped meanwhile */
        for (size_t i = 0; i < (part + page - 1) / page; i++) pages += in_core[i] & 1;
    }
    return (uint64_t)pages * page < n ? (uint64_t)pages * page : n;
}

/* The program comes first: what its data segment has beyond the file. */
static int measure_data(struct dl_phdr_info *info, size_t size, void *arg) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    (void)size;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        if (h->p_type != PT_LOAD || h->p_memsz <= h->p_filesz) continue;
        uintptr_t from = (info->dlpi_addr + h->p_vaddr + h->p_filesz + page - 1) / page * page,
                  to = info->dlpi_addr + h->p_vaddr + h->p_memsz;
        if (to > from) *(uint64_t *)arg += am_footprint_resident((void *)from, to - from);
    }
    return 0;
}

static void read_smaps(am_footprint *out) {
    char line[4400], exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = 0;
    uint64_t *into = NULL;
    FILE *f = fopen("/proc/self/smaps", "re");
    while (f && fgets(line, sizeof line, f)) {
        unsigned long inode;
        int path = 0;
        if (sscanf(line, "%*x-%*x %*s %*x %*x:%*x %lu %n", &inode, &path) == 1 && path) {
            line[strcspn(line, "\n")] = 0;
            const char *name = line + path;
            into = strcmp(name, "[stack]") == 0 ? &out->stacks
                   : !inode                     ? NULL
                   : strcmp(name, exe) == 0     ? &out->program
                   : strstr(name, ".so")        ? &out->libraries
                                                : &out->mapped;
        } else if (into && strncmp(line, "Rss:", 4) == 0) {
            *into += strtoull(line + 4, NULL, 10) * 1024;
        }
    }
    if (f) fclose(f);
}

static void read_status(am_footprint *out) {
    char line[256];
    const struct {
        const char *key;
        uint64_t *to;
    } keys[] = {{"VmRSS:", &out->rss},
                {"VmHWM:", &out->peak},
                {"RssAnon:", &out->anon},
                {"VmSwap:", &out->swap},
                {"VmLck:", &out->locked}};
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
            if (strncmp(line, keys[i].key, strlen(keys[i].key)) == 0)
                *keys[i].to = strtoull(line + strlen(keys[i].key), NULL, 10) * 1024;
    if (f) fclose(f);
}

uint64_t am_footprint_rss(void) {
    am_footprint f = {0};
    read_status(&f);
    return f.rss;
}

void am_footprint_read(am_footprint *out) {
    *out = (am_footprint){0};
    read_smaps(out);
    dl_iterate_phdr(measure_data, &out->data);
    for (size_t i = 0; i < MAX_STACKS; i++) {
        int thread = atomic_load(&stacks[i].thread);
        if (thread > 0 && lives(thread)) out->stacks += am_footprint_resident(atomic_load(&stacks[i].p), atomic_load(&stacks[i].n));
    }
    struct mallinfo2 heap = mallinfo2();
    out->heap_used = heap.uordblks + heap.hblkhd;
    out->heap_free = heap.fordblks;
    read_status(out);
}
