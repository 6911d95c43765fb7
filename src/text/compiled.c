/* Owns the file of a compiled vocabulary, byte for byte (little endian, every table 8-byte aligned):
 *
 *      0  "AMVOCAB1"
 *      8  16 bytes  checksum (XXH3-128) of the tokenizer.json it was made of
 *     24  u64  n_words     32  u64  n_slots     40  u64  n_pair_slots     48  u64  n_bytes     56  u64  n_text     64  u64  n_pairs
 *     72  zeros
 *    112  16 bytes  checksum of bytes 0 .. 112 and of everything from 128 on
 *    128  {u32 offset, u32 length} [n_words]; flags u8 [n_words], padded to 8; {u32 tag, i32 id} [n_slots];
 *         {u64 left << 32 | right, u32 rank, i32 id} [n_pair_slots]; bytes [n_bytes], padded to 8; text [n_text]: for each part u64 length, bytes
 *
 * The tables are those of am_words and am_bpe as they lie in memory. The checksum finds damage; that no index leads outside is checked
 * besides, so that not even a file made with intent reads beyond a table. A change of layout or of the hash functions is a new magic. */
#include "text/compiled.h"

#include "base/fault.h"
#include "base/fs.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEADER = 128, SUMMED = 112, MAX_WORDS = 1 << 22, MAX_BYTES = 1 << 28, ROOM = 1024 /* words that may be added without moving the tables */ };
static const char magic[8] = "AMVOCAB1";

typedef struct header {
    char magic[8];
    am_sum key;
    uint64_t n_words, n_slots, n_pair_slots, n_bytes, n_text, n_pairs;
    uint64_t zero[5];
    am_sum sum;
} header;
_Static_assert(sizeof(header) == HEADER, "the header is as drawn above");
_Static_assert(sizeof(am_word_at) == 8 && sizeof(am_word_slot) == 8 && sizeof(am_pair) == 16, "tables are as drawn above");

static void file_name(am_sum key, char name[64]) {
    char hex[33];
    am_sum_hex(&key, hex);
    snprintf(name, 64, "%s.vocab", hex);
}

static size_t pad(size_t n) { return (8 - n % 8) % 8; }

/* ---- reading */

typedef struct reader {
    int fd;
    const char *path;
    off_t at;
    am_sum_state *sum;
} reader;

/* The next n bytes into a new allocation with room for more; *p is the caller's. */
static am_status table_read(reader *r, void *p, size_t n, size_t room, am_error *err) {
    char *table = am_fault_alloc() ? NULL : malloc(n + room + 8);
    if (!table) return am_fail(err, AM_ENOMEM, "no memory for the vocabulary");
    memcpy(p, &table, sizeof table);
    size_t whole = n + pad(n);
    am_status status = am_fs_read_at(r->fd, r->path, table, whole, r->at, err);
    r->at += (off_t)whole;
    if (!status) am_sum_add(r->sum, table, whole);
    return status;
}

static bool power_of_two(uint64_t n) { return n && (n & (n - 1)) == 0; }

static bool header_fits(const header *h, am_sum key, uint64_t file_bytes) {
    if (memcmp(h->magic, magic, sizeof magic) != 0 || memcmp(&h->key, &key, sizeof key) != 0) return false;
    if (h->n_words == 0 || h->n_words > MAX_WORDS || !power_of_two(h->n_slots) || h->n_slots > 4 * MAX_WORDS) return false;
    if (!power_of_two(h->n_pair_slots) || h->n_pair_slots > MAX_BYTES / 4 || h->n_bytes > MAX_BYTES || h->n_text > MAX_BYTES) return false;
    uint64_t body = h->n_words * 8 + h->n_words + pad(h->n_words) + h->n_slots * 8 + h->n_pair_slots * 16 + h->n_bytes + pad(h->n_bytes) + h->n_text + pad(h->n_text);
    return file_bytes == HEADER + body;
}

/* No index of the tables leads outside, and every search in them ends. */
static bool tables_hold(const am_compiled *c, uint64_t n_pairs) {
    const am_words *w = &c->words;
    size_t n_empty = 0, n_found = 0;
    for (size_t id = 0; id < w->n; id++) {
        if ((uint64_t)w->at[id].off + w->at[id].len > w->bytes.n || (w->flags[id] & ~(AM_WORD_PRESENT | AM_WORD_FINDABLE))) return false;
        if ((w->flags[id] & AM_WORD_FINDABLE) && w->at[id].len == 0) n_empty++;
    }
    for (size_t i = 0; i <= w->mask; i++) {
        if (w->slots[i].id >= (int32_t)w->n || w->slots[i].id < -1) return false;
        n_found += w->slots[i].id >= 0;
    }
    if (n_found > w->mask) return false;
    n_found = 0;
    for (size_t i = 0; i <= c->bpe.mask; i++) {
        const am_pair *pair = &c->bpe.pairs[i];
        if (pair->key == UINT64_MAX) continue;
        if (pair->id < 0 || (size_t)pair->id >= w->n || pair->key >> 32 >= w->n || (uint32_t)pair->key >= w->n) return false;
        n_found++;
    }
    return n_found == n_pairs && n_found <= c->bpe.mask && n_empty <= w->n;
}

static bool parts_read(am_compiled *c) {
    size_t at = 0;
    for (size_t i = 0; i < AM_HF_N_PARTS; i++) {
        uint64_t n;
        if (c->text.n - at < sizeof n) return false;
        memcpy(&n, c->text.p + at, sizeof n);
        at += sizeof n;
        if (n > c->text.n - at) return false;
        c->part[i] = (am_str){c->text.p + at, n};
        at += n;
    }
    return at == c->text.n;
}

