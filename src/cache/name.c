/* Owns the names: of agents, of their files, of tiers and misses.
 *
 * A head's file is [<tenant>@]<agent>~<first 12 hex digits of the model tag>.safetensors, with every byte outside [A-Za-z0-9._-] as %XX (and a leading dot
 * too, and the first character of what would look like a block's name). An agent whose escaped name is longer than 150 bytes gets its first
 * 100 and a hash; the whole name is in the file's metadata, which is what counts. */
#include "cache/internal.h"

#include "base/fs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *am_tier_name(am_tier tier) { return tier == AM_HOT ? "hot" : tier == AM_WARM ? "warm" : "cold"; }

void am_miss_text(const am_turn_info *info, char out[64]) {
    static const char *const text[] = {
#define AM_MISS_TEXT(code, name) [code] = name,
        AM_MISS_LIST(AM_MISS_TEXT)
#undef AM_MISS_TEXT
    };
    const char *name = text[info->miss];
    if (info->miss == AM_MISS_TOKENS_DIFFER || info->miss == AM_MISS_WINDOW)
        snprintf(out, 64, "%s:%u", name, info->miss_at);
    else
        snprintf(out, 64, "%s", name ? name : "");
}

am_status am_agent_name_check(am_str agent, am_error *err) {
    if (agent.n == 0 || agent.n > AM_NAME_MAX) return am_fail(err, AM_EINVAL, "an agent's name has 1 to %d bytes, not %zu", AM_NAME_MAX, agent.n);
    for (size_t i = 0; i < agent.n;) {
        unsigned char c = (unsigned char)agent.p[i];
        size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
        if (c < 0x20 || c == 0x7f) return am_fail(err, AM_EINVAL, "an agent's name has no control characters (byte %zu is 0x%02x)", i, c);
        if (n == 0 || i + n > agent.n) return am_fail(err, AM_EINVAL, "an agent's name is UTF-8 (byte %zu is 0x%02x)", i, c);
        for (size_t j = 1; j < n; j++)
            if (((unsigned char)agent.p[i + j] & 0xc0) != 0x80) return am_fail(err, AM_EINVAL, "an agent's name is UTF-8 (byte %zu)", i + j);
        i += n;
    }
    return AM_OK;
}

static void escape(am_buf *out, am_str s) {
    bool like_block = am_str_starts(s, AM_STR("b-"));
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || (c == '.' && i > 0);
        if (plain && !(i == 0 && like_block))
            am_buf_putc(out, c);
        else
            am_buf_printf(out, "%%%02X", (unsigned char)c);
    }
}

char *am_head_file_name(const char *tenant, am_str agent, const char *tag_hex) {
    am_buf name;
    am_buf_init(&name, 4096);
    if (*tenant) {
        escape(&name, am_str_of(tenant));
        am_buf_putc(&name, '@');
    }
    size_t from = name.n;
    escape(&name, agent);
    if (name.n - from > 150) {
        am_hash h = am_hash_parts(NULL, &(am_hash_part){agent.p, agent.n}, 1);
        char hex[65];
        am_hash_hex(&h, hex);
        name.n = from + 100;
        am_buf_printf(&name, "%%%.32s", hex);
    }
    am_status status = am_buf_printf(&name, "~%.12s.safetensors", tag_hex);
    if (!status) return name.p;
    am_buf_free(&name);
    return NULL;
}

static const char prefix[AM_KV_PARTS] = {[AM_KV_GLOBAL] = 'b', [AM_KV_WINDOW] = 'w'};

void am_block_file_name(am_kv_part part, const am_hash *hash, char out[96]) {
    char hex[65];
    am_hash_hex(hash, hex);
    snprintf(out, 96, "%c-%s.safetensors", prefix[part], hex);
}

bool am_block_file_parse(const char *name, am_kv_part *part, am_hash *hash) {
    *part = name[0] == prefix[AM_KV_WINDOW] ? AM_KV_WINDOW : AM_KV_GLOBAL;
    return name[0] == prefix[*part] && name[1] == '-' && strlen(name) == 2 + 64 + 12 && strcmp(name + 2 + 64, ".safetensors") == 0 &&
           am_hash_parse(name + 2, 64, hash);
}
