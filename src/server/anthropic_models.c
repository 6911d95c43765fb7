/* Owns the list of models in Anthropic's shape. When a model was made is not known here: its created_at is the epoch, as they say it. */
#include "server/anthropic.h"
#include "server/models.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_LIMIT = 20, MAX_LIMIT = 1000 };

static json_t *model_json(const am_model_view *view, const char *id) {
    json_int_t n_ctx = (json_int_t)am_model_context(view);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I}", "type", "model", "id", id, "display_name", view->entry->name, "created_at",
                     "1970-01-01T00:00:00Z", "lifecycle", "active", "max_input_tokens", n_ctx, "max_tokens", n_ctx);
}

static void add(void *arg, const am_model_view *view, const char *id) { json_array_append_new(arg, model_json(view, id)); }

void am_anthropic_model(am_exchange *x, const am_model_view *view) { am_reply_json(x, 200, model_json(view, x->param.p)); }

/* Where the model of this id stands; the end of the list when there is none. */
static size_t index_of(const json_t *all, const am_buf *id) {
    size_t i = 0;
    while (i < json_array_size(all) && strcmp(json_string_value(json_object_get(json_array_get(all, i), "id")), id->p)) i++;
    return i;
}

/* The part of the list that ?limit=, after_id= and before_id= ask for. */
void am_anthropic_models(am_exchange *x) {
    json_t *all = json_array(), *page = json_array();
    am_buf limit, after, before;
    bool bad = am_query_value(x, "limit", &limit), bad_after = am_query_value(x, "after_id", &after), bad_before = am_query_value(x, "before_id", &before);
    if (bad || bad_after || bad_before) {
        am_reply_refuse(x, 400, "invalid_value", "a malformed %-escape in the query");
    } else {
        am_models_each(x->server, add, all);
        unsigned long most = limit.n ? strtoul(limit.p, NULL, 10) : DEFAULT_LIMIT;
        if (most < 1 || most > MAX_LIMIT) most = MAX_LIMIT;
        size_t n = json_array_size(all), first = after.n ? index_of(all, &after) + 1 : 0, end = n;
        if (before.n) {
            end = index_of(all, &before);
            first = end > most ? end - most : 0;
        } else if (first < n && n - first > most) {
            end = first + most;
        }
        for (size_t i = first; i < end; i++) json_array_append(page, json_array_get(all, i));
        const json_t *one = json_array_get(page, 0), *last = json_array_get(page, json_array_size(page) - 1);
        json_t *first_id = json_object_get(one, "id"), *last_id = json_object_get(last, "id");
        am_reply_json(x, 200, json_pack("{s:O, s:b, s:O?, s:O?}", "data", page, "has_more", before.n ? first > 0 : end < n, "first_id", first_id, "last_id", last_id));
    }
    am_buf_free(&limit);
    am_buf_free(&after);
    am_buf_free(&before);
    json_decref(all);
    json_decref(page);
}
