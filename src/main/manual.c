/* Owns the manual page, agent-memory(1), in troff's man macros. Its words are those of the two tables, so it cannot say anything else than --help. */
#include "main/commands.h"

#include "main/setting.h"

#include <string.h>

/* Text with what troff would take for its own escaped: backslashes, dashes, and dots and quotes at a line's start. */
static void put_text(FILE *to, const char *text) {
    bool start = true;
    for (; *text; text++) {
        if (start && (*text == '.' || *text == '\'')) fputs("\\&", to);
        start = *text == '\n';
        if (*text == '\\') fputs("\\e", to);
        else if (*text == '-') fputs("\\-", to);
        else fputc(*text, to);
    }
}

static void put_command(FILE *to, const am_command *c) {
    fputs(".TP\n.B ", to);
    put_text(to, c->name);
    if (*c->args) {
        fputs(" \\fR", to);
        put_text(to, c->args);
    }
    fputc('\n', to);
    put_text(to, c->help);
    fputs(".\n", to);
    if (*c->more) {
        fputs(".br\n", to);
        put_text(to, c->more);
        fputc('\n', to);
    }
}

static void put_setting(FILE *to, const am_setting *s) {
    fputs(".TP\n.B \\-\\-", to);
    put_text(to, s->name);
    if (s->arg) {
        fputs(" \\fI", to);
        put_text(to, s->arg);
        fputs("\\fR", to);
    }
    fputc('\n', to);
    put_text(to, s->help);
    if (s->kind != AM_SET_FLAG && *s->value && strcmp(s->value, "0") != 0 && strcmp(s->value, "-1") != 0) {
        fputs(" (default: ", to);
        put_text(to, s->value);
        fputc(')', to);
    }
    fputs(".\n", to);
    fputs("Of:", to);
    for (size_t i = 0; am_command_at(i); i++)
        if (am_command_at(i)->bit & s->commands) fprintf(to, " %s", am_command_at(i)->name);
    fprintf(to, "%s\n", s->commands & AM_RELOADS ? "; read again on SIGHUP." : ".");
}

void am_manual_write(FILE *to) {
    fputs(".TH AGENT\\-MEMORY 1 \"\" \"agent\\-memory " AM_VERSION "\" \"User Commands\"\n.SH NAME\nagent\\-memory \\- local inference whose agents never "
          "forget\n.SH SYNOPSIS\n.B agent\\-memory\n\\fICOMMAND\\fR [\\fIOPTION\\fR...]\n.SH DESCRIPTION\nServes a language model over the APIs of OpenAI and Anthropic. The "
          "attention state of every agent is kept, in memory and on disk, and is back in milliseconds.\n.SH COMMANDS\n", to);
    for (size_t i = 0; am_command_at(i); i++) put_command(to, am_command_at(i));
    fputs(".SH OPTIONS\nEach is also a variable of the environment, as AGENT_MEMORY_NAME, and a line of the config file, as \\fIname: value\\fR. The command line "
          "wins over the environment, and that over the file.\n", to);
    for (size_t i = 0; i < am_n_settings; i++) put_setting(to, &am_setting_table[i]);
    fputs(".SH FILES\n.TP\n.I ~/.agent_memory/config.yaml\nSettings; \\fBagent\\-memory config default\\fR prints one.\n.TP\n.I ~/.agent_memory/keys.json\n"
          "Hashes of API keys; see \\fBagent\\-memory keys\\fR.\n.TP\n.I ~/.agent_memory/caches/\nThe agents: *.safetensors. Any of them may be deleted at any "
          "time.\n.SH SIGNALS\n.TP\n.B SIGTERM, SIGINT\nEnd after everything was written to disk; a second one cuts running answers short.\n.TP\n.B SIGHUP\n"
          "Without a controlling terminal (as a service): read settings and keys again. On a terminal: end.\n.SH EXIT STATUS\n0: done. 1: it "
          "failed, with the reason on standard error. 2: the command line or a setting is wrong.\n", to);
}
