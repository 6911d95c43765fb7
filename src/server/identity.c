/* Owns the precedence of the many ways in which clients say who is speaking; the first that is there wins.
 *
 * A name only names and protects state: reuse is decided by tokens (invariant 2), so a client's session id used as a name can cost time but
 * never give a wrong answer. Only x-agent-id and agent_id are the user's own words and are refused when they are no names; the rest are other
 * programs' ids and are passed over then. Without any, the cache takes the agent with the longest stored prefix. */
#include "server/identity.h"

#include <stdio.h>
#include <string.h>

typedef enum source { HEADER, BODY } source;

static const struct {
    source from;
    const char *name;
    const char *outer; /* HEADER: joined before it as "outer/name" when present; BODY: the member that holds it */
    bool explicit;
} ways[] = {
    {HEADER, "x-agent-id", NULL, true},
    {BODY, "agent_id", NULL, true},
    {HEADER, "x-claude-code-agent-id", "x-claude-code-session-id", false}, /* sub-agents of one session */
    {HEADER, "x-claude-code-session-id", NULL, false},
    {HEADER, "thread-id", NULL, false}, /* Codex: differs per sub-agent, session-id does not */
    {HEADER, "session-id", NULL, false},
    {HEADER, "x-session-affinity", NULL, false}, /* opencode */
    {HEADER, "x-session-id", NULL, false},
    {HEADER, "x-opencode-session", NULL, false},
    {HEADER, "x-litellm-session-id", NULL, false},
    {HEADER, "x-openwebui-chat-id", NULL, false},
    {BODY, "prompt_cache_key", NULL, false},
    {BODY, "previous_response_id", NULL, false},
    {BODY, "conversation", NULL, false}, /* a string, or an object with an id */
    {BODY, "id", "conversation", false},
    {BODY, "user_id", "metadata", false},
    {BODY, "user", NULL, false},
};

/* Claude Code asks a small model for titles and the like, within the session of the conversation: their state is not the conversation's. */
static bool is_background(const char *name, const json_t *body) {
    const char *model = json_string_value(json_object_get(body, "model"));
    return strcmp(name, "x-claude-code-session-id") == 0 && model && strstr(model, "haiku");
}

static am_str body_value(const json_t *body, const char *name, const char *outer) {
    const json_t *v = json_object_get(outer ? json_object_get(body, outer) : body, name);
    return json_is_string(v) ? (am_str){json_string_value(v), json_string_length(v)} : (am_str){0};
}

bool am_identity_find(const am_http_head *head, const json_t *body, char agent[AM_NAME_MAX + 1], am_api_error *e) {
    agent[0] = 0;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        am_str name = ways[i].from == HEADER ? am_http_field_of(head, ways[i].name) : body_value(body, ways[i].name, ways[i].outer);
        if (name.n == 0) continue;
        char joined[2 * AM_NAME_MAX + 2], apart[AM_NAME_MAX + 1];
        am_str outer = ways[i].from == HEADER && ways[i].outer ? am_http_field_of(head, ways[i].outer) : (am_str){0};
        if (outer.n && outer.n + name.n < AM_NAME_MAX) {
            int n = snprintf(joined, sizeof joined, "%.*s/%.*s", (int)outer.n, outer.p, (int)name.n, name.p);
            name = (am_str){joined, (size_t)n};
        }
        if (is_background(ways[i].name, body) && name.n + 6 <= AM_NAME_MAX) name = (am_str){apart, (size_t)snprintf(apart, sizeof apart, "%.*s/haiku", (int)name.n, name.p)};
        am_error err;
        if (am_agent_name_check(name, &err) == AM_OK) {
            memcpy(agent, name.p, name.n);
            agent[name.n] = 0;
            return true;
        }
        if (ways[i].explicit) return am_api_fail(e, 400, "invalid_agent_name", ways[i].name, "%s: %s", ways[i].name, err.message);
    }
    return true;
}
