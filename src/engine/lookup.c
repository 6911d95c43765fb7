/* Owns the index over a sequence's tokens and the guess that follows it.
 *
 * Two chained hash tables, of runs of four tokens and of two, hold the position behind every run. A place is looked for only when the guess
 * failed or the agreement is still short: of the LATEST places with the hash of the last four tokens (else two) the one with the longest
 * agreement is taken, the latest of equals. A suffix automaton would find the longest of all, for ten times the memory; what it would find
 * besides are places that were passed over LATEST times since.
 *
 * When a guess was wrong and no place is found, the copy may go on behind the token that was replaced (a name changed, a number edited): the
 * guess stays one further, as a class of its own, so its odds are measured like all others'. */
#include "engine/lookup.h"

#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

enum {
    LATEST = 8,
    MAX_LOST = 4,
    MAX_AGREE = 64,    /* counted no further */
    SHORT_AGREE = 8,   /* a longer agreement is still looked for below */
    MIN_SLOTS = 256
};
static const uint32_t run_length[2] = {4, 2};
static const float own_fade = 0.94f, shared_fade = 0.99f, shared_weight = 4;

void am_lookup_odds_init(am_lookup_odds *odds) {
    static const float first[AM_LOOKUP_CLASSES] = {0.3f, 0.3f, 0.4f, 0.5f, 0.65f, 0.8f, 0.9f, 0.95f};
    for (int i = 0; i < AM_LOOKUP_CLASSES; i++) {
        odds->seen[i] = 2;
        odds->right[i] = 2 * first[i];
    }
}

static uint32_t class_of(uint32_t n_agree) {
    static const uint32_t least[AM_LOOKUP_CLASSES] = {0, 2, 3, 4, 6, 9, 17, 33};
    uint32_t class = AM_LOOKUP_CLASSES - 1;
    while (n_agree < least[class]) class--;
    return class;
}

static float odds_of(const am_lookup *l, const am_lookup_odds *all, uint32_t n_agree) {
    uint32_t class = class_of(n_agree);
    float shared = all->right[class] / all->seen[class];
    return (l->odds.right[class] + shared_weight * shared) / (l->odds.seen[class] + shared_weight);
}

static void count(am_lookup_odds *odds, uint32_t class, bool right, float fade) {
    odds->seen[class] = odds->seen[class] * fade + 1;
    odds->right[class] = odds->right[class] * fade + (right ? 1 : 0);
}

am_status am_lookup_init(am_lookup *l, uint32_t cap, am_error *err) {
    *l = (am_lookup){.cap = cap};
    uint32_t n_slots = MIN_SLOTS;
    while (n_slots < cap && n_slots < 1u << 30) n_slots *= 2;
    l->mask = n_slots - 1;
    bool ok = (l->tokens = am_calloc((size_t)cap + 1, sizeof *l->tokens)) != NULL;
    for (int i = 0; i < 2 && ok; i++) {
        l->before[i] = am_calloc((size_t)cap + 1, sizeof *l->before[i]);
        l->last[i] = am_calloc(n_slots, sizeof *l->last[i]);
        ok = l->before[i] && l->last[i];
    }
    if (ok) return AM_OK;
    am_lookup_free(l);
    return am_fail(err, AM_ENOMEM, "no memory to look up drafts in %u tokens", cap);
}

void am_lookup_free(am_lookup *l) {
    free(l->tokens);
    for (int i = 0; i < 2; i++) {
        free(l->before[i]);
        free(l->last[i]);
    }
    *l = (am_lookup){0};
}

