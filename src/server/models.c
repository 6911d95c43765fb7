/* Owns /v1/models: the one model that is loaded, in OpenAI's shape and with what clients ask about its size. */
#include "server/internal.h"

#include "server/models.h"

static json_t *model_json(const am_server *server) {
    am_runtime *runtime = atomic_load(&server->runtime);
    const am_model_info *info = am_model_info_of(am_runtime_model(runtime));
    am_engine_stats stats;
    am_engine_stats_get(am_runtime_engine(runtime), &stats);
    return json_pack("{s:s, s:s, s:I, s:s, s:i, s:i, s:{s:s, s:s, s:s, s:I, s:i, s:i, s:i, s:i}}", "id", info->name, "object", "model", "created",
                     (json_int_t)server->started_s, "owned_by", "local", "context_length", (int)stats.n_ctx, "max_model_len", (int)stats.n_ctx,
                     "meta", "architecture", info->architecture, "format", info->format, "forms", info->forms, "n_params", (json_int_t)info->n_params,
                     "n_vocab", (int)info->n_vocab, "n_embd", (int)info->n_embd, "n_layer", (int)info->n_layer, "n_ctx_train", (int)info->n_ctx);
}

void am_handle_models(am_exchange *x) {
    am_reply_json(x, 200, json_pack("{s:s, s:[o]}", "object", "list", "data", model_json(x->server)));
}

bool am_model_name_ok(const am_server *server, am_str name, am_api_error *e) {
    const char *loaded = am_model_info_of(am_runtime_model(atomic_load(&server->runtime)))->name;
    if (name.n == 0 || am_options_of(server)->unknown_model_ok || am_str_eq(name, am_str_of(loaded))) return true;
    return am_api_fail(e, 404, "model_not_found", "model", "the model '%.*s' is not loaded; this server has '%s'",
                       (int)(name.n > 100 ? 100 : name.n), name.p, loaded);
}

void am_handle_model(am_exchange *x) {
    am_api_error e;
    const char *loaded = am_model_info_of(am_runtime_model(atomic_load(&x->server->runtime)))->name;
    if (am_str_eq(am_buf_str(&x->param), am_str_of(loaded))) am_reply_json(x, 200, model_json(x->server));
    else if (!am_api_fail(&e, 404, "model_not_found", "model", "the model '%.100s' is not loaded; this server has '%s'", x->param.p, loaded))
        am_reply_error(x, &e);
}
