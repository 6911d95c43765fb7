/* agent-memory: local LLM inference whose agents never forget.
 *
 * A runtime loads one model and keeps agents: named conversations whose attention state lives in memory and on disk. A turn continues an
 * agent; what was read before is not read again, also after the program ended and started anew.
 *
 *     am_runtime *rt; am_reply reply; char err[256];
 *     if (am_runtime_open(&(am_config){0}, &rt, err, sizeof err)) { fputs(err, stderr); return 1; }
 *     am_turn_params turn = {.agent = "alice", .messages = "[{\"role\":\"user\",\"content\":\"My code is QX-1185.\"}]"};
 *     if (am_runtime_turn(rt, &turn, &reply, err, sizeof err) == 0) puts(reply.text);
 *     am_reply_free(&reply);
 *     am_runtime_close(rt);
 *
 * All functions are thread-safe unless they say otherwise. Functions return 0, or a negative number and a message in err. Strings are UTF-8.
 * Whatever a struct returns is freed by the function named for it; NULL is always fine to free. */
#ifndef AGENT_MEMORY_H
#define AGENT_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct am_runtime am_runtime;

/* Zero or NULL in any field means the default. */
typedef struct am_config {
    const char *model;         /* model folder; NULL: the embedded memo-28m */
    const char *data_dir;      /* default: $AGENT_MEMORY_DATA_DIR, else ~/.agent_memory */
    uint32_t n_ctx;            /* tokens; default: the model's */
    size_t kv_memory_bytes;    /* budget for attention state in memory */
    uint32_t kv_bits_k, kv_bits_v; /* 16, 8, 5 or 4; default 5 and 4 */
    uint32_t n_threads;        /* default: the machine's cores */
    uint32_t max_parallel;     /* turns at once; default 16 */
    uint64_t seed;
} am_config;

int am_runtime_open(const am_config *config, am_runtime **out, char *err, size_t err_size);
void am_runtime_close(am_runtime *runtime); /* persists everything first */
const char *am_version(void);

/* Called with each piece of the answer as it is made, on a thread of the runtime; return nonzero to stop. */
typedef int am_piece_fn(void *arg, const char *text, size_t n);

typedef struct am_turn_params {
    const char *agent;    /* name; NULL: whoever has the longest stored prefix of this conversation, else a new agent */
    const char *messages; /* JSON array in OpenAI's form: the whole conversation so far, ending with what is to be answered. Contents in parts, calls with
                           * arguments as text, system messages that the model's template does not know: all as the server takes them */
    const char *tools;    /* JSON array in OpenAI's form, or NULL */
    uint32_t max_tokens;  /* 0: as many as fit */
    float temperature;    /* negative: the model's default; 0: greedy */
    uint64_t seed;        /* 0: random */
    am_piece_fn *on_piece; /* may be NULL */
    /* Called while the prompt is read, n_done of n_total tokens; nonzero stops the turn. May be NULL. */
    int (*on_prefill)(void *arg, uint32_t n_done, uint32_t n_total);
    void *arg; /* of both */
} am_turn_params;

typedef struct am_reply {
    char *text;
    char agent[201];
    const char *finish_reason; /* "stop" or "length"; static */
    const char *tier;          /* "hot", "warm" or "cold": where the reused state came from; static */
    uint32_t prompt_tokens, cached_tokens, completion_tokens;
    double first_token_ms;
} am_reply;
void am_reply_free(am_reply *reply);

/* Lets the model answer. The agent's state is durable when it returns. *reply is set in every case. */
int am_runtime_turn(am_runtime *runtime, const am_turn_params *turn, am_reply *reply, char *err, size_t err_size);

/* Agents: fork copies one under a new name (its blocks are shared), rm forgets it, in memory and on disk. list calls fn for each until it
 * returns nonzero. */
int am_runtime_fork(am_runtime *runtime, const char *from, const char *to, char *err, size_t err_size);
int am_runtime_rm(am_runtime *runtime, const char *agent, char *err, size_t err_size);
int am_runtime_list(am_runtime *runtime, int (*fn)(void *arg, const char *agent, uint32_t n_tokens, const char *tier), void *arg);

#ifdef __cplusplus
}
#endif
#endif
