/* Owns the grammar of request heads (RFC 9112), narrowed to what honest clients send.
 *
 * Refused, because two readers in a row could disagree on where the next request begins: bare CR, bare LF, NUL, folded lines,
 * blanks before the colon, content-length twice or as a list or with a sign, content-length beside transfer-encoding, transfer
 * codings other than exactly "chunked", an authority in the target that is not the Host, HTTP/0.9. */
#include "server/http_parse.h"

#include <string.h>

enum { MAX_EMPTY_LINES = 4 };

am_status am_http_refuse(am_http_refusal *refusal, int status, const char *why) {
    *refusal = (am_http_refusal){status, why};
    return AM_EFORMAT;
}

am_status am_http_scan_head(am_http_scan *scan, const char *p, size_t n, am_http_refusal *refusal) {
    while (scan->n < n) {
        if (scan->n >= AM_HTTP_MAX_HEAD) return am_http_refuse(refusal, 431, "the request head is longer than 16 KiB");
        char c = p[scan->n++];
        if (scan->cr) {
            if (c != '\n') return am_http_refuse(refusal, 400, "a carriage return without line feed in the request head");
            scan->cr = false;
            bool empty = scan->line == 0, first = scan->n - 2 == scan->skip;
            scan->line = 0;
            if (!empty) continue;
            if (!first) return AM_OK;
            scan->skip = scan->n; /* an empty line before the request line is left over from a sloppy client's last body */
            if (scan->skip > 2 * MAX_EMPTY_LINES) return am_http_refuse(refusal, 400, "empty lines instead of a request");
        } else if (c == '\r') {
            scan->cr = true;
        } else if (c == '\n') {
            return am_http_refuse(refusal, 400, "a line feed without carriage return in the request head");
        } else if (c == 0) {
            return am_http_refuse(refusal, 400, "a NUL byte in the request head");
        } else {
            scan->line++;
        }
    }
    return AM_AGAIN;
}

