/* The tokenizer's private header: the stages a text goes through, in order, and the tables they use.
 *
 *   text -> added.c (added tokens cut the raw text into segments) -> normalizer.c -> added.c (those found in normalised text)
 *        -> pretokenizer.c (pieces) -> model: bpe.c | unigram.c | wordpiece.c -> ids with offsets
 *   ids -> detok.c (stages of decoder kind) -> bytes
 *
 * A byte-level vocabulary is kept as the bytes its entries stand for, so that text needs no detour through the printable
 * alphabet. Loaders (hf_json.c, sentencepiece.c, tiktoken.c, vocab.c) fill an am_tokenizer and call am_tokenizer_seal. */
#ifndef AM_TEXT_TOKENIZER_INT_H
#define AM_TEXT_TOKENIZER_INT_H

#include "base/buf.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

#include <pcre2.h>

/* ---- words.c: strings by id and ids by string */
enum {
    AM_WORD_PRESENT = 1,
    AM_WORD_FINDABLE = 2, /* the model may find it: not so for entries a byte-level text cannot spell */
    AM_WORD_ADDED = 4,
    AM_WORD_SPECIAL = 8,
    AM_WORD_MARK = 64,   /* an added token that is special or written like one: never made of what came from outside */
    AM_WORD_NEEDLE = 32, /* an added token that decodes to its normalised form */
    AM_WORD_UTF8 = 16, /* its bytes are whole characters */
};
typedef struct am_word_slot {
    uint32_t tag;
    int32_t id; /* -1: empty */
} am_word_slot;
typedef struct am_word_at {
    uint32_t off, len; /* into bytes */
} am_word_at;
typedef struct am_words {
    am_buf bytes;
    am_word_at *at; /* [n] */
    uint8_t *flags;      /* [n] */
    size_t n, cap, longest;
    am_word_slot *slots; /* [mask + 1]; only after sealing */
    size_t mask;
    bool unsealed; /* entries that may be found came after sealing */
} am_words;
am_status am_words_add(am_words *words, uint64_t id, am_str s, am_error *err);
am_status am_words_add_hidden(am_words *words, uint64_t id, am_str s, am_error *err); /* never found by its string */
/* Undoes the byte-level alphabet in every entry; what is not spelled in it stays as it is and is no longer findable. */
void am_words_undo_bytes(am_words *words);
am_status am_words_seal(am_words *words, am_error *err);
int32_t am_words_find(const am_words *words, am_str s); /* -1 when there is none */
/* The same in steps, for loading: a merge is three look-ups in tables larger than the caches. prefetch: steps 0, 1, 2 in turn. */
uint64_t am_words_hash(am_str s);
void am_words_prefetch(const am_words *words, uint64_t hash, int step);
int32_t am_words_find_hashed(const am_words *words, am_str s, uint64_t hash); /* sealed words only */
am_str am_words_get(const am_words *words, int64_t id); /* empty when out of range */
void am_words_trim(am_words *words); /* gives back the room for more */
void am_words_free(am_words *words);

/* ---- trie.c: all entries that begin at a place */
typedef struct am_trie {
    uint32_t *first; /* [n_nodes + 1]: children of node i are first[i] .. first[i + 1] */
    uint8_t *label;  /* [n_nodes]: the byte that leads to a node */
    int32_t *value;  /* [n_nodes]: -1 when no entry ends here */
    uint32_t root[256];
    size_t n_nodes;
} am_trie;
typedef struct am_trie_entry {
    am_str key;
    int32_t value;
} am_trie_entry;
am_status am_trie_build(am_trie *trie, am_trie_entry *entries, size_t n, am_error *err); /* sorts entries; of equal keys the first wins */
void am_trie_free(am_trie *trie);
/* The node reached from `node` (0 = root) by a byte; 0 when there is none. */
static inline uint32_t am_trie_step(const am_trie *trie, uint32_t node, uint8_t byte) {
    if (node == 0) return trie->root[byte];
    for (uint32_t c = trie->first[node], end = trie->first[node + 1]; c < end; c++)
        if (trie->label[c] >= byte) return trie->label[c] == byte ? c : 0;
    return 0;
}

