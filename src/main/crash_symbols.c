/* Owns names of addresses: our own symbol table, read in place from the mapped executable (static functions are in it,
 * which backtrace_symbols would not show), and the places of the libraries as they were at start. Memory that may be
 * gone is read by way of a pipe: write says EFAULT where touching it would fault. */
#include "main/crash_out.h"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_MODULES = 64 };

static struct {
    const Elf64_Sym *symbols;
    size_t n_symbols;
    const char *names;
    size_t names_bytes;
    struct {
        uintptr_t from, to, base;
        char name[96];
    } modules[MAX_MODULES];
    size_t n_modules;
    int pipe[2];
} table = {.pipe = {-1, -1}};

static int note_module(struct dl_phdr_info *info, size_t size, void *arg) {
    (void)size, (void)arg;
    if (table.n_modules == MAX_MODULES) return 1;
    uintptr_t from = UINTPTR_MAX, to = 0;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
        uintptr_t begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr, end = begin + info->dlpi_phdr[i].p_memsz;
        if (begin < from) from = begin;
        if (end > to) to = end;
    }
    const char *name = info->dlpi_name, *slash = strrchr(name, '/');
    if (!*name)
        name = table.n_modules ? "vdso" : "agent_memory"; /* the program itself comes first */
    else if (slash)
        name = slash + 1;
    size_t n = strlen(name);
    if (n >= sizeof table.modules[0].name) n = sizeof table.modules[0].name - 1;
    table.modules[table.n_modules].from = from;
    table.modules[table.n_modules].to = to;
    table.modules[table.n_modules].base = info->dlpi_addr;
    memcpy(table.modules[table.n_modules].name, name, n);
    table.n_modules++;
    return 0;
}

/* A whole section of the file, or NULL where the file is not what it says. */
static const void *section(const uint8_t *file, size_t n, const Elf64_Shdr *header) {
    return header->sh_offset <= n && header->sh_size <= n - header->sh_offset ? file + header->sh_offset : NULL;
}

static void find_symbols(const uint8_t *file, size_t n) {
    const Elf64_Ehdr *elf = (const Elf64_Ehdr *)file;
    if (n < sizeof *elf || memcmp(elf->e_ident, ELFMAG, SELFMAG) != 0 || elf->e_ident[EI_CLASS] != ELFCLASS64) return;
    if (elf->e_shentsize != sizeof(Elf64_Shdr) || elf->e_shoff > n ||
        (n - elf->e_shoff) / sizeof(Elf64_Shdr) < elf->e_shnum)
        return;
    const Elf64_Shdr *headers = (const Elf64_Shdr *)(file + elf->e_shoff);
    for (unsigned wanted = SHT_SYMTAB; !table.symbols;
         wanted = SHT_DYNSYM) { /* a stripped file has the second one still */
        for (size_t i = 0; i < elf->e_shnum; i++) {
            if (headers[i].sh_type != wanted || headers[i].sh_link >= elf->e_shnum) continue;
            const Elf64_Shdr *names = &headers[headers[i].sh_link];
            table.symbols = section(file, n, &headers[i]);
            table.n_symbols = headers[i].sh_size / sizeof(Elf64_Sym);
            table.names = section(file, n, names);
            table.names_bytes = names->sh_size;
            if (!table.names || !table.names_bytes || table.names[table.names_bytes - 1]) table.symbols = NULL;
        }
        if (wanted == SHT_DYNSYM) break;
    }
}

void am_crash_symbols_setup(void) {
    if (pipe2(table.pipe, O_CLOEXEC | O_NONBLOCK) != 0) table.pipe[0] = table.pipe[1] = -1;
    dl_iterate_phdr(note_module, NULL);
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0) {
        void *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd,
                          0); /* for the life of the process; pages come when they are read */
        if (file != MAP_FAILED) find_symbols(file, (size_t)st.st_size);
    }
    if (fd >= 0) close(fd);
}

int am_crash_read(void *to, const void *from, size_t n) {
    if (table.pipe[1] < 0 || write(table.pipe[1], from, n) != (ssize_t)n) return -1;
    return read(table.pipe[0], to, n) == (ssize_t)n ? 0 : -1;
}

static const Elf64_Sym *find(uintptr_t offset) {
    const Elf64_Sym *best = NULL;
    for (size_t i = 0; table.symbols && i < table.n_symbols; i++) {
        const Elf64_Sym *s = &table.symbols[i];
        if (ELF64_ST_TYPE(s->st_info) != STT_FUNC || s->st_shndx == SHN_UNDEF || s->st_name >= table.names_bytes)
            continue;
        if (offset >= s->st_value && offset - s->st_value < s->st_size) best = s;
    }
    return best;
}

bool am_crash_is_code(uintptr_t address) {
    return table.n_modules && address > table.modules[0].from && address < table.modules[0].to &&
           find(address - table.modules[0].base - 1);
}

void am_crash_put_symbol(am_crash_out *out, uintptr_t address) {
    for (size_t i = 0; i < table.n_modules; i++) {
        if (address < table.modules[i].from || address >= table.modules[i].to) continue;
        uintptr_t offset = address - table.modules[i].base;
        const Elf64_Sym *symbol = i == 0 ? find(offset) : NULL;
        if (symbol) {
            am_crash_put(out, table.names + symbol->st_name);
            am_crash_put(out, "+");
            am_crash_put_hex(out, offset - symbol->st_value);
            am_crash_put(out, " (");
        }
        am_crash_put(out, table.modules[i].name);
        am_crash_put(out, "+");
        am_crash_put_hex(out, offset);
        if (symbol) am_crash_put(out, ")");
        return;
    }
    am_crash_put(out, "(in no program or library)");
}