static am_status tables_read(reader *r, const header *h, am_compiled *c, am_error *err) {
    am_words *w = &c->words;
    size_t n = h->n_words;
    am_buf_init(&w->bytes, (size_t)1 << 31);
    am_buf_init(&c->text, (size_t)1 << 31);
    am_status status = table_read(r, &w->at, n * sizeof *w->at, ROOM * sizeof *w->at, err);
    if (!status) status = table_read(r, &w->flags, n, ROOM, err);
    if (!status) status = table_read(r, &w->slots, h->n_slots * sizeof *w->slots, 0, err);
    if (!status) status = table_read(r, &c->bpe.pairs, h->n_pair_slots * sizeof *c->bpe.pairs, 0, err);
    if (!status) status = table_read(r, &w->bytes.p, h->n_bytes, ROOM * 32, err);
    if (!status) status = table_read(r, &c->text.p, h->n_text, 0, err);
    if (status) return status;
    w->n = n;
    w->cap = n + ROOM;
    w->mask = h->n_slots - 1;
    w->bytes.n = h->n_bytes;
    w->bytes.cap = h->n_bytes + ROOM * 32;
    c->bpe.mask = h->n_pair_slots - 1;
    c->bpe.n_pairs = h->n_pairs;
    c->text.n = h->n_text;
    c->text.cap = h->n_text + 8;
    for (size_t id = 0; id < n; id++)
        if (w->at[id].len > w->longest) w->longest = w->at[id].len;
    return AM_OK;
}

static am_status file_read(reader *r, am_sum key, am_compiled *out, am_error *err) {
    header h;
    struct stat st;
    if (fstat(r->fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < HEADER) return am_fail(err, AM_EFORMAT, "%s: not a compiled vocabulary", r->path);
    am_status status = am_fs_read_at(r->fd, r->path, &h, sizeof h, 0, err);
    if (status) return status;
    if (!header_fits(&h, key, (uint64_t)st.st_size)) return am_fail(err, AM_EFORMAT, "%s: not a compiled vocabulary of this layout", r->path);
    r->at = HEADER;
    am_sum_add(r->sum, &h, SUMMED);
    status = tables_read(r, &h, out, err);
    if (status) return status;
    am_sum sum = am_sum_end(r->sum);
    r->sum = NULL;
    if (memcmp(&sum, &h.sum, sizeof sum) != 0) return am_fail(err, AM_EFORMAT, "%s: damaged, its checksum differs", r->path);
    if (!tables_hold(out, h.n_pairs) || !parts_read(out)) return am_fail(err, AM_EFORMAT, "%s: its tables do not hold together", r->path);
    return AM_OK;
}

am_status am_compiled_read(const char *dir, am_sum key, am_compiled *out, am_error *err) {
    char name[64], path[4096];
    *out = (am_compiled){0};
    file_name(key, name);
    am_status status = am_fs_join(path, sizeof path, dir, name, err);
    if (status) return status;
    reader r = {.path = path, .fd = am_io->open(path, O_RDONLY, 0)};
    if (r.fd < 0) return am_fail(err, AM_ENOTFOUND, "%s: not there", path);
    r.sum = am_sum_begin();
    status = r.sum ? file_read(&r, key, out, err) : am_fail(err, AM_ENOMEM, "no memory for the vocabulary");
    am_io->close(r.fd);
    if (r.sum) am_sum_end(r.sum);
    if (status) am_compiled_free(out);
    return status;
}

void am_compiled_free(am_compiled *c) {
    am_words_free(&c->words);
    am_bpe_free(&c->bpe);
    am_buf_free(&c->text);
    *c = (am_compiled){0};
}

/* ---- writing */

am_status am_compiled_write(const char *dir, am_sum key, const am_words *words, const am_bpe *bpe, const am_str part[AM_HF_N_PARTS], am_error *err) {
    char name[64], tmp[64 + 24];
    static const char zeros[8];
    am_buf text;
    am_buf_init(&text, MAX_BYTES);
    am_status status = AM_OK;
    for (size_t i = 0; i < AM_HF_N_PARTS && !status; i++) {
        uint64_t n = part[i].n;
        status = am_buf_append(&text, &n, sizeof n);
        if (!status) status = am_buf_add(&text, part[i]);
    }
    header h = {.key = key, .n_words = words->n, .n_slots = words->mask + 1, .n_pair_slots = bpe->mask + 1, .n_bytes = words->bytes.n, .n_text = text.n, .n_pairs = bpe->n_pairs};
    memcpy(h.magic, magic, sizeof magic);
    const am_str parts[] = {
        {(const char *)&h, sizeof h}, {(const char *)words->at, words->n * sizeof *words->at}, {(const char *)words->flags, words->n},
        {zeros, pad(words->n)}, {(const char *)words->slots, h.n_slots * sizeof *words->slots}, {(const char *)bpe->pairs, h.n_pair_slots * sizeof *bpe->pairs},
        {words->bytes.p, words->bytes.n}, {zeros, pad(words->bytes.n)}, {text.p, text.n}, {zeros, pad(text.n)},
    };
    am_sum_state *sum = status ? NULL : am_sum_begin();
    if (!sum) status = am_fail(err, AM_ENOMEM, "no memory to write the vocabulary");
    if (!status) {
        am_sum_add(sum, &h, SUMMED);
        for (size_t i = 1; i < sizeof parts / sizeof *parts; i++) am_sum_add(sum, parts[i].p, parts[i].n);
        h.sum = am_sum_end(sum);
        file_name(key, name);
        snprintf(tmp, sizeof tmp, ".%s.%ld", name, (long)getpid());
        status = am_fs_mkdirs(dir, err);
    }
    if (!status) status = am_fs_write_atomic(dir, tmp, name, parts, sizeof parts / sizeof *parts, false, err);
    am_buf_free(&text);
    return status;
}
