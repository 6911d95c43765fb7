"""Tokenizers of every kind, put together at random: what tests/differential_tokenizer.py compares with --random. A number says which."""
import json
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

P, N, D, PP = pre_tokenizers, normalizers, decoders, processors
# What split patterns may hold; what either side refuses is left out by trying.
PATTERNS = r"""
\s+|\w+|[^\w\s]+
[0-9]
\p{N}{1,3}
(?i:the)|\s
(?<=e)
(?<!\s)\p{Lu}
\b
\B
[^\s]+(?=\s)
[\p{L}&&[^a-m]]+
\D+
\h+
^.
.$
\A.|.\z
(\w)\1
(?:a|e|i)++
a*+
o??
\s{1,2}?
\p{Han}+|\p{Hiragana}+|\p{Katakana}+
[\u4e00-\u9fff]
\x{e9}
[[:punct:]]
[[:^alpha:]]+
[^[:alpha:]]
[[:word:]]
(?>a|ab)c?
\p{^L}
\P{L}
\pL
[\W_]
[^\W\d]+
[^\S\r\n]
[a-c[^\s]]
(?i:[^a-z])
\p{Alnum}
[^a-z&&[^aeiou]]
e{1,2}+
e{,2}
a(?i)b|c
(?i)E|the
'(?i:[sdmt]|ll|ve|re)
[^\r\n\p{L}\p{N}]?+\p{L}++
\s++$
\s+(?!\S)
(?:\p{L}\p{M}*)+
\Qa.\E
""".strip("\n").split("\n")
ADDED = ["<|im_end|>", "<|x|>", "new word", "NEW", "new", "\n\n", "  ", "<extra_id_1>", "e", "th", "the", "<|", "|>", "é", "E\u0301", "▁", " x", "x ", "<0x41>", "ab", "abc",
         "你好", "I'LL", "[CLS]", "1", "12", "123", " ", "ſ", "ﬁ"]
SPECIALS = ["<unk>", "<s>", "</s>", "[UNK]", "[CLS]", "[SEP]"]
BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]


CHARSMAPS = []  # SentencePiece's; given from outside, where there is that package


def with_pattern(r, make):
    while True:
        try:
            return make(Regex(r.choice(PATTERNS)))
        except Exception:
            continue  # a pattern that their library does not know


def pre_tokenizer(r):
    return r.choice([
        lambda: P.ByteLevel(add_prefix_space=r.random() < .5, use_regex=r.random() < .6),
        lambda: with_pattern(r, lambda p: P.Split(p, r.choice(BEHAVIORS), invert=r.random() < .3)), lambda: with_pattern(r, lambda p: P.Split(p, r.choice(BEHAVIORS), invert=r.random() < .3)),
        lambda: P.Split(r.choice([" ", "e", "th", "▁", "Ġ", "\n", "é"]), r.choice(BEHAVIORS), invert=r.random() < .3),
        lambda: P.Metaspace(replacement=r.choice(["▁", "▁", "_", "Ġ"]), prepend_scheme=r.choice(["always", "first", "never"]), split=r.random() < .6),
        lambda: P.Digits(individual_digits=r.random() < .5), lambda: P.Punctuation(r.choice(BEHAVIORS)), P.Whitespace, P.WhitespaceSplit, P.BertPreTokenizer,
        lambda: P.CharDelimiterSplit(r.choice("e ▁_é"))])()


def normalizer(r):
    return r.choice([
        N.NFC, N.NFD, N.NFKC, N.NFKD, N.Lowercase, N.StripAccents, N.Nmt, N.ByteLevel, lambda: N.Precompiled(r.choice(CHARSMAPS)) if CHARSMAPS else N.NFKC(), lambda: N.Strip(left=r.random() < .5, right=r.random() < .5), lambda: N.Prepend(r.choice(["▁", " ", "ab", "é"])),
        lambda: N.Replace(r.choice([" ", "a", "the", "é", "▁", "\n", "."]), r.choice(["", "▁", "bb", " ", "é"])),
        lambda: with_pattern(r, lambda p: N.Replace(p, r.choice(["", "▁", "bb", " "]))),
        lambda: N.BertNormalizer(clean_text=r.random() < .5, handle_chinese_chars=r.random() < .5, strip_accents=r.choice([None, True, False]), lowercase=r.random() < .5)])()


