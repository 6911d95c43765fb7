/* The program: one table of commands, from which the dispatch and the help come. */
#include "main/commands.h"
#include "main/eval.h"
#include "main/operate.h"

#include "main/crash.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static int command_version(am_settings *settings);
static int command_help(am_settings *settings);

static const am_command commands[] = {
    {"serve", "", AM_CMD_SERVE, 0, 0, am_command_serve, "serve the model over HTTP (the APIs of OpenAI and Anthropic, and a page at /)",
     "Ends on SIGTERM or Ctrl-C after everything was written to disk; a second signal cuts running answers short."},
    {"chat", "", AM_CMD_CHAT, 0, 0, am_command_chat, "chat in the terminal, with a running server or by itself",
     "Talks to the server on --host and --port when one answers, else loads the model itself. /help lists what can be typed.\n"
     "When standard input is not a terminal, every line is a message."},
    {"agents", "list | show NAME | rm NAME... | fork FROM TO | verify", AM_CMD_AGENTS, 0, 1000000, am_command_agents,
     "list, show, remove, fork and verify agents",
     "Asks the server on --host and --port when one answers, else works on the data folder itself.\n"
     "verify reads every file of the data folder, also beside a running server: exit code 0 all is well, 3 something is wrong, 1 it could not look."},
    {"pull", "ORG/NAME[@REVISION][:CHOICE] | URL", AM_CMD_PULL, 1, 1, am_command_pull, "fetch a model from Hugging Face, a mirror of it, or an address",
     "Of a repository with safetensors, the files that the model needs; of one with GGUF files, the one that CHOICE names (a file, or a quantisation like Q8_0;\n"
     "without it Q4_K_M). URL: of a .gguf file. Broken off, the same command goes on where it was; the model is there when all of it came and was checked.\n"
     "The token is HF_TOKEN's, or the one that the hub's own tools keep. Exit code: 0 it is there, 1 it could not be had, 2 no such name or choice,\n"
     "3 what came was not what it should be, 130 interrupted."},
    {"list", "", AM_CMD_LIST, 0, 0, am_command_list, "list the models that were pulled or are configured", ""},
    {"rm", "NAME", AM_CMD_RM, 1, 1, am_command_rm, "remove a pulled model", "What its agents have said stays, for when the model is back. A model that a running server has in memory is left alone."},
    {"show", "[MODEL]", AM_CMD_SHOW, 0, 1, am_command_show, "what a model is and what its agents would take, from headers alone",
     "MODEL: a pulled or configured model's name, a folder, a GGUF file, or with --config a config.json alone. Nothing is loaded, unless --load says so. One row for each setting of --kv-bits: bytes a token, and\n"
     "for each context what one agent takes and how many fit into --kv-memory."},
    {"convert", "FROM TO", AM_CMD_CONVERT, 2, 2, am_command_convert, "write a model in another form",
     "FROM: a folder in any form that loads, or a GGUF file; TO: a folder (mlx), or a .gguf file (from GGUF, or a folder of a plain decoder). Interrupted, the same command goes on where it was, after\n"
     "reading back what is there. TO gets its weights' XXH3 beside it. A folder made from GGUF has no tokenizer: add the original's files."},
    {"text", "encode | decode | render | report", AM_CMD_TEXT, 1, 1, am_command_text, "tokens and templates, from JSON lines to JSON lines",
     "encode  {\"text\": ..., \"special\": true, \"add_special\": false}  gives  {\"ids\": [...], \"offsets\": [[a,b],...]}, bytes of the text\n"
     "decode  {\"ids\": [...], \"skip_special\": false}  gives  {\"text\": ...}\n"
     "render  {\"messages\": ..., \"tools\": ..., any variable}  gives  {\"text\": ...}\n"
     "report  says what the chat template can say, and whether histories only grow (docs/TEMPLATES.md)\n"
     "A line that fails gives {\"error\": {\"code\", \"message\", \"line\"}}, and the next one goes on."},
    {"logits", "--ids FILE --out FILE", AM_CMD_LOGITS, 0, 0, am_command_logits, "logits of every position of given token ids, to compare with other programs",
     "Goes the engine's way: blocks, chunks and sealing as in serve. --kv-bits 32 keeps an exact cache."},
    {"keys", "add [TENANT] | limit TENANT | list | show ID|TENANT | rm ID...", AM_CMD_KEYS, 0, 1000000, am_command_keys,
     "make, list and remove the API keys of serve",
     "add prints the new key once; only its hash is kept, in keys.json of the data folder. Every tenant has agents of its own, which no other tenant\n"
     "can see or measure; without a name the key is the default tenant's. --max-... set the tenant's limits (limit: those alone).\n"
     "A running server takes changes up within a second."},
    {"ps", "", AM_CMD_PS, 0, 0, am_command_ps, "models and agents in the memory of a running server; --memory: where all of its memory is", ""},
    {"status", "", AM_CMD_OPERATE, 0, 0, am_command_status, "models of a running server: state, memory, requests", ""},
    {"load", "MODEL", AM_CMD_OPERATE, 1, 1, am_command_load, "load a model of a running server", "Others leave when it needs their memory. When it cannot be loaded, they are back."},
    {"unload", "[MODEL]", AM_CMD_OPERATE, 0, 1, am_command_unload, "take a model (or all) out of memory; its agents are written first", "The next request for it loads it again."},
    {"swap", "MODEL [FROM]", AM_CMD_OPERATE, 1, 2, am_command_swap, "put a model in another's place (FROM; the default model)",
     "The other one's requests end, or are cancelled after --wait; its agents are written, and come back with it. The default moves along.\n"
     "A model that is missing, broken or too large changes nothing."},
    {"drain", "", AM_CMD_OPERATE, 0, 0, am_command_drain, "take no requests any more, end those that run, write everything", "Until resume."},
    {"pause", "", AM_CMD_OPERATE, 0, 0, am_command_pause, "let all answers stand still and requests wait, until resume", ""},
    {"resume", "", AM_CMD_OPERATE, 0, 0, am_command_resume, "end pause or drain", ""},
    {"evict", "[AGENT]", AM_CMD_OPERATE, 0, 1, am_command_evict, "move idle agents (or one) out of memory; they stay on disk", ""},
    {"clear", "AGENT | --tenant NAME | --all", AM_CMD_OPERATE, 0, 1, am_command_clear, "forget agents, in memory and on disk, of every model", "Those that run are left alone and counted."},
    {"clear-pool", "", AM_CMD_OPERATE, 0, 0, am_command_clear_pool, "cancel what runs, empty the pool and give its memory back", "What can be is written first."},
    {"doctor", "", AM_CMD_DOCTOR, 0, 0, am_command_doctor, "look for what is wrong with server, data folder and machine",
     "Each finding comes with what to do. --fix mends what cannot do harm; it never ends a process and never removes an agent.\n"
     "Exit code: 0 nothing is bad (there may be warnings), 3 something is, 1 it could not look."},
    {"stop", "", AM_CMD_STOP, 0, 0, am_command_stop, "end the server on --port, properly",
     "SIGTERM, then waits until the process is gone. A process that is no server of ours is left alone.\n"
     "Exit code: 0 it is gone (or there was none), 1 it is not, 3 it had to be killed (with --force)."},
    {"eval", "[K,V[:GROUP[,GROUP]][:plain]]...", AM_CMD_EVAL, 0, AM_EVAL_MAX_FORMS - 1, am_command_eval,
     "measure what forms of the cache lose: perplexity, divergence, recall",
     "A form: bits of keys and of values (32, 16, 8, 5 or 4), tokens that share a scale (32, 64, 128 or 256), plain: without rotation. Each is compared with\n"
     "an exact cache in float32, on one text, through the model's own pass. Without forms: 16,16 8,8 5,4 4,4."},
    {"config", "check | show | default", AM_CMD_SERVE, 0, 1, am_command_config, "check, show or print the settings of serve",
     "check reads file, environment and options as serve would and says what is wrong; show prints every setting with where it is from;\n"
     "default prints a commented config file with the defaults. A running server reads its settings again on SIGHUP (see docs/OPERATIONS.md)."},
    {"version", "", 0, 0, 0, command_version, "print the version", ""},
    {"help", "[COMMAND]", AM_CMD_HELP, 0, 1, command_help, "explain a command", ""},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

const am_command *am_command_at(size_t i) { return i < N_COMMANDS ? &commands[i] : NULL; }

static const am_command *command_find(const char *name) {
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static int command_unknown(const char *name) {
    const char *names[N_COMMANDS];
    for (size_t i = 0; i < N_COMMANDS; i++) names[i] = commands[i].name;
    const char *close = am_suggest(name, names, N_COMMANDS);
    fprintf(stderr, "agent-memory: unknown command '%s'", name);
    if (close) fprintf(stderr, " (did you mean '%s'?)", close);
    fputs("; see agent-memory help\n", stderr);
    return AM_EXIT_USAGE;
}

static void help_overview(FILE *to) {
    fputs("agent-memory " AM_VERSION ": local inference whose agents never forget\n\nusage: agent-memory COMMAND [OPTION...]\n\n", to);
    for (size_t i = 0; i < N_COMMANDS; i++) fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].help);
    fputs("\nagent-memory help COMMAND lists a command's options.\n", to);
}

