/* Owns streamed replies: an outbox per exchange, filled by the engine thread, emptied by the network thread.
 *
 * The outbox is bounded: a reader slower than the model makes it grow to the limit, then the request is given up, so that neither the
 * engine waits for a socket nor memory for a client. Framing (chunks) and keep-alive comments are the network thread's. */
#include "server/dialect.h"

void am_stream_begin(am_exchange *x, const char *content_type) {
    x->mode = AM_REPLY_STREAM;
    x->status = 200;
    x->content_type = content_type;
}

void am_stream_open(am_exchange *x, const char *content_type) {
    pthread_mutex_lock(&x->lock);
    if (x->mode == AM_REPLY_NONE) am_stream_begin(x, content_type);
    pthread_mutex_unlock(&x->lock);
}

am_status am_stream_write(am_exchange *x, am_str bytes) {
    pthread_mutex_lock(&x->lock);
    am_status status = x->gone ? AM_ECANCELED : x->too_slow ? AM_ELIMIT : AM_OK;
    if (!status && (x->out.n + bytes.n > am_options_of(x->server)->max_outbox_bytes || am_buf_add(&x->out, bytes))) {
        x->too_slow = true; /* the network thread hangs up, which cancels the request */
        status = AM_ELIMIT;
    }
    pthread_mutex_unlock(&x->lock);
    am_exchange_post_stream(x);
    return status;
}

void am_stream_end(am_exchange *x) {
    pthread_mutex_lock(&x->lock);
    x->finished = true;
    x->on_gone = NULL;
    pthread_mutex_unlock(&x->lock);
    am_exchange_post(x);
}

bool am_stream_revoke(am_exchange *x) {
    pthread_mutex_lock(&x->lock);
    bool revoked = x->mode == AM_REPLY_STREAM && !x->begun && x->out.n == 0;
    if (revoked) x->mode = AM_REPLY_NONE;
    pthread_mutex_unlock(&x->lock);
    return revoked;
}

void am_stream_fail(am_exchange *x, const am_api_error *e) {
    pthread_mutex_lock(&x->lock);
    bool streams = x->mode == AM_REPLY_STREAM;
    pthread_mutex_unlock(&x->lock);
    if (!streams || am_stream_revoke(x)) {
        am_reply_error(x, e);
        return;
    }
    am_buf line;
    am_buf_init(&line, 8192);
    am_buf_add(&line, x->dialect->error_event);
    x->dialect->error(x, e, &line);
    am_buf_printf(&line, "\n\n");
    am_stream_write(x, am_buf_str(&line));
    am_stream_end(x);
    am_buf_free(&line);
}