def decoder(r):
    return r.choice([
        D.ByteLevel, lambda: D.Metaspace(replacement=r.choice(["▁", "_"]), prepend_scheme=r.choice(["always", "first", "never"])), D.ByteFallback, D.Fuse,
        lambda: D.Strip(r.choice([" ", "▁", "a", "é"]), r.choice([0, 1, 2]), r.choice([0, 1, 2])), lambda: D.Replace(r.choice(["▁", " ", "e", "Ġ", "##", ""]), r.choice([" ", "", "xy"])),
        lambda: with_pattern(r, lambda p: D.Replace(p, r.choice(["", "▁", " "]))), lambda: D.WordPiece(prefix=r.choice(["##", "@@", ""]), cleanup=r.random() < .5),
        lambda: D.BPEDecoder(suffix=r.choice(["</w>", "e"]))])()


def post_processor(r):
    adds = r.choice([
        lambda: PP.TemplateProcessing(single=r.choice(["<s> $A </s>", "$A", "<s> $A:1 <x>", "[CLS]:2 $0 [SEP]"]), pair="<s> $A </s> $B </s>",
                                      special_tokens=[("<s>", 1), ("</s>", 2), ("[CLS]", 4), ("[SEP]", 5), {"id": "<x>", "ids": [1, 2, 3], "tokens": ["a", "b", "c"]}]),
        lambda: PP.BertProcessing(("[SEP]", 5), ("[CLS]", 4)), lambda: PP.RobertaProcessing(("</s>", 2), ("<s>", 1), trim_offsets=r.random() < .5)])()
    level = PP.ByteLevel(trim_offsets=r.random() < .5)
    return r.choice([None, adds, level, PP.Sequence([level, adds]), PP.Sequence([adds, level])])


def some(r, one, sequence, most):
    parts = [one(r) for _ in range(r.randrange(most + 1))]
    return None if not parts else parts[0] if len(parts) == 1 else sequence(parts)


def model(r):
    kind = r.choice(["BPE", "BPE", "BPE", "Unigram", "Unigram", "WordPiece", "WordLevel"])
    common = dict(special_tokens=SPECIALS, show_progress=False)
    alphabet = r.choice([40, 300])
    if kind == "BPE":
        kw = dict(fuse_unk=r.random() < .5, ignore_merges=r.random() < .3)
        affix = {}
        if r.random() < .6: kw["unk_token"] = "<unk>"
        if r.random() < .25: affix["continuing_subword_prefix"] = r.choice(["##", "@@"])
        if r.random() < .25: affix["end_of_word_suffix"] = r.choice(["</w>", "@"])
        return models.BPE(**kw, **affix), trainers.BpeTrainer(vocab_size=r.choice([350, 700]), limit_alphabet=alphabet, initial_alphabet=P.ByteLevel.alphabet() if r.random() < .5 else [], **affix, **common)
    if kind == "WordPiece":
        return (models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=r.choice([3, 20, 100]), continuing_subword_prefix="##"),
                trainers.WordPieceTrainer(vocab_size=500, limit_alphabet=alphabet, **common))
    if kind == "WordLevel":
        return models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(vocab_size=600, **common)
    return models.Unigram(), trainers.UnigramTrainer(vocab_size=r.choice([300, 600]), unk_token="<unk>", **common)