static void help_command(FILE *to, const am_command *command) {
    fprintf(to, "usage: agent-memory %s%s%s%s\n\n%s", command->name, command->bit ? " [OPTION...]" : "", *command->args ? " " : "", command->args,
            command->help);
    fprintf(to, "%s%s\n", *command->more ? ".\n" : "\n", command->more);
    if (command->bit) {
        fputc('\n', to);
        am_settings_help(to, command->bit);
    }
}

static int command_version(am_settings *settings) {
    (void)settings;
    puts("agent-memory " AM_VERSION);
    return 0;
}

static int command_help(am_settings *settings) {
    static const char *const shells[] = {NULL, "bash", "zsh", "fish"};
    if (settings->man) {
        am_manual_write(stdout);
        return 0;
    }
    if (settings->completion) {
        am_completion_write(stdout, shells[settings->completion]);
        return 0;
    }
    if (settings->n_args == 0) {
        help_overview(stdout);
        return 0;
    }
    const am_command *command = command_find(settings->args[0]);
    if (!command) return command_unknown(settings->args[0]);
    help_command(stdout, command);
    return 0;
}

/* Operators look for "agent_memory" (ps, pkill -f), the file is called agent-memory: the process starts itself once more under that name.
 * Writing over argv in place would do for a path that contains the name, but not for a renamed or linked binary. */
