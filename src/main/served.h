/* The models of `serve`, from --model (NAME=PATH, repeatable) or the list `models:` of the config file. */
#ifndef AM_MAIN_SERVED_H
#define AM_MAIN_SERVED_H

#include "main/setting.h"

#include <yaml.h>

/* models: of a config file, a list of mappings (or of paths) into settings->file_models. */
am_status am_served_parse(am_settings *settings, const char *path, yaml_document_t *doc, yaml_node_t *list, am_error *err);
/* Which of both counts: settings->entries, and settings->model for commands of one model. After all sources were read. */
am_status am_served_choose(am_settings *settings, am_error *err);

/* Where pulled models are: --models-dir, or models in the data folder. */
am_status am_models_dir(const am_settings *settings, char out[4096], am_error *err);
/* A model as people name it: a path that exists, the name of one of `models:`, or a pulled one's. *path and *name: in the settings' arena; *name NULL: as
 * the path says. What is none of these comes back as a path. AM_EINVAL: a name of several. */
am_status am_served_find(am_settings *settings, const char *text, const char **path, const char **name, am_error *err);

#endif
