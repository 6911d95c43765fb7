/* Owns the loop of a transfer: connections take the next chunk of the first file that has one; what fails is tried again after a while, from the byte
 * where it stopped. A file's tries are counted from the last byte that came, so a bad line only takes longer.
 *
 *     chunk free --start--> running --end--> full | short or failed: waits, then free again
 *                              '--redirect--> running
 *     file: the answer is another content's (ETag), or ranges are ignored --> all its connections stop, it starts over */
#include "pull/transfer.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAVE_MS = 1000, POLL_MS = 100, MAX_RESTARTS = 3, HASH_BYTES = 8 << 20 };

typedef struct file {
    am_part *part;
    char *sum;
    unsigned n_failed;      /* since the last byte came */
    unsigned n_restarts;
    uint64_t not_before_ns;
    bool restart, restart_single; /* what a connection found out: to be done when none runs */
    char url[AM_URL_MAX];   /* where the last redirect led; empty: file->url */
    am_error last;
} file;

typedef struct line {
    am_call call;
    file *file; /* NULL: idle */
    size_t chunk;
    uint64_t n_came;
    bool head_ok;
} line;

typedef struct transfer {
    const am_transfer_options *o;
    const am_curl *curl;
    CURLM *multi;
    file *files;
    size_t n_files;
    line *lines;
    size_t n_lines;
    uint64_t saved_ns;
    am_error failed; /* ends everything */
} transfer;

static bool stop_line(line *l, am_status status, const char *why) {
    am_fail(&l->call.reason, status, "%s: %s", l->file->part->file->name, why);
    return false;
}

static bool start_over(line *l, bool single, const char *why) {
    l->file->restart = true;
    l->file->restart_single = l->file->restart_single || single;
    return stop_line(l, AM_AGAIN, why);
}

static bool etag_is_strong(const char *etag) { return etag[0] && strncmp(etag, "W/", 2) != 0; }

/* What the head of an answer must say before a byte of it is taken. */
static bool check_head(line *l) {
    am_part *part = l->file->part;
    const am_answer *a = &l->call.answer;
    uint64_t from = l->call.from, to = l->call.to;
    unsigned long long first, last, total;
    if (etag_is_strong(a->etag) && etag_is_strong(part->etag) && strcmp(a->etag, part->etag) != 0) return start_over(l, false, "it changed on the server meanwhile");
    if (etag_is_strong(a->etag)) snprintf(part->etag, sizeof part->etag, "%s", a->etag);
    if (a->status == 200 && to) return start_over(l, true, "the server sends no ranges");
    if (a->status == 206 && !to) return stop_line(l, AM_EFORMAT, "the server sends a part where all was asked for");
    if (a->status == 206) {
        int n = sscanf(a->range, "bytes %llu-%llu/%llu", &first, &last, &total);
        if (n < 2 || first != from || last + 1 != to) return stop_line(l, AM_EFORMAT, "the server sends another range than was asked for");
        if (n == 3 && total != part->size) return start_over(l, false, "its length on the server is another one");
    }
    uint64_t want = to ? to - from : part->size;
    if (want == AM_SIZE_UNKNOWN || a->length == AM_SIZE_UNKNOWN || a->length == want) return true;
    if (!to) {
        char why[160];
        snprintf(why, sizeof why, "the server has %llu bytes of it, not %llu", (unsigned long long)a->length, (unsigned long long)want);
        return stop_line(l, AM_ECORRUPT, why);
    }
    return stop_line(l, AM_AGAIN, "the server means to send less than it was asked for");
}

static bool on_bytes(void *arg, const char *p, size_t n) {
    line *l = arg;
    if (!p || !l->head_ok) l->head_ok = check_head(l);
    if (!l->head_ok || !p) return l->head_ok;
    if (am_part_write(l->file->part, l->chunk, p, n, &l->call.reason)) return false;
    l->n_came += n;
    if (!l->file->part->single) l->file->n_failed = 0;
    return true;
}

static void fail(transfer *t, const am_error *why) {
    if (!t->failed.code) t->failed = *why;
}

static void line_begin(transfer *t, line *l) {
    l->head_ok = false;
    if (am_call_begin(&l->call)) fail(t, &l->call.reason);
    else if (t->curl->multi_add_handle(t->multi, l->call.easy)) am_fail(&t->failed, AM_ENOMEM, "no memory for a request");
}