def change(r, j):
    """What trainers do not make and files hold: byte pieces (not always all), merges as strings, Unigram with ties or without an unknown token."""
    m = j["model"]
    vocab = m["vocab"]
    if m["type"] in ("BPE", "Unigram") and r.random() < .4:
        m["byte_fallback"] = True
        for b in range(256):
            if r.random() < .03: continue
            if m["type"] == "BPE": vocab.setdefault(f"<0x{b:02X}>", len(vocab))
            else: vocab.append([f"<0x{b:02X}>", -20.0])
    if m["type"] == "Unigram":
        if r.random() < .2: m["unk_id"] = r.choice([None, 3, 7])
        if r.random() < .2:
            for i in range(0, len(vocab), 7): vocab[i][1] = -3.0
    if m["type"] == "BPE" and r.random() < .3: m["merges"] = [" ".join(x) for x in m["merges"] if " " not in x[0] + x[1]]
    if m["type"] == "BPE" and r.random() < .2: r.shuffle(m["merges"])
    if r.random() < .1: del m["type"]
    if r.random() < .1: j["truncation"] = {"direction": "Right", "max_length": 100000, "strategy": "LongestFirst", "stride": 0}
    if r.random() < .1: j["padding"] = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"}


def make(number, corpus):
    """Tokenizer `number`, or None when their library refuses to build it."""
    r = random.Random(number)
    norm, pre = some(r, normalizer, N.Sequence, 3), some(r, pre_tokenizer, P.Sequence, 3)
    try:
        kind, trainer = model(r)
        t = Tokenizer(kind)
        if pre: t.pre_tokenizer = pre
        t.train_from_iterator(corpus, trainer)
        if norm: t.normalizer = norm
        dec, post = some(r, decoder, D.Sequence, 4), post_processor(r)
        if dec: t.decoder = dec
        if post: t.post_processor = post
        j = json.loads(t.to_str())
        ids = sorted(j["model"]["vocab"].values()) if isinstance(j["model"]["vocab"], dict) else [0]
        if ids[-1] != len(ids) - 1: return None  # their library would give an added token the id of an entry
        change(r, j)
        t = Tokenizer.from_str(json.dumps(j))
        added = [AddedToken(c, single_word=r.random() < .25, lstrip=r.random() < .25, rstrip=r.random() < .25, special=(s := r.random() < .4), normalized=not s and r.random() < .5)
                 for c in r.sample(ADDED, r.choice([0, 2, 5, 8]))]
        t.add_tokens([a for a in added if not a.special])
        t.add_special_tokens([a for a in added if a.special])
        sought = [t.normalizer.normalize_str(a.content) for a in added if a.normalized and t.normalizer]
        return t if len(set(sought)) == len(sought) else None  # which of two equal ones is found changes from run to run
    except BaseException as e:  # their library also panics
        if isinstance(e, KeyboardInterrupt): raise
        return None


def pieces(number):
    """Options of SentencePiece's trainer."""
    r = random.Random(number)
    flip = lambda often=.5: r.random() < often
    symbols = ["<tool>", "foo bar", "é", "12", "the", "▁▁", "▁the", "\t", "E\u0301", "<|im_end|>", "你好", "e", "x ", "of "]
    o = dict(model_type=r.choice(["bpe", "unigram"]), byte_fallback=flip(), normalization_rule_name=r.choice(["identity", "nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf"]),
             add_dummy_prefix=flip(.7), remove_extra_whitespaces=flip(), split_digits=flip(), split_by_whitespace=flip(.7), split_by_unicode_script=flip(), split_by_number=flip(),
             allow_whitespace_only_pieces=flip(), user_defined_symbols=r.sample(symbols, r.choice([0, 0, 1, 3])), control_symbols=["<ctl>"] if flip(.3) else [],
             vocab_size=r.choice([500, 800, 1200]), character_coverage=r.choice([1.0, .9995, .985]), max_sentencepiece_length=r.choice([4, 16]))
    if flip(.3): o.update(unk_id=2, bos_id=0, eos_id=1)
    elif flip(.3): o.update(bos_id=-1, eos_id=-1, pad_id=1)
    return o