/* ---- text on its way through the stages */
typedef struct am_view { /* at == NULL: byte i came from base + i */
    const char *p;
    size_t n;
    const uint32_t *at; /* [n + 1]: offset in the original text */
    size_t base;
} am_view;
static inline uint32_t am_view_at(const am_view *v, size_t i) { return v->at ? v->at[i] : (uint32_t)(v->base + i); }
static inline am_view am_view_slice(const am_view *v, size_t b, size_t e) {
    return (am_view){v->p + b, e - b, v->at ? v->at + b : NULL, v->base + b};
}

typedef struct am_mapped { /* a growing text with its origins */
    char *p;
    uint32_t *at;
    size_t n, cap;
} am_mapped;
am_status am_mapped_put(am_mapped *m, const char *p, size_t n, uint32_t at);              /* all n bytes came from `at` */
am_status am_mapped_copy(am_mapped *m, const am_view *v, size_t b, size_t e);             /* as they are */
am_status am_mapped_close(am_mapped *m, const am_view *from, am_view *out);               /* sets the end's origin; a view of all */
void am_mapped_free(am_mapped *m);

typedef struct am_piece {
    uint32_t begin, end;
} am_piece;
typedef struct am_pieces {
    am_piece *v;
    size_t n, cap;
} am_pieces;
am_status am_pieces_put(am_pieces *pieces, size_t begin, size_t end);

typedef struct am_symbol {
    int32_t id;
    uint32_t pos;
    int32_t prev, next; /* next == -2: gone */
} am_symbol;
/* All memory of one call of encode; freed at its end. */
typedef struct am_scratch {
    am_mapped text[2];
    int turn; /* text[turn] is free to write */
    am_mapped joined; /* normalised parts with the symbols between them (am_added.joined), until they are encoded */
    am_pieces pieces, more, parts;
    struct am_last { /* the last token of each piece, with the piece's end: only where ends are asked for */
        size_t token;
        uint32_t end;
    } *last;
    size_t n_last, last_cap;
    am_symbol *symbols;
    size_t symbols_cap;
    uint64_t *heap; /* bpe.c: rank << 32 | position */
    size_t n_heap, heap_cap;
    void *path; /* unigram.c */
    size_t path_cap;
    bool joined_before, joined_after; /* the segment at hand touches a joined token there */
    bool guarded; /* the piece at hand came from outside: no model may make a control token of it */
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
} am_scratch;
/* May the model use this entry for the piece at hand? Single characters always: they are text, whatever else they are. */
static inline bool am_entry_allowed(const am_scratch *s, const am_words *words, int32_t id) {
    if (!s->guarded || !(words->flags[id] & AM_WORD_MARK)) return true;
    return words->at[id].len <= am_utf8_size((uint8_t)words->bytes.p[words->at[id].off]);
}
void am_scratch_free(am_scratch *s);
/* Grows *p to hold n elements of the given size; false when out of memory. */
bool am_grow(void *p, size_t *cap, size_t n, size_t size);

am_status am_tokens_push(am_tokens *tokens, int32_t id, uint32_t offset);             /* AM_ELIMIT beyond tokens->max */
am_status am_tokens_fail(const am_tokens *tokens, am_status status, am_error *err); /* says why a push failed */

