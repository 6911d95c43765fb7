/* A connection's body, shared by conn.c (reading: states, deadlines) and conn_write.c (replies on their way out). */
#ifndef AM_SERVER_CONN_H
#define AM_SERVER_CONN_H

#include "server/internal.h"

#include <event2/buffer.h>

/*   HEAD -(head complete)-> BODY -(body complete)-> BUSY -(reply moved to out)-> HEAD (kept alive) or CLOSING
 *   CLOSING -(out is empty, FIN sent)-> LINGER -(the client's FIN, or 2 s)-> freed
 * Requests that follow while one is BUSY wait in `in`: replies keep their order because there is only one exchange at a time. */
typedef enum am_conn_state { AM_CONN_HEAD, AM_CONN_BODY, AM_CONN_BUSY, AM_CONN_CLOSING, AM_CONN_LINGER } am_conn_state;

struct am_conn {
    am_server *server;
    am_conn *prev, *next;
    int fd;
    struct event *readable, *writable;
    struct evbuffer *in, *out;
    am_conn_state state;
    am_exchange *x; /* NULL in HEAD, CLOSING, LINGER */
    am_http_scan scan;
    am_http_chunked chunked;
    uint64_t body_left;        /* of a body with content-length */
    uint64_t deadline_ns;      /* HEAD, LINGER */
    uint64_t body_start_ns;    /* BODY */
    uint64_t write_progress_ns;
    uint64_t n_lingered;
    bool close_after; /* this reply is the last */
    bool eof;         /* the client will send no more */
    bool paused;      /* too much came while BUSY: not reading */
    bool dead;        /* freed by the callback that is running, at its end */
};

/* conn.c */
void am_conn_process(am_conn *conn);       /* takes requests out of `in` as far as they go */
void am_conn_settle(am_conn *conn);        /* frees it when it is dead: the last call of every callback */
/* conn_write.c */
void am_conn_write(am_conn *conn);         /* out -> socket */
void am_conn_on_writable(evutil_socket_t fd, short what, void *arg);
void am_conn_keep_alive(am_conn *conn, uint64_t now_ns);

#endif
