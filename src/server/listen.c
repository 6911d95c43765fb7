/* Owns the listening sockets, and the sentence that a user reads when the port is taken: who has it, how to look, how to choose another. */
#include "server/internal.h"

#include "base/log.h"
#include "base/procs.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { BACKLOG = 4096 };

static am_status port_taken(const am_server *server, am_error *err) {
    char who[300] = "a process that this user may not look into";
    unsigned port = am_options_of(server)->port;
    am_proc proc;
    if (am_proc_of_port(port, &proc) == AM_OK) snprintf(who, sizeof who, "pid %d (%s)", proc.pid, proc.command);
    return am_fail(err, AM_EBUSY,
                   "address already in use: port %u on %s belongs to %s; find it with `lsof -ti:%u` or `ss -ltnp 'sport = :%u'`, or choose another port with --port",
                   port, server->host, who, port, port);
}

/* One connection too many gets its reason, as far as a fresh socket takes it. */
static void turn_away(int fd) {
    static const char body[] = "{\"error\":{\"message\":\"too many connections\",\"type\":\"service_unavailable_error\",\"param\":null,"
                               "\"code\":\"too_many_connections\"}}\n";
    char reply[512];
    int n = snprintf(reply, sizeof reply,
                     "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
                     "content-length: %zu\r\n\r\n%s",
                     sizeof body - 1, body);
    ssize_t ignored = send(fd, reply, (size_t)n, MSG_NOSIGNAL);
    (void)ignored;
    close(fd);
}

static void on_connection(evutil_socket_t listener, short what, void *arg) {
    am_server *server = arg;
    (void)what;
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
            am_listen_pause(server, true); /* the backlog keeps them; the tick tries again */
            am_log(AM_LOG_WARN, "accept_failed", AM_LS("reason", strerror(errno)), AM_LU("connections", server->n_conns));
        }
        if (fd < 0) return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (server->n_conns < am_options_of(server)->max_connections) am_conn_accept(server, fd);
        else turn_away(fd);
    }
}

/* One listener; AM_EBUSY when the port is taken, AM_EIO (with errno kept) for anything else. */
static am_status open_listener(am_server *server, const struct addrinfo *a, uint16_t port) {
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_storage address;
    socklen_t n = sizeof address;
    if (fd < 0) return AM_EIO;
    memcpy(&address, a->ai_addr, a->ai_addrlen);
    if (a->ai_family == AF_INET6) ((struct sockaddr_in6 *)&address)->sin6_port = htons(port);
    else ((struct sockaddr_in *)&address)->sin_port = htons(port);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    struct event *event = NULL;
    if (bind(fd, (struct sockaddr *)&address, a->ai_addrlen) || listen(fd, BACKLOG) ||
        getsockname(fd, (struct sockaddr *)&address, &n) ||
        !(event = event_new(server->base, fd, EV_READ | EV_PERSIST, on_connection, server)) || event_add(event, NULL)) {
        int why = errno;
        if (event) event_free(event);
        close(fd);
        errno = why;
        return why == EADDRINUSE ? AM_EBUSY : AM_EIO;
    }
    server->port = ntohs(a->ai_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port : ((struct sockaddr_in *)&address)->sin_port);
    server->listeners[server->n_listeners++] = event;
    return AM_OK;
}

static void raise_file_limit(uint32_t max_connections) {
    struct rlimit limit;
    rlim_t want = max_connections + 1024u;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= want) return;
    limit.rlim_cur = limit.rlim_max < want ? limit.rlim_max : want;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < want) am_log(AM_LOG_WARN, "few_file_descriptors", AM_LU("limit", limit.rlim_cur), AM_LU("wanted", want));
}

am_status am_listen(am_server *server, am_error *err) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
    char host[256];
    snprintf(host, sizeof host, "%s", server->host);
    size_t n = strlen(host);
    if (n > 2 && host[0] == '[' && host[n - 1] == ']') { /* [::1] as in a URL */
        memmove(host, host + 1, n - 2);
        host[n - 2] = 0;
    }
    raise_file_limit(am_options_of(server)->max_connections);
    int code = getaddrinfo(host, NULL, &hints, &list);
    if (code) return am_fail(err, AM_EINVAL, "cannot listen on host '%s': %s", server->host, gai_strerror(code));
    am_status status = AM_EIO;
    int why = 0;
    for (struct addrinfo *a = list; a && server->n_listeners < sizeof server->listeners / sizeof *server->listeners; a = a->ai_next) {
        am_status one = open_listener(server, a, server->n_listeners ? server->port : am_options_of(server)->port);
        if (one) why = errno;
        if (one == AM_OK && status != AM_EBUSY) status = AM_OK;
        if (one == AM_EBUSY) status = AM_EBUSY;
    }
    freeaddrinfo(list);
    if (status == AM_EBUSY) status = port_taken(server, err);
    else if (status) status = am_fail(err, AM_EIO, "cannot listen on %s port %u: %s", server->host, am_options_of(server)->port, strerror(why));
    if (status) am_listen_close(server);
    return status;
}

void am_listen_close(am_server *server) {
    while (server->n_listeners) {
        struct event *event = server->listeners[--server->n_listeners];
        int fd = event_get_fd(event);
        event_free(event);
        close(fd);
    }
}

void am_listen_pause(am_server *server, bool pause) {
    if (server->listen_paused == pause) return;
    server->listen_paused = pause;
    for (size_t i = 0; i < server->n_listeners; i++) {
        if (pause) event_del(server->listeners[i]);
        else event_add(server->listeners[i], NULL);
    }
}