static bool is_token_char(unsigned char c) {
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return true;
    return c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static bool is_token(am_str s) {
    for (size_t i = 0; i < s.n; i++)
        if (!is_token_char((unsigned char)s.p[i])) return false;
    return s.n > 0;
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

bool am_http_name_is(am_str a, const char *name) {
    size_t n = strlen(name);
    if (a.n != n) return false;
    for (size_t i = 0; i < n; i++)
        if (lower(a.p[i]) != name[i]) return false;
    return true;
}

static bool same_name(am_str a, am_str b) {
    if (a.n != b.n) return false;
    for (size_t i = 0; i < a.n; i++)
        if (lower(a.p[i]) != lower(b.p[i])) return false;
    return true;
}

am_str am_http_field_of(const am_http_head *head, const char *name) {
    for (size_t i = 0; i < head->n_fields; i++)
        if (am_http_name_is(head->fields[i].name, name)) return head->fields[i].value;
    return (am_str){0};
}

/* Takes the text up to the CRLF off the front of *rest; lines are known to end properly. */
static am_str take_line(am_str *rest) {
    const char *end = memchr(rest->p, '\r', rest->n);
    size_t n = end ? (size_t)(end - rest->p) : rest->n;
    am_str line = {rest->p, n};
    size_t used = n + 2 < rest->n ? n + 2 : rest->n;
    rest->p += used;
    rest->n -= used;
    return line;
}

static bool host_chars_ok(am_str host) {
    for (size_t i = 0; i < host.n; i++) {
        unsigned char c = (unsigned char)host.p[i];
        if (c <= ' ' || c >= 0x7f || strchr("/?#@\\\"<>{}|^`,;", c)) return false;
    }
    return true;
}

/* origin-form, absolute-form, or "*" for OPTIONS; CONNECT's authority-form is nothing to us. *authority: of the absolute form. */
static am_status parse_target(am_http_head *head, am_str *authority, am_http_refusal *refusal) {
    am_str t = head->target;
    *authority = (am_str){0};
    if (t.n > AM_HTTP_MAX_TARGET) return am_http_refuse(refusal, 414, "the request target is longer than 8 KiB");
    for (size_t i = 0; i < t.n; i++) {
        unsigned char c = (unsigned char)t.p[i];
        if (c <= ' ' || c >= 0x7f || c == '#') return am_http_refuse(refusal, 400, "a character in the request target that must be escaped");
    }
    if (am_str_eq(t, AM_STR("*")) && am_str_eq(head->method, AM_STR("OPTIONS"))) {
        head->path = t;
        return AM_OK;
    }
    if (t.n >= 7 && am_http_name_is((am_str){t.p, 7}, "http://")) {
        t.p += 7;
        t.n -= 7;
        size_t n = 0;
        while (n < t.n && t.p[n] != '/' && t.p[n] != '?') n++;
        *authority = (am_str){t.p, n};
        t.p += n;
        t.n -= n;
        if (n == 0 || !host_chars_ok(*authority)) return am_http_refuse(refusal, 400, "a malformed authority in the request target");
        if (t.n == 0) t = AM_STR("/");
    }
    if (t.n == 0 || t.p[0] != '/') return am_http_refuse(refusal, 400, "the request target must begin with '/'");
    const char *mark = memchr(t.p, '?', t.n);
    head->path = (am_str){t.p, mark ? (size_t)(mark - t.p) : t.n};
    if (mark) head->query = (am_str){mark + 1, t.n - head->path.n - 1};
    return AM_OK;
}

static am_status parse_request_line(am_http_head *head, am_str line, am_str *authority, am_http_refusal *refusal) {
    const char *first = memchr(line.p, ' ', line.n);
    if (!first) return am_http_refuse(refusal, 400, "malformed request line");
    head->method = (am_str){line.p, (size_t)(first - line.p)};
    am_str rest = {first + 1, line.n - head->method.n - 1};
    const char *second = memchr(rest.p, ' ', rest.n);
    if (!second) return am_http_refuse(refusal, 400, "malformed request line (HTTP/0.9 is not spoken here)");
    head->target = (am_str){rest.p, (size_t)(second - rest.p)};
    am_str version = {second + 1, rest.n - head->target.n - 1};
    if (!is_token(head->method) || head->method.n > 32) return am_http_refuse(refusal, 400, "malformed method");
    if (version.n != 8 || memcmp(version.p, "HTTP/", 5) || version.p[6] != '.' || version.p[5] < '0' || version.p[5] > '9' ||
        version.p[7] < '0' || version.p[7] > '9')
        return am_http_refuse(refusal, 400, "malformed HTTP version");
    if (version.p[5] != '1' || version.p[7] > '1') return am_http_refuse(refusal, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    head->http_1_0 = version.p[7] == '0';
    return parse_target(head, authority, refusal);
}

static am_status parse_field(am_http_head *head, am_str line, am_http_refusal *refusal) {
    if (line.p[0] == ' ' || line.p[0] == '\t') return am_http_refuse(refusal, 400, "a folded header line");
    const char *colon = memchr(line.p, ':', line.n);
    if (!colon) return am_http_refuse(refusal, 400, "a header line without colon");
    am_str name = {line.p, (size_t)(colon - line.p)};
    am_str value = {colon + 1, line.n - name.n - 1};
    if (!is_token(name)) return am_http_refuse(refusal, 400, "a malformed header name");
    while (value.n && (value.p[0] == ' ' || value.p[0] == '\t')) value.p++, value.n--;
    while (value.n && (value.p[value.n - 1] == ' ' || value.p[value.n - 1] == '\t')) value.n--;
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        if ((c < ' ' && c != '\t') || c == 0x7f) return am_http_refuse(refusal, 400, "a control character in a header value");
    }
    if (head->n_fields == AM_HTTP_MAX_FIELDS) return am_http_refuse(refusal, 431, "more than 64 header fields");
    head->fields[head->n_fields++] = (am_http_field){name, value};
    return AM_OK;
}

static am_status parse_content_length(am_http_head *head, am_str value, am_http_refusal *refusal) {
    if (head->content_length >= 0) return am_http_refuse(refusal, 400, "content-length given twice");
    if (value.n == 0 || value.n > 18) return am_http_refuse(refusal, value.n ? 413 : 400, "content-length is not a sensible number");
    int64_t n = 0;
    for (size_t i = 0; i < value.n; i++) {
        if (value.p[i] < '0' || value.p[i] > '9') return am_http_refuse(refusal, 400, "content-length is not a number");
        n = n * 10 + (value.p[i] - '0');
    }
    head->content_length = n;
    return AM_OK;
}

/* Does the comma-separated list have this item? */
static bool list_has(am_str list, const char *item) {
    while (list.n) {
        const char *comma = memchr(list.p, ',', list.n);
        am_str one = {list.p, comma ? (size_t)(comma - list.p) : list.n};
        list.p += one.n + (comma != NULL);
        list.n -= one.n + (comma != NULL);
        while (one.n && (one.p[0] == ' ' || one.p[0] == '\t')) one.p++, one.n--;
        while (one.n && (one.p[one.n - 1] == ' ' || one.p[one.n - 1] == '\t')) one.n--;
        if (am_http_name_is(one, item)) return true;
    }
    return false;
}

/* The fields that say where this request ends and what becomes of the connection. */
static am_status read_framing(am_http_head *head, am_http_refusal *refusal) {
    bool close = false, keep = false, has_host = false;
    for (size_t i = 0; i < head->n_fields; i++) {
        am_str name = head->fields[i].name, value = head->fields[i].value;
        if (am_http_name_is(name, "content-length")) {
            am_status status = parse_content_length(head, value, refusal);
            if (status) return status;
        } else if (am_http_name_is(name, "transfer-encoding")) {
            if (head->chunked) return am_http_refuse(refusal, 400, "transfer-encoding given twice");
            if (head->http_1_0) return am_http_refuse(refusal, 400, "transfer-encoding in an HTTP/1.0 request");
            if (!am_http_name_is(value, "chunked")) return am_http_refuse(refusal, 501, "the only transfer coding understood here is chunked");
            head->chunked = true;
        } else if (am_http_name_is(name, "host")) {
            if (has_host) return am_http_refuse(refusal, 400, "two Host headers");
            if (!host_chars_ok(value)) return am_http_refuse(refusal, 400, "malformed Host header");
            has_host = true;
            head->host = value;
        } else if (am_http_name_is(name, "connection")) {
            close |= list_has(value, "close");
            keep |= list_has(value, "keep-alive");
        } else if (am_http_name_is(name, "expect")) {
            if (!am_http_name_is(value, "100-continue")) return am_http_refuse(refusal, 417, "the only expectation understood here is 100-continue");
            head->expect_continue = !head->http_1_0;
        }
    }
    if (head->chunked && head->content_length >= 0) return am_http_refuse(refusal, 400, "content-length beside transfer-encoding");
    if (!has_host && !head->http_1_0) return am_http_refuse(refusal, 400, "the Host header is missing");
    head->keep_alive = !close && (!head->http_1_0 || keep);
    return AM_OK;
}

am_status am_http_parse_head(am_str p, am_http_head *head, am_http_refusal *refusal) {
    memset(head, 0, sizeof *head);
    head->content_length = -1;
    am_str authority, line = take_line(&p);
    am_status status = parse_request_line(head, line, &authority, refusal);
    while (!status && (line = take_line(&p)).n) status = parse_field(head, line, refusal);
    if (!status) status = read_framing(head, refusal);
    if (!status && authority.n) {
        if (head->host.p && !same_name(authority, head->host))
            return am_http_refuse(refusal, 400, "the Host header is not the authority of the request target");
        head->host = authority;
    }
    return status;
}

int am_http_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

am_status am_http_unescape(am_str s, am_buf *out) {
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '%') {
            int high = i + 2 < s.n ? am_http_hex(s.p[i + 1]) : -1, low = i + 2 < s.n ? am_http_hex(s.p[i + 2]) : -1;
            if (high < 0 || low < 0) return AM_EFORMAT;
            c = (char)(high << 4 | low);
            i += 2;
        }
        am_status status = am_buf_putc(out, c);
        if (status) return status;
    }
    return AM_OK;
}