/* ---- regex.c: Oniguruma's dialect on PCRE2, and that of Rust's regex, which tiktoken's patterns are written in */
typedef enum am_dialect { AM_REGEX_ONIGURUMA, AM_REGEX_RUST } am_dialect;
typedef struct am_regex am_regex;
#define AM_PATTERN_GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define AM_PATTERN_O200K                                                                                               \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"           \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"           \
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
am_status am_regex_compile(am_str pattern, am_dialect dialect, am_regex **out, am_error *err);
am_status am_regex_literal(am_str text, am_regex **out, am_error *err); /* matches exactly that */
void am_regex_free(am_regex *regex);
/* One of the well-known split patterns, which all end a piece between a newline and an ASCII letter. */
bool am_regex_cuts_lines(const am_regex *regex);
/* The next match of those that the references walk through (zeroed to begin with): none in an empty text, and an empty one not where the
 * last one ended. AM_ENOTFOUND when there is none, AM_ELIMIT when the pattern takes too long. */
typedef struct am_walk {
    size_t from, last_end;
    bool any;
} am_walk;
am_status am_regex_each(const am_regex *regex, am_scratch *s, am_str text, am_walk *w, am_span *match);

/* ---- normalizer.c */
typedef enum am_norm_kind {
    AM_NORM_UNICODE, /* NFC, NFD, NFKC, NFKD */
    AM_NORM_LOWERCASE,
    AM_NORM_REPLACE,
    AM_NORM_PREPEND,
    AM_NORM_STRIP,
    AM_NORM_STRIP_ACCENTS,
    AM_NORM_CHARSMAP,
    AM_NORM_CLEAN,   /* BertNormalizer's parts */
    AM_NORM_CHINESE,
    AM_NORM_STRIP_MN,
    AM_NORM_BYTES,   /* to the byte-level alphabet */
    AM_NORM_NMT,
    AM_NORM_SPACES,  /* SentencePiece's remove_extra_whitespaces */
} am_norm_kind;
typedef struct am_norm {
    am_norm_kind kind;
    bool compose, compat; /* UNICODE */
    bool left, right;     /* STRIP; PREPEND: left: also to nothing; SPACES: right: marks at the end go too */
    bool graphemes;       /* CHARSMAP: as Hugging Face reads it */
    am_regex *regex;      /* REPLACE */
    am_str content;       /* REPLACE, PREPEND; CHARSMAP: the whole map; owned */
} am_norm;
am_status am_norm_apply(const am_norm *norm, am_scratch *s, am_view *v, am_error *err);
am_status am_charsmap_check(am_str map, am_error *err); /* charsmap.c */
am_status am_charsmap_apply(am_str map, bool graphemes, am_scratch *s, am_view *v);
void am_norm_free(am_norm *norm);

/* ---- pretokenizer.c */
typedef enum am_pre_kind {
    AM_PRE_SPLIT,
    AM_PRE_BYTES, /* ByteLevel */
    AM_PRE_METASPACE,
    AM_PRE_DIGITS,
    AM_PRE_PUNCTUATION,
    AM_PRE_WHITESPACE,
    AM_PRE_SPACE_SPLIT,
    AM_PRE_BERT,
} am_pre_kind;
typedef enum am_behavior { AM_REMOVED, AM_ISOLATED, AM_MERGED_PREVIOUS, AM_MERGED_NEXT, AM_CONTIGUOUS } am_behavior;
typedef enum am_prepend { AM_PREPEND_ALWAYS, AM_PREPEND_FIRST, AM_PREPEND_NEVER } am_prepend;
typedef struct am_pre {
    am_pre_kind kind;
    am_regex *regex; /* SPLIT; BYTES with use_regex */
    am_behavior behavior;
    bool invert;
    bool prefix_space; /* BYTES */
    bool spell;        /* BYTES: later stages look at the alphabet's characters, so the text must be spelled in it */
    bool split;        /* METASPACE */
    am_prepend prepend;
    char mark[5]; /* METASPACE: the replacement, NUL-terminated */
} am_pre;
/* Cuts *v (whose text it may replace) into s->pieces. */
am_status am_pre_apply(const am_tokenizer *t, am_scratch *s, am_view *v, am_error *err);
void am_pre_free(am_pre *pre);

