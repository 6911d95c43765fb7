/* Agents of models that are not in memory: what their files say, so that quotas count them and they can be forgotten without loading anything. */
#ifndef AM_CACHE_DORMANT_H
#define AM_CACHE_DORMANT_H

#include "cache/cache.h"

/* What a folder's dormant agents of a tenant (NULL: of all) take; known: whether one of them is called agent. */
typedef struct am_dormant_usage {
    uint64_t n_agents, disk_bytes;
    bool known;
} am_dormant_usage;
am_dormant_usage am_dormant_usage_of(am_cache_folder *folder, const am_tenant *tenant, am_str agent);

/* Which to forget; an empty or NULL member: any. */
typedef struct am_dormant_choice {
    const am_tenant *tenant;
    am_str agent;
    const char *model; /* as it stands in their files: the last part of its path */
} am_dormant_choice;
typedef struct am_dormant_gone {
    uint32_t n_agents;
    uint64_t n_blocks, bytes;
} am_dormant_gone;
/* Removes their files, and the blocks that no other agent of their model names. No cache of dir may be opened meanwhile. */
am_status am_dormant_forget(am_cache_folder *folder, const char *dir, const am_dormant_choice *choice, am_dormant_gone *out, am_error *err);
/* Fills an empty folder's list from its files, for who has no cache open; the lock is the caller's. */
am_status am_dormant_scan(am_cache_folder *folder, const char *dir, am_error *err);

#endif