/* The whole file in one request needs no range, and no server that knows what that is. */
static void line_start(transfer *t, line *l, file *f, size_t chunk) {
    am_part *part = f->part;
    if (part->single && part->chunks[chunk].filled && am_part_restart(part, true, &t->failed)) return;
    uint64_t from = am_part_chunk_from(part, chunk), to = am_part_chunk_to(part, chunk);
    bool all = part->n_chunks == 1 && from == 0;
    l->file = f;
    l->chunk = chunk;
    l->n_came = 0;
    part->chunks[chunk].busy = true;
    if (am_call_set(&l->call, f->url[0] ? f->url : part->file->url, all ? 0 : from, all ? 0 : to)) am_fail(&t->failed, AM_ELIMIT, "%s: its address is too long", part->file->name);
    else line_begin(t, l);
}

static void line_end(line *l) {
    l->file->part->chunks[l->chunk].busy = false;
    l->file = NULL;
}

static void try_later(transfer *t, line *l) {
    file *f = l->file;
    f->last = l->call.reason;
    f->url[0] = 0; /* a signed address may have run out */
    if (f->restart || am_now_ns() < f->not_before_ns) return; /* several connections that fail at once have failed once */
    if (f->n_failed >= t->o->n_retries) {
        am_error why = f->last;
        if (why.code == AM_AGAIN) why.code = AM_EIO;
        char text[400];
        snprintf(text, sizeof text, "%.390s", why.message);
        am_fail(&why, why.code, "%s: given up after %u tries: %s", f->part->file->name, f->n_failed + 1, text);
        fail(t, &why);
        return;
    }
    f->n_failed++;
    f->not_before_ns = am_now_ns() + am_call_backoff(f->n_failed, l->call.wait_ms) * 1000000u;
}

static void chunk_came(transfer *t, line *l) {
    file *f = l->file;
    am_part *part = f->part;
    if (l->call.n_redirects) memcpy(f->url, l->call.url, strlen(l->call.url) + 1);
    bool unknown = part->size == AM_SIZE_UNKNOWN;
    bool full = unknown || am_part_chunk_from(part, l->chunk) == am_part_chunk_to(part, l->chunk);
    if (unknown) part->size = part->chunks[0].filled; /* an end without a length is the end */
    if (full) return;
    am_fail(&l->call.reason, AM_AGAIN, "the server sent less than it said");
    try_later(t, l);
}

static void line_over(transfer *t, line *l, CURLcode code) {
    t->curl->multi_remove_handle(t->multi, l->call.easy);
    switch (am_call_outcome(&l->call, code)) {
    case AM_CALL_AGAIN: line_begin(t, l); return;
    case AM_CALL_DONE: chunk_came(t, l); break;
    case AM_CALL_LATER: try_later(t, l); break;
    case AM_CALL_FAILED: fail(t, &l->call.reason); break;
    }
    line_end(l);
}

static void file_restart(transfer *t, file *f) {
    for (size_t i = 0; i < t->n_lines; i++) {
        if (t->lines[i].file != f) continue;
        t->curl->multi_remove_handle(t->multi, t->lines[i].call.easy);
        line_end(&t->lines[i]);
    }
    bool single = f->restart_single && !f->part->single; /* that is only learned once, and is nobody's fault */
    if (!single && ++f->n_restarts > MAX_RESTARTS) {
        am_error why;
        am_fail(&why, AM_ECORRUPT, "%s: started over %d times, and still: %.300s", f->part->file->name, MAX_RESTARTS, f->last.message);
        fail(t, &why);
        return;
    }
    f->restart = f->restart_single = false;
    am_part_restart(f->part, single, &t->failed);
}

/* A part that an earlier pull left may be what is wrong: then it is fetched once more. */
static void file_finish(transfer *t, file *f) {
    bool resumed = f->part->n_resumed > 0 && f->n_restarts == 0;
    am_error why = {0};
    am_status status = am_part_finish(f->part, f->sum, &why);
    if (status == AM_ECORRUPT && resumed) {
        f->n_restarts++;
        status = am_part_reopen(f->part, &why);
    }
    if (status) fail(t, &why);
}

static void start_lines(transfer *t) {
    uint64_t now = am_now_ns();
    size_t at = 0, chunk;
    for (size_t i = 0; i < t->n_lines; i++) {
        if (t->lines[i].file) continue;
        for (; at < t->n_files && !t->failed.code; at++) {
            file *f = &t->files[at];
            if (f->restart || now < f->not_before_ns || !am_part_next(f->part, &chunk)) continue;
            line_start(t, &t->lines[i], f, chunk);
            break;
        }
    }
}