/* ---- added.c */
typedef struct am_added {
    am_str content; /* owned */
    am_str needle;  /* what is looked for: content, or its normalised form; owned when different */
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
    bool joined; /* SentencePiece's user defined symbols: what is written like one is kept from the normalizer, but the text around and in it is one text for the model */
    bool plain; /* neither special nor written like a mark: text, also where it came from outside (runs of spaces, words) */
} am_added;
typedef struct am_matcher {
    am_trie trie; /* value: index into am_tokenizer.added */
    bool any, first[256];
    size_t longest;
} am_matcher;
typedef struct am_match {
    size_t begin, end; /* with what lstrip and rstrip take */
    size_t scan;       /* where its own text ends: the search goes on there, even when rstrip took more */
    int32_t id;
    bool joined;
} am_match;
am_status am_added_put(am_tokenizer *t, const am_added *token, uint64_t id_wanted, am_error *err);
/* The same for a token whose id is known. */
am_status am_added_put_at(am_tokenizer *t, const am_added *token, int32_t id, am_error *err);
const am_added *am_added_of(const am_tokenizer *t, int32_t id); /* of a token with AM_WORD_ADDED, after sealing */
am_status am_matcher_build(am_tokenizer *t, bool normalized, am_matcher *m, am_error *err);
/* The match after *out (zeroed, or begun at some place) that touches no input range; false when there is none. As in the reference,
 * rstrip's white space may belong to a further match too, so that matches can overlap. */
bool am_input_touches(const am_span *input, size_t n, size_t begin, size_t end); /* does [begin, end) of the original text? */
bool am_matcher_next(const am_tokenizer *t, const am_matcher *m, const am_view *v, const am_span *input, size_t n_input, am_match *out);

/* ---- models */
typedef enum am_model_kind { AM_MODEL_BPE, AM_MODEL_UNIGRAM, AM_MODEL_WORDPIECE, AM_MODEL_WORDLEVEL } am_model_kind;
typedef struct am_pair {
    uint64_t key; /* left << 32 | right; UINT64_MAX: empty */
    uint32_t rank;
    int32_t id;
} am_pair;
typedef struct am_bpe {
    am_pair *pairs; /* [mask + 1] */
    size_t mask, n_pairs;
    int32_t byte_id[256];     /* ids of one-byte entries; -1 */
    int32_t fallback_id[256]; /* ids of <0x00>.. ; -1 */
    bool byte_level, byte_fallback, has_fallback, fuse_unk, ignore_merges;
    am_str prefix, suffix; /* owned */
    uint8_t *memo; /* [words.n], relaxed atomics: 0 unknown, 1 the entry's text encodes to the entry, 2 it does not */
    bool whole_lines; /* a piece of newlines that is an entry is that entry, whatever the merges say (Gemma in GGUF) */
    bool cut_marks; /* no merge joins x to U+2581: pieces may be cut there without changing any token */
    am_words letters; /* characters of merges that are no entries themselves: ids from words.n on (SentencePiece) */
} am_bpe;
am_status am_bpe_reserve(am_bpe *bpe, size_t n_pairs, am_error *err);
void am_bpe_prefetch(const am_bpe *bpe, int32_t left, int32_t right); /* for a merge that comes soon */
am_status am_bpe_merge(am_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id, am_error *err);
/* Appends a half of a merge as the vocabulary keeps it: false when a byte-level text can never spell it. */
bool am_half_put(const am_tokenizer *t, am_str s, am_buf *out);
void am_bytes_seal(am_tokenizer *t); /* ids of single bytes and of <0x00> and so on; any model */
am_status am_bpe_seal(am_tokenizer *t, am_error *err);
/* All ways to make each entry from two others, ranked by rank[id]: what SentencePiece and tiktoken do without a list of merges. */
am_status am_bpe_merges_from_words(am_tokenizer *t, const uint32_t *rank, am_error *err);
am_status am_bpe_encode(const am_tokenizer *t, am_scratch *s, const am_view *v, am_tokens *out, am_error *err);
void am_bpe_free(am_bpe *bpe);

