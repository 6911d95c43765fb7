/* Owns the table of settings: what exists, its range and default, what it means, and which commands know it. */
#include "main/setting.h"

#include "main/crash.h"

#define S AM_CMD_SERVE
#define C AM_CMD_CHAT
#define A AM_CMD_AGENTS
#define E AM_CMD_EVAL
#define K AM_CMD_KEYS
#define D AM_CMD_DOCTOR
#define P AM_CMD_STOP
#define Q AM_CMD_PS
#define H AM_CMD_HELP
#define T AM_CMD_TEXT
#define L AM_CMD_LOGITS
#define W AM_CMD_SHOW
#define V AM_CMD_CONVERT
#define O AM_CMD_OPERATE
#define I AM_CMD_LIST
#define F AM_CMD_PULL
#define X AM_CMD_RM
#define R AM_RELOADS
#define AT(field) offsetof(am_settings, field)
#define GIB 1073741824.0

const am_setting am_setting_table[] = {
    {"config", AM_SET_TEXT, AT(config), 0, 0, "", "FILE", S | C | A | E | K | D | P | Q | W | O | I | F | X, "YAML file of settings (default: config.yaml in the data folder, when there is one); show: a model's config.json"},
    {"host", AM_SET_TEXT, AT(host), 0, 0, "127.0.0.1", "ADDRESS", S | C | A | D | P | Q | O | I | X, "address to listen on, or of the server to talk to"},
    {"port", AM_SET_COUNT, AT(port), 0, 65535, "8000", "N", S | C | A | D | P | Q | O | I | X, "port; 0: any free one"},
    {"data-dir", AM_SET_TEXT, AT(data_dir), 0, 0, "", "DIR", S | C | A | E | K | D | P | Q | O | W | V | L | I | F | X, "where agents are kept (default: ~/.agent_memory)"},
    {"model", AM_SET_PATHS, AT(models), 0, 0, "", "[NAME=]MODEL", S | C | A | E | L | W | I, "model folder, as Hugging Face or MLX lay it out, GGUF file, or the name of a pulled one (default: the embedded memo-28m); serve: may be repeated"},
    {"models-dir", AM_SET_TEXT, AT(models_dir), 0, 0, "", "DIR", S | C | A | E | L | W | V | I | F | X, "where pulled models are kept (default: models in the data folder)"},
    {"default-model", AM_SET_TEXT, AT(default_model), 0, 0, "", "NAME", S, "model of requests that name none (default: the first)"},
    {"model-memory", AM_SET_SIZE, AT(model_memory_bytes), 0, 16384 * GIB, "0", "SIZE", S, "most that loaded models may take together, with their attention state; 0: three quarters of the machine's"},
    {"model-idle", AM_SET_TIME, AT(model_idle_ms), 0, 4294967295.0, "0", "TIME", S, "time without requests after which a model leaves memory; 0: it stays"},
    {"packed-from", AM_SET_SIZE, AT(packed_least_bytes), 0, 16384 * GIB, "256M", "SIZE", S | C, "keep the weights of models from this size on packed in the data folder too, for quick starts; 0: of none"},
    {"ctx", AM_SET_COUNT, AT(ctx), 0, 16777216, "0", "TOKENS", S | C | W, "longest conversation; 0: what the model was made for"},
    {"kv-memory", AM_SET_SIZE, AT(kv_memory_bytes), 0, 16384 * GIB, "0", "SIZE", S | C | A | W, "memory for agents' attention state; 0: a quarter of the machine's"},
    {"kv-bits", AM_SET_BITS, AT(bits_k), 4, 32, "5,4", "K,V", S | C | A | L | W, "bits of cached keys and values: 16, 8, 5 or 4 (32 for tests)"},
    {"disk-quota", AM_SET_SIZE, AT(disk_bytes), 0, 1048576 * GIB, "0", "SIZE", S | C, "most that stored blocks may take on disk; 0: no limit"},
    {"unnamed-agents", AM_SET_COUNT, AT(unnamed_agents), 0, 1e9, "256", "N", S, "agents of requests without a name that each tenant may have under a model; for one more the least recently used is forgotten; 0: no limit"},
    {"durability", AM_SET_CHOICE, AT(durability), 0, 0, "always", "always|everysec|no", S | C, "when a finished turn is synced to disk"},
    {"threads", AM_SET_COUNT, AT(threads), 0, 1024, "0", "N", S | C | A | E | L | V | W, "compute threads; 0: one a core, as far as affinity and a container's quota allow"},
    {"cpus", AM_SET_TEXT, AT(cpus), 0, 0, "", "LIST", S | C, "processors that compute threads stay on, one each, like 0-3,8 (default: where the system puts them)"},
    {"isa", AM_SET_TEXT, AT(isa), 0, 0, "", "NAME", S | C | A | E | L | D | V | W, "kernel table to use (default: the best this machine has)"},
    {"seed", AM_SET_COUNT, AT(seed), 0, 9007199254740992.0, "0", "N", S | C | E, "base of the random draws of requests without a seed; 0: from the system"},
    {"parallel", AM_SET_COUNT, AT(parallel), 1, 4096, "16", "N", S, "requests that run at once"},
    {"queue", AM_SET_COUNT, AT(queue), 1, 1000000, "256", "N", S, "requests that wait; one more gets 429"},
    {"chunk", AM_SET_COUNT, AT(chunk_tokens), 1, 256, "256", "TOKENS", S | C | L, "longest piece of a prompt in one step"},
    {"step-time", AM_SET_TIME, AT(step_ms), 1, 60000, "100ms", "TIME", S, "longest time between two tokens of an answer to aim for while others' prompts are read"},
    {"lookup", AM_SET_CHOICE, AT(lookup), 0, 0, "auto", "auto|on|off", S | C, "guess coming tokens from what the conversation has said and check them together: where it pays, always, never"},
    {"max-body", AM_SET_SIZE, AT(max_body_bytes), 1024, 1 * GIB, "32M", "SIZE", S | R, "largest request body; more gets 413"},
    {"max-messages", AM_SET_COUNT, AT(max_messages), 1, 10000000, "10000", "N", S | R, "most messages in one request"},
    {"max-connections", AM_SET_COUNT, AT(max_connections), 1, 1000000, "4096", "N", S | R, "most open connections"},
    {"max-outbox", AM_SET_SIZE, AT(max_outbox_bytes), 65536, 1 * GIB, "8M", "SIZE", S | R, "unread output of one stream before it is given up"},
    {"keep-alive", AM_SET_TIME, AT(keep_alive_ms), 100, 3600000, "5s", "TIME", S | R, "comment on streams that are silent for so long"},
    {"head-timeout", AM_SET_TIME, AT(head_timeout_ms), 100, 3600000, "10s", "TIME", S | R, "time for a request's whole head to arrive"},
    {"idle-timeout", AM_SET_TIME, AT(idle_timeout_ms), 100, 86400000, "75s", "TIME", S | R, "time before an idle connection is closed"},
    {"drain", AM_SET_TIME, AT(drain_ms), 0, 86400000, "30s", "TIME", S | R, "time that running requests get at shutdown"},
    {"strict-model", AM_SET_FLAG, AT(strict_model), 0, 0, "no", NULL, S | R, "answer 404 when a request names another model; with several models that is the default"},
    {"api-key", AM_SET_SECRET, AT(api_key), 0, 0, "", "KEY", S | C | A | R, "key that requests must show, for one tenant; better in AGENT_MEMORY_API_KEY than on a command line"},
    {"admin-key", AM_SET_SECRET, AT(admin_key), 0, 0, "", "KEY", S | A | Q | R | O | I | X, "key of the admin's endpoints"},
    {"admin-remote", AM_SET_FLAG, AT(admin_remote), 0, 0, "no", NULL, S | R, "admin endpoints also from other machines, with the admin key"},
    {"allow-no-auth", AM_SET_FLAG, AT(allow_no_auth), 0, 0, "no", NULL, S | R, "listen on a public address though there are no keys"},
    {"cors-origin", AM_SET_LIST, AT(cors_origins), 0, 0, "", "ORIGIN", S | R, "origin whose pages may use this server, like https://app.example; may be repeated"},
    {"allow-host", AM_SET_LIST, AT(allow_hosts), 0, 0, "", "NAME", S | R, "further name that the Host header may have, as behind a proxy; may be repeated"},
    {"admin", AM_SET_FLAG, AT(admin), 0, 0, "no", NULL, K, "the key opens the admin's endpoints, and no agents"},
    {"note", AM_SET_TEXT, AT(note), 0, 0, "", "TEXT", K, "what the key is for, shown by keys list"},
    {"max-agents", AM_SET_COUNT, AT(max_agents), 0, 1e12, "0", "N", K, "agents that the tenant may have; 0: no limit"},
    {"max-disk", AM_SET_SIZE, AT(max_disk_bytes), 0, 1048576 * GIB, "0", "SIZE", K, "what the tenant's agents may take on disk; 0: no limit"},
    {"max-rate", AM_SET_COUNT, AT(max_rate), 0, 1e9, "0", "N", K, "requests a minute; 0: no limit"},
    {"max-parallel", AM_SET_COUNT, AT(max_parallel), 0, 1e6, "0", "N", K, "requests of the tenant that may run at once; 0: no limit"},
    {"log-format", AM_SET_CHOICE, AT(log_format), 0, 0, "text", "text|json", S | C | A | E | K | T | L | R | D | P | Q | W | V | O | I | F | X, "form of log lines, on standard error"},
    {"log-level", AM_SET_CHOICE, AT(log_level), 0, 0, "info", "debug|info|warn|error|off", S | C | A | E | K | T | L | R | D | P | Q | W | V | O | I | F | X, "least that is logged; the commands of the terminal: warn"},
    {"crash-test", AM_SET_CHOICE, AT(crash_test), 0, 0, "no", AM_CRASH_KINDS, S, "crash in the first request, to see what a crash reports"},
    {"log-content", AM_SET_FLAG, AT(log_content), 0, 0, "no", NULL, S | R, "log prompts and answers too"},
    {"agent", AM_SET_TEXT, AT(agent), 0, 0, "", "NAME", C, "agent to talk to; its conversation is kept and continued"},
    {"system", AM_SET_TEXT, AT(system), 0, 0, "", "TEXT", C, "system message of a new conversation"},
    {"temperature", AM_SET_NUMBER, AT(temperature), -1, 2, "-1", "N", C, "0: always the likeliest; negative: the model's"},
    {"max-tokens", AM_SET_COUNT, AT(max_tokens), 0, 16777216, "0", "N", C, "longest answer; 0: as long as fits"},
    {"repair", AM_SET_FLAG, AT(repair), 0, 0, "no", NULL, A, "verify: move what is wrong to refused/, remove orphans; no server may run"},
    {"deep", AM_SET_FLAG, AT(deep), 0, 0, "no", NULL, A, "verify: compute every agent of the model again and compare bit for bit"},
    {"json", AM_SET_FLAG, AT(json), 0, 0, "no", NULL, A | D | Q | W | O | I | F | X, "print JSON; pull: a line for each event"},
    {"memory", AM_SET_FLAG, AT(memory), 0, 0, "no", NULL, Q, "ps: also the parts of the process's memory"},
    {"tensors", AM_SET_FLAG, AT(tensors), 0, 0, "no", NULL, W, "show: list the tensors that the architecture asks for"},
    {"load", AM_SET_FLAG, AT(load), 0, 0, "no", NULL, W, "show: load it too: time, kernel table, fingerprint"},
    {"hub", AM_SET_TEXT, AT(hub), 0, 0, "", "URL", F, "hub to pull from, or a mirror of it (default: HF_ENDPOINT, else https://huggingface.co)"},
    {"sha256", AM_SET_TEXT, AT(sha256), 0, 0, "", "HEX", F, "what the one file must have; a hub says it itself"},
    {"connections", AM_SET_COUNT, AT(connections), 1, 64, "8", "N", F, "requests to the hub at once, of all files together"},
    {"retries", AM_SET_COUNT, AT(retries), 0, 1000, "8", "N", F, "tries of a file after the first, counted from the last byte that came"},
    {"silence", AM_SET_TIME, AT(silence_ms), 1000, 3600000, "30s", "TIME", F, "silence of a server after which a connection is given up"},
    {"yes", AM_SET_FLAG, AT(yes), 0, 0, "no", NULL, X, "do not ask"},
    {"agents", AM_SET_FLAG, AT(agents_too), 0, 0, "no", NULL, X, "forget its agents too, of every tenant"},
    {"to", AM_SET_CHOICE, AT(to), 0, 0, "mlx-4", "mlx-4|mlx-8|gguf-q4_0|gguf-q8_0|gguf-f16|gguf-bf16|gguf-f32", V, "form to write: an MLX folder or a GGUF file"},
    {"fix", AM_SET_FLAG, AT(fix), 0, 0, "no", NULL, D, "mend what cannot do harm: permissions, temporary files of a crash"},
    {"wait", AM_SET_TIME, AT(wait_ms), 0, 86400000, "40s", "TIME", P | O, "stop: time the server gets to end by itself; drain, unload, swap: time that running requests get (default there: its --drain)"},
    {"force", AM_SET_FLAG, AT(force), 0, 0, "no", NULL, P | F | X, "stop: SIGKILL as the last resort when it does not; pull: also a model that cannot be loaded here; rm: unload it first where a server has it"},
    {"all", AM_SET_FLAG, AT(all), 0, 0, "no", NULL, O, "clear: every agent of every tenant"},
    {"tenant", AM_SET_TEXT, AT(tenant), 0, 0, "", "NAME", O, "evict, clear: of this tenant"},
    {"text", AM_SET_TEXT, AT(text), 0, 0, "", "FILE", E, "text to measure on (default: random tokens)"},
    {"windows", AM_SET_COUNT, AT(windows), 0, 1000000, "6", "N", E, "pieces of the text to read"},
    {"window-tokens", AM_SET_COUNT, AT(window_tokens), 512, 16777216, "2048", "TOKENS", E, "length of a piece; counted from its second block of 256 on"},
    {"needles", AM_SET_COUNT, AT(needles), 0, 10000, "0", "N", E, "conversations of four facts to ask for at each distance; the text lies between"},
    {"man", AM_SET_FLAG, AT(man), 0, 0, "no", NULL, H, "print the manual page, for man -l -"},
    {"completion", AM_SET_CHOICE, AT(completion), 0, 0, "none", "none|bash|zsh|fish", H, "print the shell's completion"},
    {"tokenizer", AM_SET_TEXT, AT(tokenizer), 0, 0, "", "PATH", T, "model folder, tokenizer.json, tokenizer.model, tiktoken or GGUF file (default: the embedded model's)"},
    {"template", AM_SET_TEXT, AT(template), 0, 0, "", "FILE", T, "chat template to render instead of the tokenizer's own"},
    {"ids", AM_SET_TEXT, AT(ids), 0, 0, "", "FILE", L, "JSON list of lists of token ids"},
    {"out", AM_SET_TEXT, AT(out), 0, 0, "", "FILE", L, "safetensors file to write: logits.I, and greedy.I with --greedy"},
    {"greedy", AM_SET_COUNT, AT(greedy), 0, 1e6, "0", "N", L, "likeliest tokens to add after each list"},
    {"dtype", AM_SET_CHOICE, AT(dtype), 0, 0, "f32", "f32", L, "type of activations; there is one"},
    {"local", AM_SET_FLAG, AT(local), 0, 0, "no", NULL, C | A, "do not look for a running server"},
};
const size_t am_n_settings = sizeof am_setting_table / sizeof am_setting_table[0];
_Static_assert(sizeof am_setting_table / sizeof am_setting_table[0] <= AM_MAX_SETTINGS, "am_settings.origin is too short");
