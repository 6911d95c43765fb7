/* A request's body in either dialect, as the first byte says: its fields and its messages. A refusal says why; what is taken is in the form that templates
 * are given, so bringing it into that form again changes nothing. */
#include "fuzz.h"
#include "server/dialect.h"

#include <string.h>

static void check_refusal(const am_api_error *e) { fuzz_check((e->status == 400 || e->status == 503) && e->message[0]); }

static void check_messages(const json_t *messages) {
    char param[AM_CHAT_PARAM_BYTES];
    json_t *again = NULL;
    fuzz_check(am_chat_messages(messages, &again, param, NULL) == AM_OK && json_equal(messages, again));
    json_decref(again);
}

static void check_tools(const json_t *tools) {
    char param[AM_CHAT_PARAM_BYTES];
    json_t *again = NULL;
    if (!tools) return;
    fuzz_check(json_array_size(tools) > 0 && am_chat_tools(tools, &again, param, NULL) == AM_OK && json_equal(tools, again));
    json_decref(again);
}

FUZZ_TARGET(request) {
    am_completion_request r;
    am_api_error e = {0};
    if (size == 0) return 0;
    const am_dialect *dialect = *data % 2 ? &am_dialect_anthropic : &am_dialect_openai;
    if (!dialect->parse((am_str){(const char *)data + 1, size - 1}, &r, &e)) {
        check_refusal(&e);
    } else {
        json_t *messages = dialect->messages(&r, 1000, &e);
        check_tools(r.tools);
        if (messages) check_messages(messages);
        else check_refusal(&e);
        json_decref(messages);
    }
    am_completion_request_free(&r);
    return 0;
}
