/* Owns the client side of tests over real sockets. Deliberately naive: it must not share code with what it tests. */
#include "http_client.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

int http_connect(uint16_t port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        close(fd);
        return -1;
    }
    return fd;
}

void http_send(int fd, const char *bytes, size_t n) {
    while (n) {
        ssize_t k = send(fd, bytes, n, MSG_NOSIGNAL);
        if (k <= 0) return;
        bytes += k;
        n -= (size_t)k;
    }
}

void http_text(int fd, const char *text) { http_send(fd, text, strlen(text)); }

static bool read_byte(int fd, char *c) { return recv(fd, c, 1, 0) == 1; }

static bool read_line(int fd, char *line, size_t cap) {
    size_t n = 0;
    while (n + 1 < cap && read_byte(fd, line + n))
        if (line[n++] == '\n') {
            line[n] = 0;
            return true;
        }
    return false;
}

static bool read_bytes(int fd, size_t n, am_buf *out) {
    while (n) {
        char p[65536];
        ssize_t k = recv(fd, p, n < sizeof p ? n : sizeof p, 0);
        if (k <= 0) return false;
        am_buf_append(out, p, (size_t)k);
        n -= (size_t)k;
    }
    return true;
}

const char *http_header(const http_reply *reply, const char *name) {
    static char value[1024];
    size_t n = strlen(name);
    for (const char *line = reply->head; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncasecmp(line, name, n) == 0 && line[n] == ':') {
            const char *v = line + n + 1;
            while (*v == ' ') v++;
            snprintf(value, sizeof value, "%.*s", (int)strcspn(v, "\r"), v);
            return value;
        }
    return NULL;
}

static bool read_chunks(int fd, am_buf *body) {
    char line[256];
    while (read_line(fd, line, sizeof line)) {
        size_t n = strtoul(line, NULL, 16);
        if (n && !read_bytes(fd, n, body)) return false;
        if (!read_line(fd, line, sizeof line)) return false;
        if (n == 0) return true;
    }
    return false;
}

void http_reply_free(http_reply *reply) {
    am_buf_free(&reply->body);
    json_decref(reply->json);
    *reply = (http_reply){.body.max = SIZE_MAX / 2};
}

void http_read(int fd, http_reply *reply) {
    http_reply_free(reply);
    size_t n = 0;
    while (n + 256 < sizeof reply->head && read_line(fd, reply->head + n, sizeof reply->head - n) && strcmp(reply->head + n, "\r\n"))
        n += strlen(reply->head + n);
    if (sscanf(reply->head, "HTTP/1.1 %d", &reply->status) != 1) return;
    if (reply->status == 100) {
        memset(reply->head, 0, sizeof reply->head);
        http_read(fd, reply);
        return;
    }
    const char *length = http_header(reply, "content-length"), *coding = http_header(reply, "transfer-encoding");
    if (coding) reply->whole = read_chunks(fd, &reply->body);
    else if ((length = http_header(reply, "content-length"))) reply->whole = read_bytes(fd, strtoul(length, NULL, 10), &reply->body);
    else if (reply->status != 204) reply->whole = !read_bytes(fd, SIZE_MAX, &reply->body);
    else reply->whole = true;
    am_json_parse(am_buf_str(&reply->body), false, &reply->json, NULL);
}

void http_ask(uint16_t port, const char *method, const char *path, const char *headers, const char *body, http_reply *reply) {
    int fd = http_connect(port);
    char head[4096];
    int n = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s", method, path, headers ? headers : "");
    if (body) n += snprintf(head + n, sizeof head - (size_t)n, "Content-Length: %zu\r\n", strlen(body));
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    http_send(fd, head, (size_t)n);
    if (body) http_send(fd, body, strlen(body));
    http_read(fd, reply);
    close(fd);
}