static bool hashing(const transfer *t) {
    for (size_t i = 0; i < t->n_files; i++)
        if (!t->files[i].part->whole && am_part_full(t->files[i].part)) return true;
    return false;
}

static bool all_whole(const transfer *t) {
    for (size_t i = 0; i < t->n_files; i++)
        if (!t->files[i].part->whole) return false;
    return true;
}

static void save(transfer *t, bool now) {
    if (!now && am_ms_since(t->saved_ns) < SAVE_MS) return;
    t->saved_ns = am_now_ns();
    for (size_t i = 0; i < t->n_files; i++) {
        am_error why = {0};
        if (am_part_save(t->files[i].part, &why)) fail(t, &why);
    }
}

static void look_after_files(transfer *t) {
    for (size_t i = 0; i < t->n_files && !t->failed.code; i++) {
        file *f = &t->files[i];
        if (f->part->whole) continue;
        if (f->restart) file_restart(t, f);
        else if (am_part_hash(f->part, HASH_BYTES, &t->failed)) return;
        else if (am_part_full(f->part) && f->part->n_hashed == f->part->size) file_finish(t, f);
    }
}

static void tell(const transfer *t) {
    am_pull_progress p = {.n_files = t->n_files};
    bool known = true;
    for (size_t i = 0; i < t->n_files; i++) {
        const am_part *part = t->files[i].part;
        p.done += am_part_done(part);
        p.total += part->size;
        p.n_whole += part->whole;
        known = known && part->size != AM_SIZE_UNKNOWN;
        if (!part->whole && !p.file) p.file = part->file->name;
    }
    if (!known) p.total = 0;
    if (!p.file) p.file = t->files[t->n_files - 1].part->file->name;
    if (t->o->progress) t->o->progress(t->o->arg, &p);
}

static void run(transfer *t) {
    const am_site *site = t->o->site;
    while (!t->failed.code && !all_whole(t)) {
        int n_running, n_left;
        start_lines(t);
        if (t->curl->multi_perform(t->multi, &n_running)) am_fail(&t->failed, AM_EIO, "libcurl stopped working");
        for (CURLMsg *m; (m = t->curl->multi_info_read(t->multi, &n_left));) {
            line *l = NULL;
            for (size_t i = 0; i < t->n_lines; i++)
                if (t->lines[i].call.easy == m->easy_handle) l = &t->lines[i];
            line_over(t, l, m->data.result);
        }
        look_after_files(t);
        save(t, false);
        tell(t);
        if (site->cancel && *site->cancel) am_fail(&t->failed, AM_ECANCELED, "interrupted");
        if (!t->failed.code && !all_whole(t)) t->curl->multi_poll(t->multi, NULL, 0, hashing(t) ? 0 : POLL_MS, NULL);
    }
}

static am_status set_up(transfer *t, am_part *parts, char (*sums)[65], am_error *err) {
    t->multi = t->curl->multi_init();
    t->files = am_calloc(t->n_files, sizeof *t->files);
    t->lines = am_calloc(t->n_lines, sizeof *t->lines);
    if (!t->multi || !t->files || !t->lines) return am_fail(err, AM_ENOMEM, "no memory to transfer files");
    for (size_t i = 0; i < t->n_files; i++) {
        t->files[i].part = &parts[i];
        t->files[i].sum = sums[i];
    }
    for (size_t i = 0; i < t->n_lines; i++) {
        line *l = &t->lines[i];
        if (am_call_init(&l->call, t->o->site, err)) return err->code;
        l->call.sink = on_bytes;
        l->call.arg = l;
    }
    return AM_OK;
}

am_status am_transfer_run(const am_transfer_options *options, am_part *parts, size_t n, char (*sums)[65], am_error *err) {
    transfer t = {.o = options, .curl = options->site->curl, .n_files = n, .n_lines = options->n_connections ? options->n_connections : 1};
    am_status status = set_up(&t, parts, sums, err);
    t.saved_ns = am_now_ns();
    if (!status) {
        run(&t);
        for (size_t i = 0; i < t.n_lines; i++)
            if (t.lines[i].file) t.curl->multi_remove_handle(t.multi, t.lines[i].call.easy);
        save(&t, true);
        status = t.failed.code;
        if (status && err) *err = t.failed;
    }
    for (size_t i = 0; t.lines && i < t.n_lines; i++)
        if (t.lines[i].call.site) am_call_free(&t.lines[i].call);
    if (t.multi) t.curl->multi_cleanup(t.multi);
    free(t.lines);
    free(t.files);
    return status;
}
