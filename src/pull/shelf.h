/* The folder of models that were pulled: how they are found by name, listed and removed.
 *
 * A name is ORG/NAME (its folder, or the only GGUF file in it) or ORG/NAME:CHOICE (a GGUF file of several). Folders that somebody put there by hand
 * count as well; what is not whole is not there. */
#ifndef AM_PULL_SHELF_H
#define AM_PULL_SHELF_H

#include "pull/source.h"

typedef struct am_shelf_model {
    char name[480], path[4096]; /* path: as am_model_load takes it */
    uint64_t bytes, modified_s;
    bool gguf;
} am_shelf_model;

/* AM_ENOTFOUND: there is none (also when text is no such name at all); AM_EINVAL: several, the message lists them. */
am_status am_shelf_find(const char *models_dir, const char *text, am_shelf_model *out, am_error *err);
am_status am_shelf_each(const char *models_dir, am_status (*fn)(void *arg, const am_shelf_model *model), void *arg, am_error *err); /* in no order */
/* Takes its files away, and what a broken-off pull of it left. *bytes: of both. AM_ENOTFOUND: neither. */
am_status am_shelf_remove(const char *models_dir, const char *text, uint64_t *bytes, am_error *err);

/* For the pull itself: where its files are while they come, and where they go then. */
am_status am_shelf_stage(const char *models_dir, const am_source *source, char out[4096], am_error *err);
am_status am_shelf_place(const char *models_dir, const am_source *source, char out[4096], am_error *err);
am_status am_remove_tree(const char *path, uint64_t *bytes, am_error *err); /* bytes: added to; nothing there is fine */

#endif
