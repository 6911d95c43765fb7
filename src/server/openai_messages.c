/* Owns the limits on a request's messages, and their errors in OpenAI's form; what becomes of them is text/chat.h's. */
#include "server/openai.h"

json_t *am_openai_messages(const am_completion_request *r, uint32_t max_messages, am_api_error *e) {
    size_t n = json_array_size(r->messages);
    char param[AM_CHAT_PARAM_BYTES];
    json_t *list;
    am_error err = {0};
    if (n > max_messages) {
        am_api_fail(e, 400, "too_many_messages", "messages", "'messages' has %zu entries; at most %u are taken", n, max_messages);
        return NULL;
    }
    am_status status = am_chat_messages(r->messages, &list, param, &err);
    if (status == AM_ENOMEM) am_api_fail(e, 503, "out_of_memory", NULL, "out of memory");
    else if (status) am_api_fail(e, 400, "invalid_value", param, "%s", err.message);
    return list;
}