/* Of the run that ends before position `end`. */
static uint32_t slot_of(const am_lookup *l, int table, uint32_t end) {
    uint64_t h = 0x9e3779b97f4a7c15u;
    for (uint32_t i = end - run_length[table]; i < end; i++) {
        h = (h ^ (uint32_t)l->tokens[i]) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return (uint32_t)h & l->mask;
}

static void append(am_lookup *l, int32_t token) {
    l->tokens[l->n++] = token;
}

/* Notes the position behind the last token; after a search, which would find itself otherwise. */
static void note_end(am_lookup *l) {
    for (int i = 0; i < 2; i++) {
        if (l->n < run_length[i]) continue;
        uint32_t *last = &l->last[i][slot_of(l, i, l->n)];
        l->before[i][l->n] = *last;
        *last = l->n;
    }
}

static uint32_t agreement(const am_lookup *l, uint32_t at) {
    uint32_t n = 0;
    while (n < MAX_AGREE && n < at && l->tokens[at - 1 - n] == l->tokens[l->n - 1 - n]) n++;
    return n;
}

/* A place with more than n_agree tokens of agreement. */
static bool find(am_lookup *l, uint32_t n_agree) {
    bool found = false;
    for (int i = 0; i < 2 && !found; i++) {
        if (l->n < run_length[i]) continue;
        uint32_t at = l->last[i][slot_of(l, i, l->n)];
        for (int n = 0; at && n < LATEST; n++, at = l->before[i][at]) {
            uint32_t agree = agreement(l, at);
            if (agree <= n_agree || agree < run_length[i]) continue;
            l->at = at;
            l->n_agree = n_agree = agree;
            found = true;
        }
    }
    return found;
}

void am_lookup_fill(am_lookup *l, const int32_t *tokens, uint32_t n) {
    for (uint32_t i = 0; i < n && l->n < l->cap; i++) {
        append(l, tokens[i]);
        note_end(l);
    }
    l->at = l->n;
}

void am_lookup_begin(am_lookup *l, bool predicted) {
    l->at = l->n;
    if (predicted && l->n > 0) {
        l->at = 0; /* the client says so: believed like an agreement of some tokens, until it is wrong */
        l->n_agree = SHORT_AGREE;
    } else if (l->n > 0) {
        uint32_t end = l->n; /* the last token was noted already: its place is the end itself */
        for (int i = 0; i < 2; i++)
            if (end >= run_length[i]) l->last[i][slot_of(l, i, end)] = l->before[i][end];
        find(l, 0);
        note_end(l);
    }
}

void am_lookup_add(am_lookup *l, int32_t token, am_lookup_odds *all) {
    if (!l->tokens || l->n == l->cap) return;
    bool guessed = l->at < l->n, right = guessed && l->tokens[l->at] == token;
    if (guessed) {
        uint32_t class = class_of(l->n_agree);
        count(&l->odds, class, right, own_fade);
        count(all, class, right, shared_fade);
    }
    append(l, token);
    if (right) {
        l->at++;
        if (l->n_agree < MAX_AGREE) l->n_agree++;
        l->n_lost = 0;
        if (l->n_agree < SHORT_AGREE) find(l, l->n_agree);
    } else {
        uint32_t next = guessed && l->n_lost < MAX_LOST ? l->at + 1 : l->n, n_lost = l->n_lost + 1;
        l->at = l->n;
        l->n_lost = 0;
        if (!find(l, 0) || (next < l->n && odds_of(l, all, 0) > odds_of(l, all, l->n_agree))) {
            l->at = next;
            l->n_agree = 0;
            l->n_lost = next < l->n ? n_lost : 0;
        }
    }
    note_end(l);
}

uint32_t am_lookup_draft(const am_lookup *l, const am_lookup_odds *all, uint32_t most, int32_t *draft, float *odds) {
    if (!l->tokens || l->at >= l->n) return 0;
    uint32_t n_known = l->n - l->at;
    float all_right = 1;
    for (uint32_t i = 0; i < most; i++) {
        draft[i] = i < n_known ? l->tokens[l->at + i] : draft[i - n_known]; /* a repetition goes on in itself */
        odds[i] = all_right *= odds_of(l, all, l->n_agree + i);
    }
    return most;
}
