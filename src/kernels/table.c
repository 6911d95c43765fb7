/* Owns the list of tables: which of the compiled ones this machine can run, and the choice among them. A table is offered only when
 * the processor has its instructions and the operating system saves their registers (XCR0), since the first without the second is
 * a crash in a virtual machine. */
#include "kernels/tables.h"

#include <pthread.h>
#include <stdio.h>

static const am_kernels *const compiled[] = {
#if defined(__x86_64__)
    &am_kernels_amx, &am_kernels_avx512bf16, &am_kernels_avx512vnni, &am_kernels_avx512, &am_kernels_avx2,
#elif defined(__aarch64__)
    &am_kernels_neoni8mm, &am_kernels_neondot, &am_kernels_neon,
#endif
    &am_kernels_scalar,
};
enum { N_COMPILED = sizeof compiled / sizeof compiled[0] };

static const am_kernels *usable[N_COMPILED + 1]; /* filled once, under usable_once */
static pthread_once_t usable_once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)
#include <cpuid.h>

bool am_cpu_saves(uint64_t states) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (((uint64_t)high << 32 | low) & states) == states;
}

/* All bits of leaf 1 ECX and leaf 7 EBX present, and all register states of XCR0 enabled. */
static bool cpu_has(uint32_t leaf1_ecx, uint32_t leaf7_ebx, uint64_t states) {
    uint32_t a, b, c, d;
    leaf1_ecx |= bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & leaf1_ecx) != leaf1_ecx) return false;
    if (!am_cpu_saves(states)) return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & leaf7_ebx) == leaf7_ebx;
}

bool am_cpu_has_avx2(void) { return cpu_has(0, bit_AVX2, 0x6 /* xmm, ymm */); }

bool am_cpu_has_avx512(void) {
    return cpu_has(0, bit_AVX2 | bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL, 0xe6 /* and opmask, zmm */);
}

bool am_cpu_has_avx512vnni(void) {
    uint32_t a, b, c, d;
    return am_cpu_has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && c & bit_AVX512VNNI;
}

bool am_cpu_has_avx512bf16(void) {
    uint32_t a, b, c, d;
    return am_cpu_has_avx512vnni() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & bit_AVX512BF16;
}
#endif

static void usable_fill(void) {
    size_t n = 0;
    for (size_t i = 0; i < N_COMPILED; i++)
        if (compiled[i]->supported()) usable[n++] = compiled[i];
}

const am_kernels *const *am_kernels_list(void) {
    pthread_once(&usable_once, usable_fill);
    return usable;
}

am_status am_kernels_pick(const char *name, const am_kernels **out, am_error *err) {
    const am_kernels *const *list = am_kernels_list();
    char names[128];
    size_t n = 0;
    for (const am_kernels *const *k = list; *k; k++) {
        if (!name || !*name || strcmp((*k)->name, name) == 0) {
            *out = *k;
            return AM_OK;
        }
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", (*k)->name);
    }
    return am_fail(err, AM_EUNSUPPORTED, "no kernel table '%s' on this machine; it has: %s", name, names);
}