typedef struct am_unigram {
    am_trie trie;
    double *score; /* [words.n] */
    double least;
    bool byte_fallback;
    bool single; /* sums are floats, as SentencePiece has them */
} am_unigram;
am_status am_unigram_seal(am_tokenizer *t, am_error *err);
am_status am_unigram_encode(const am_tokenizer *t, am_scratch *s, const am_view *v, am_tokens *out, am_error *err);

typedef struct am_wordpiece {
    am_str first, prefix; /* before a word's first entry, before the others; owned */
    size_t max_chars;
} am_wordpiece;
am_status am_wordpiece_encode(const am_tokenizer *t, am_scratch *s, const am_view *v, am_tokens *out, am_error *err);

/* ---- decoder: stages of detok.c */
typedef enum am_dec_kind {
    AM_DEC_BYTES,
    AM_DEC_REPLACE,
    AM_DEC_FALLBACK,
    AM_DEC_FUSE,
    AM_DEC_STRIP,
    AM_DEC_METASPACE,
    AM_DEC_WORDPIECE,
    AM_DEC_SUFFIX, /* BPEDecoder */
} am_dec_kind;
typedef struct am_dec {
    am_dec_kind kind;
    am_regex *regex;     /* REPLACE */
    am_str find;         /* REPLACE of a string, METASPACE: mark, WORDPIECE: prefix, SUFFIX; owned */
    am_str content;      /* REPLACE: by what; STRIP: the character; owned */
    uint32_t start, stop; /* STRIP: at most so many characters */
    bool each;            /* STRIP: of each token in front, one */
    bool cleanup;        /* WORDPIECE */
    bool loose;          /* FALLBACK: of a run of bytes what is UTF-8 is text; Hugging Face loses all of it when any is bad */
    bool keep_first;     /* METASPACE: the first token's mark is a space too */
} am_dec;
void am_dec_free(am_dec *dec);

enum { AM_MAX_STAGES = 32 };
struct am_tokenizer {
    am_words words;
    am_norm norm[AM_MAX_STAGES];
    size_t n_norm;
    am_pre pre[AM_MAX_STAGES];
    size_t n_pre;
    am_dec dec[AM_MAX_STAGES];
    size_t n_dec;
    bool join_spaces; /* no decoder: tokens are joined by a space */
    am_added *added;  /* ascending id after sealing */
    size_t n_added, added_cap;
    am_matcher raw, normal;
    am_model_kind kind;
    am_bpe bpe;
    am_unigram unigram;
    am_wordpiece wordpiece;
    int32_t unk;
    bool unk_lost; /* the model names an unknown token that the vocabulary lacks: an error when it is needed */
    int32_t *head, *tail; /* what the post-processor puts before and after */
    size_t n_head, n_tail;
    int32_t bos, eos;
    am_words pieces; /* what each id stands for in running text, when that is not its words entry */
    bool own_pieces;
    bool plain_bytes; /* decoding is joining bytes */
    size_t longest;   /* no token stands for more bytes of text; 0: not known */
    bool joined_tidy; /* with joined tokens: no mark for a space is left at a text's end */
    bool spells_specials; /* a model could make a control token of plain text: pieces from outside are guarded */
    bool cut_lines;   /* a newline before an ASCII letter always ends a piece: a seam for am_tokenizer_extend */
    uint8_t fingerprint[16];
};
am_tokenizer *am_tokenizer_create(void); /* NULL when out of memory; bos, eos, unk are -1 */
/* Builds what is derived from words, added tokens and stages. source: the bytes the fingerprint is made of. */
am_status am_tokenizer_seal(am_tokenizer *t, const am_str *source, size_t n_source, am_error *err);
am_status am_pieces_build(am_tokenizer *t, am_error *err); /* detok.c: fills t->pieces */
int am_byte_token(am_str s);                               /* "<0x0A>" is 10; -1 for anything else */
am_str am_str_own(am_str s);                               /* a copy; p is NULL when out of memory */

#endif
