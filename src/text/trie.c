/* Owns the trie over byte strings: nodes in breadth-first order, so that a node's children lie side by side with ascending
 * labels and need no pointers (nine bytes a node). Built from sorted keys in one sweep per depth; read-only afterwards. */
#include "text/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

typedef struct range { /* the sorted keys below a node */
    uint32_t from, to;
} range;

static int entry_order(const void *a, const void *b) {
    const am_trie_entry *x = a, *y = b;
    size_t n = x->key.n < y->key.n ? x->key.n : y->key.n;
    int c = n ? memcmp(x->key.p, y->key.p, n) : 0;
    if (c) return c;
    if (x->key.n != y->key.n) return x->key.n < y->key.n ? -1 : 1;
    return x->value < y->value ? -1 : x->value > y->value;
}

static bool trie_reserve(am_trie *t, range **under, size_t cap[4], size_t n) {
    return am_grow(&t->first, &cap[0], n + 1, sizeof *t->first) && am_grow(&t->label, &cap[1], n, 1) &&
           am_grow(&t->value, &cap[2], n, sizeof *t->value) && am_grow(under, &cap[3], n, sizeof **under);
}

am_status am_trie_build(am_trie *t, am_trie_entry *e, size_t n, am_error *err) {
    size_t cap[4] = {0};
    range *under = NULL;
    am_status status = AM_OK;
    qsort(e, n, sizeof *e, entry_order);
    *t = (am_trie){0};
    if (n >= UINT32_MAX / 2 || !trie_reserve(t, &under, cap, 1)) goto memory;
    t->label[0] = 0;
    under[0] = (range){0, (uint32_t)n};
    t->n_nodes = 1;
    size_t depth = 0, level_end = 1;
    for (size_t node = 0; node < t->n_nodes; node++) {
        if (node == level_end) depth++, level_end = t->n_nodes;
        uint32_t i = under[node].from, to = under[node].to;
        t->value[node] = -1;
        t->first[node] = (uint32_t)t->n_nodes;
        if (i < to && e[i].key.n == depth) t->value[node] = e[i].value;
        while (i < to && e[i].key.n == depth) i++;
        while (i < to) {
            uint8_t byte = (uint8_t)e[i].key.p[depth];
            uint32_t from = i;
            while (i < to && (uint8_t)e[i].key.p[depth] == byte) i++;
            if (t->n_nodes >= UINT32_MAX - 1 || !trie_reserve(t, &under, cap, t->n_nodes + 1)) goto memory;
            t->label[t->n_nodes] = byte;
            under[t->n_nodes] = (range){from, i};
            if (node == 0) t->root[byte] = (uint32_t)t->n_nodes;
            t->n_nodes++;
        }
    }
    t->first[t->n_nodes] = (uint32_t)t->n_nodes;
    goto out;
memory:
    status = am_fail(err, AM_ENOMEM, "no memory for the vocabulary's trie");
    am_trie_free(t);
out:
    free(under);
    return status;
}

void am_trie_free(am_trie *t) {
    free(t->first);
    free(t->label);
    free(t->value);
    *t = (am_trie){0};
}