static void take_name(char **argv) {
    static char name[] = "agent_memory";
    if (argv[0] && strcmp(argv[0], name) != 0) {
        argv[0] = name;
        execv("/proc/self/exe", argv);
    }
    prctl(PR_SET_NAME, name); /* else the kernel's short name would be "exe"; it also stands where there is no /proc */
}

int main(int argc, char **argv) {
    if (argc < 1) return AM_EXIT_USAGE;
    take_name(argv);
    if (argc < 2) {
        help_overview(stderr);
        return AM_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) name = "help";
    if (strcmp(name, "--version") == 0) name = "version";
    const am_command *command = command_find(name);
    if (!command) return command_unknown(name);

    am_settings settings;
    am_error err = {0};
    int code = AM_EXIT_USAGE;
    am_status loaded = am_settings_load(&settings, command->bit, argc - 2, argv + 2, &err);
    am_settings_hide(argc - 2, argv + 2);
    if (loaded) {
        fprintf(stderr, "agent-memory: %s\n", err.message);
    } else if (settings.want_help) {
        help_command(stdout, command);
        code = 0;
    } else if (settings.n_args < command->min_args || settings.n_args > command->max_args) {
        if (settings.n_args) fprintf(stderr, "agent-memory: %s does not take '%s'\n", command->name, settings.args[settings.n_args - 1]);
        fprintf(stderr, "usage: agent-memory %s %s\n", command->name, command->args);
    } else {
        am_log_setup((am_log_level)settings.log_level, settings.log_format == 1);
        am_crash_setup(settings.data_dir ? settings.data_dir : am_settings_home());
        am_crash_test((am_crash_kind)settings.crash_test);
        code = command->run(&settings);
    }
    am_settings_free(&settings);
    return code;
}
