/* Tile instructions of AMX, and what a process needs before it may use them. Written as assembly because the compilers' intrinsics do not say that a
 * tile is loaded from and stored to memory (gcc 12): a store of the codes to be multiplied may then be moved behind their load. A tile's number is
 * part of the instruction, hence macros.
 *
 * Reference: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1 chapter 18, volume 2 (LDTILECFG, TILELOADD, TDPBSUD ...);
 * Linux, Documentation/arch/x86/xstate.rst (permission for tile data). */
#ifndef AM_KERNELS_AMX_TILES_H
#define AM_KERNELS_AMX_TILES_H

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What LDTILECFG reads. Palette 1: eight tiles of at most 16 rows of 64 bytes. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static inline void tiles_configure(const tile_config *config) { __asm__ volatile("ldtilecfg %0" ::"m"(*config) : "memory"); }
static inline void tiles_release(void) { __asm__ volatile("tilerelease" ::: "memory"); }

#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t ::: "memory")
#define TILE_LOAD(t, p, stride) __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(p), "r"((size_t)(stride)) : "memory")
#define TILE_STORE(t, p, stride) __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(p), "r"((size_t)(stride)) : "memory")
/* to += a by b: sums of four products of neighbouring bytes, a's signed, b's unsigned or signed. */
#define TILE_DOT_UNSIGNED(to, a, b) __asm__ volatile("tdpbsud %%tmm" #b ", %%tmm" #a ", %%tmm" #to ::: "memory")
#define TILE_DOT_SIGNED(to, a, b) __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #to ::: "memory")

/* to += a by b: sums of two products of neighbours of bf16. */
#define TILE_DOT_HALVES(to, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #to ::: "memory")

/* The processor has tiles and their products of bytes and of bf16, and the system lets this process use them: it gives no thread room for 8 KiB of tiles
 * unless asked. */
static inline bool tiles_usable(void) {
    enum { TILE_PRODUCTS = 1 << 22 /* bf16 */ | 1 << 24 | 1 << 25 /* int8 */, ARCH_REQ_XCOMP_PERM = 0x1023, XTILE_DATA = 18 };
    uint32_t a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & TILE_PRODUCTS) != TILE_PRODUCTS) return false;
    return am_cpu_saves(3ull << 17 /* tile configuration and data */) && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILE_DATA) == 0;
}

#endif
