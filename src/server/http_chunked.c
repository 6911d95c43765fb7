/* Owns the decoding of chunked bodies: 1*8HEXDIG [extension] CRLF data CRLF ... 0 CRLF [trailers] CRLF.
 *
 * No sign, no blank before the size, at most eight digits, so that no other reader of the same bytes finds another length. Extensions
 * and trailers are checked, bounded and dropped. The limit on the body counts decoded bytes. */
#include "server/http_parse.h"

enum { MAX_EXTENSION = 256 };
enum { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_LF, ENDED };

static am_status size_byte(am_http_chunked *d, char c, am_http_refusal *refusal) {
    int digit = am_http_hex(c);
    if (digit >= 0) {
        if (++d->n_digits > 8) return am_http_refuse(refusal, 413, "a chunk size of more than eight digits");
        d->left = d->left << 4 | (unsigned)digit;
        return AM_AGAIN;
    }
    if (d->n_digits == 0) return am_http_refuse(refusal, 400, "a chunk without size");
    if (c == '\r') d->state = SIZE_LF;
    else if (c == ';') d->state = EXTENSION;
    else return am_http_refuse(refusal, 400, "malformed chunk size");
    return AM_AGAIN;
}

static am_status extension_byte(am_http_chunked *d, char c, am_http_refusal *refusal) {
    if (c == '\r') {
        d->state = SIZE_LF;
        return AM_AGAIN;
    }
    if (++d->n_extension > MAX_EXTENSION) return am_http_refuse(refusal, 400, "a chunk extension of more than 256 bytes");
    if (((unsigned char)c < ' ' && c != '\t') || c == 0x7f) return am_http_refuse(refusal, 400, "malformed chunk extension");
    return AM_AGAIN;
}

static void begin_line(am_http_chunked *d) {
    d->line_empty = true;
    d->line_has_colon = false;
}

static am_status trailer_byte(am_http_chunked *d, char c, am_http_refusal *refusal) {
    if (++d->n_trailer > AM_HTTP_MAX_TRAILER) return am_http_refuse(refusal, 431, "trailers of more than 4 KiB");
    if (c == '\r') {
        if (!d->line_empty && !d->line_has_colon) return am_http_refuse(refusal, 400, "a trailer line without colon");
        d->state = TRAILER_LF;
        return AM_AGAIN;
    }
    if (((unsigned char)c < ' ' && c != '\t') || c == 0x7f) return am_http_refuse(refusal, 400, "malformed trailer");
    if (d->line_empty && (c == ' ' || c == '\t' || c == ':')) return am_http_refuse(refusal, 400, "malformed trailer");
    if (!d->line_has_colon && (c == ' ' || c == '\t')) return am_http_refuse(refusal, 400, "malformed trailer");
    if (c == ':') d->line_has_colon = true;
    d->line_empty = false;
    return AM_AGAIN;
}

/* One byte that is not data. AM_OK when it was the body's last. */
static am_status control_byte(am_http_chunked *d, char c, am_http_refusal *refusal) {
    switch (d->state) {
    case SIZE: return size_byte(d, c, refusal);
    case EXTENSION: return extension_byte(d, c, refusal);
    case SIZE_LF:
        if (c != '\n') return am_http_refuse(refusal, 400, "malformed end of a chunk size");
        d->state = d->left ? DATA : TRAILER;
        d->n_digits = d->n_extension = 0;
        begin_line(d);
        return AM_AGAIN;
    case DATA_CR:
        if (c != '\r') return am_http_refuse(refusal, 400, "a chunk is longer than its size");
        d->state = DATA_LF;
        return AM_AGAIN;
    case DATA_LF:
        if (c != '\n') return am_http_refuse(refusal, 400, "malformed end of a chunk");
        d->state = SIZE;
        return AM_AGAIN;
    case TRAILER: return trailer_byte(d, c, refusal);
    case TRAILER_LF:
        if (c != '\n') return am_http_refuse(refusal, 400, "malformed end of a trailer");
        d->state = d->line_empty ? ENDED : TRAILER;
        begin_line(d);
        return d->state == ENDED ? AM_OK : AM_AGAIN;
    default: return am_http_refuse(refusal, 400, "bytes after the end of the body");
    }
}

am_status am_http_chunked_feed(am_http_chunked *d, am_str p, size_t *used, am_buf *out, am_http_refusal *refusal) {
    am_status status = AM_AGAIN;
    size_t i = 0;
    while (status == AM_AGAIN && i < p.n) {
        if (d->state != DATA) {
            status = control_byte(d, p.p[i++], refusal);
            /* known to be too long before its bytes are here */
            if (status == AM_AGAIN && d->state == DATA && d->left > out->max - out->n)
                status = am_http_refuse(refusal, 413, "the request body is longer than this server takes");
            continue;
        }
        size_t n = p.n - i < d->left ? p.n - i : (size_t)d->left;
        if (am_buf_append(out, p.p + i, n)) status = AM_ENOMEM;
        i += n;
        d->left -= n;
        if (d->left == 0) d->state = DATA_CR;
    }
    *used = i;
    return status;
}
