/* Owns completion for shells, from the tables of commands and settings: commands, their verbs, options of the command at hand, choices, files. */
#include "main/commands.h"

#include "main/setting.h"

#include <string.h>

/* The words of "add [TENANT] | list | rm ID..." that are typed as they stand, separated by blanks. */
static void put_verbs(FILE *to, const char *args) {
    for (const char *p = args; *p;) {
        while (*p == ' ' || *p == '|') p++;
        size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyz-");
        if (n) fprintf(to, "%.*s ", (int)n, p);
        p = strchr(p, '|');
        if (!p) return;
    }
}

static void put_options(FILE *to, unsigned bit) {
    for (size_t i = 0; i < am_n_settings; i++)
        if (am_setting_table[i].commands & bit) fprintf(to, "--%s ", am_setting_table[i].name);
    fputs("--help", to);
}

static bool is_path(const am_setting *s) {
    return s->kind == AM_SET_TEXT && s->arg && (strcmp(s->arg, "FILE") == 0 || strcmp(s->arg, "DIR") == 0);
}

static void put_choices(FILE *to, const char *arg) {
    for (; *arg; arg++) fputc(*arg == '|' ? ' ' : *arg, to);
}

static void write_bash(FILE *to) {
    fputs("# bash completion of agent-memory " AM_VERSION "\n_agent_memory() {\n    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words\n    COMPREPLY=()\n"
          "    case $prev in\n", to);
    for (size_t i = 0; i < am_n_settings; i++) {
        const am_setting *s = &am_setting_table[i];
        if (s->kind == AM_SET_CHOICE) {
            fprintf(to, "    --%s) COMPREPLY=($(compgen -W \"", s->name);
            put_choices(to, s->arg);
            fputs("\" -- \"$cur\")); return ;;\n", to);
        } else if (is_path(s)) {
            fprintf(to, "    --%s) COMPREPLY=($(compgen %s -- \"$cur\")); return ;;\n", s->name, strcmp(s->arg, "DIR") == 0 ? "-d" : "-f");
        } else if (s->kind != AM_SET_FLAG) {
            fprintf(to, "    --%s) return ;;\n", s->name);
        }
    }
    fputs("    esac\n    if ((COMP_CWORD == 1)); then\n        words=\"", to);
    for (size_t i = 0; am_command_at(i); i++) fprintf(to, "%s ", am_command_at(i)->name);
    fputs("--help --version\"\n    else\n        case ${COMP_WORDS[1]} in\n", to);
    for (size_t i = 0; am_command_at(i); i++) {
        const am_command *c = am_command_at(i);
        fprintf(to, "        %s) words=\"", c->name);
        put_verbs(to, c->args);
        if (strcmp(c->name, "help") == 0)
            for (size_t k = 0; am_command_at(k); k++) fprintf(to, "%s ", am_command_at(k)->name);
        if (c->bit) put_options(to, c->bit);
        fputs("\" ;;\n", to);
    }
    fputs("        esac\n    fi\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -F _agent_memory agent-memory\n", to);
}

static void write_fish(FILE *to) {
    fputs("# fish completion of agent-memory " AM_VERSION "\ncomplete -c agent-memory -f\n", to);
    for (size_t i = 0; am_command_at(i); i++) {
        const am_command *c = am_command_at(i);
        fprintf(to, "complete -c agent-memory -n __fish_use_subcommand -a %s -d \"%s\"\n", c->name, c->help);
        fprintf(to, "complete -c agent-memory -n \"__fish_seen_subcommand_from %s\" -a \"", c->name);
        put_verbs(to, c->args);
        fputs("\"\n", to);
        for (size_t k = 0; c->bit && k < am_n_settings; k++) {
            const am_setting *s = &am_setting_table[k];
            if (!(s->commands & c->bit)) continue;
            fprintf(to, "complete -c agent-memory -n \"__fish_seen_subcommand_from %s\" -l %s", c->name, s->name);
            if (s->kind == AM_SET_CHOICE) {
                fputs(" -x -a \"", to);
                put_choices(to, s->arg);
                fputc('"', to);
            } else if (s->kind != AM_SET_FLAG) {
                fputs(is_path(s) ? " -r -F" : " -x", to);
            }
            fputc('\n', to);
        }
    }
}

void am_completion_write(FILE *to, const char *shell) {
    if (strcmp(shell, "fish") == 0) {
        write_fish(to);
        return;
    }
    if (strcmp(shell, "zsh") == 0) fputs("#compdef agent-memory\nautoload -U +X bashcompinit && bashcompinit\n", to);
    write_bash(to);
}
