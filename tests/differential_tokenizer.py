#!/usr/bin/env python3
"""Throws random strings at our tokenizer and at Hugging Face `tokenizers` and compares ids and decodings;
each text is also encoded on from a part of it, and decoded as a stream.

usage: tests/differential_tokenizer.py [--strings N] [--seed S] [--only NAME] [--random N] [PATH/tokenizer.json ...]

N strings in all (100,000), shared out among the vocabularies. Without paths, small vocabularies are trained on the spot for every model,
normalizer, pre-tokenizer, post-processor and decoder that both sides know, tokenizer.model files with SentencePiece's trainer, and rank files for tiktoken. --random: N
tokenizers and, with SentencePiece's trainer, N models put together at random besides (random_tokenizers.py; 40), 40 strings each; what we refuse by name is counted, and what their library does not end with is left out. Needs `make` to have run, gcc, and the Python package
`tokenizers`; says so and exits 0 when that is absent. The last line is "N strings, M differ"."""
import argparse, base64, ctypes, json, os, random, resource, signal, subprocess, sys, tempfile, traceback

try:
    import tokenizers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, decoders, trainers, Regex, AddedToken
except ImportError:
    print("skipped: the Python package `tokenizers` is not installed")
    sys.exit(0)

import random_tokenizers

try:
    import sentencepiece
except ImportError:
    sentencepiece = None
    print("without the package sentencepiece: tokenizer.model is not compared")

try:
    import tiktoken
except ImportError:
    tiktoken = None
    print("without the package tiktoken: rank files are not compared")

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Str(ctypes.Structure):
    _fields_ = [("p", ctypes.c_char_p), ("n", ctypes.c_size_t)]


class Tokens(ctypes.Structure):
    _fields_ = [("ids", ctypes.POINTER(ctypes.c_int32)), ("offsets", ctypes.POINTER(ctypes.c_uint32)),
                ("n", ctypes.c_size_t), ("cap", ctypes.c_size_t), ("ends", ctypes.POINTER(ctypes.c_uint32)), ("max", ctypes.c_size_t)]


class Buf(ctypes.Structure):
    _fields_ = [("p", ctypes.POINTER(ctypes.c_char)), ("n", ctypes.c_size_t), ("cap", ctypes.c_size_t), ("max", ctypes.c_size_t), ("failed", ctypes.c_int)]


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("message", ctypes.c_char * 512)]


def library(folder):
    so = os.path.join(folder, "libam.so")
    archive = os.path.join(ROOT, "build", "libagent-memory.a")
    packages = "jansson libsodium libxxhash libpcre2-8 libutf8proc libevent_core libevent_pthreads yaml-0.1 libedit".split()
    libs = subprocess.check_output(["pkg-config", "--libs"] + packages, text=True).split()
    subprocess.check_call(["gcc", "-shared", "-o", so, "-Wl,--whole-archive", archive, "-Wl,--no-whole-archive"] + libs + ["-lm", "-pthread"])
    return ctypes.CDLL(so)


class Ours:
    def __init__(self, lib, path):
        self.lib, self.t, self.tokens, self.err = lib, ctypes.c_void_p(), Tokens(), Error()
        lib.am_detok_create.restype = ctypes.c_void_p
        if lib.am_tokenizer_load_file(path.encode(), ctypes.byref(self.t), ctypes.byref(self.err)):
            raise ValueError(self.err.message.decode())

    def encode(self, text, special, typed=False):
        """special: with the ends that the post-processor adds; typed: all of it came from outside, so that no special token is in it."""
        raw = text.encode()
        span = (ctypes.c_size_t * 2)(0, len(raw))
        rc = self.lib.am_tokenizer_encode(self.t, Str(raw, len(raw)), span, ctypes.c_size_t(1 if typed and raw else 0), 1 if special else 0,
                                          ctypes.byref(self.tokens), ctypes.byref(self.err))
        return "error: " + self.err.message.decode() if rc else self.tokens.ids[:self.tokens.n]

    def seam(self, rng, text):
        """None, or what is wrong: encoded on from the tokens of another text with the same beginning, or decoded token by token, the result must be the same. Encodes again."""
        raw, k = text.encode(), rng.randrange(len(text) + 1)
        self.encode(text[:k] + rng.choice(["", "x", " tail", "<|im_end|>", "\n\nfoo", "é", " "]), False)
        known, whole, out = self.tokens, Tokens(), Tokens()
        wrong = None
        if self.lib.am_tokenizer_encode(self.t, Str(raw, len(raw)), None, ctypes.c_size_t(0), 0, ctypes.byref(whole), ctypes.byref(self.err)) == 0:
            rc = self.lib.am_tokenizer_extend(self.t, ctypes.byref(known), ctypes.c_size_t(len(text[:k].encode())), Str(raw, len(raw)), None, ctypes.c_size_t(0), ctypes.byref(out), ctypes.byref(self.err))
            if rc or out.ids[:out.n] != whole.ids[:whole.n] or out.offsets[:out.n + 1] != whole.offsets[:whole.n + 1]: wrong = f"encoded on behind {k} characters: {out.ids[:out.n]}"
            detok, stream = self.lib.am_detok_create(self.t, ctypes.c_bool(False)), Buf(None, 0, 0, 1 << 30)
            for i in whole.ids[:whole.n]:
                self.lib.am_detok_push(ctypes.c_void_p(detok), i, ctypes.byref(stream))
                try: (ctypes.string_at(stream.p, stream.n) if stream.n else b"").decode()
                except UnicodeDecodeError: wrong = "half a character in the stream"
            self.lib.am_detok_finish(ctypes.c_void_p(detok), ctypes.byref(stream))
            if (ctypes.string_at(stream.p, stream.n).decode() if stream.n else "") != self.decode(whole.ids[:whole.n], False): wrong = "streamed otherwise than decoded at once"
            self.lib.am_detok_free(ctypes.c_void_p(detok))
            self.lib.am_buf_free(ctypes.byref(stream))
        for tokens in (whole, out): self.lib.am_tokens_free(ctypes.byref(tokens))
        return wrong

    def decode(self, ids, skip):
        out = Buf(None, 0, 0, 1 << 30)
        array = (ctypes.c_int32 * max(1, len(ids)))(*ids)
        self.lib.am_tokenizer_decode(self.t, array, ctypes.c_size_t(len(ids)), ctypes.c_bool(skip), ctypes.byref(out))
        text = ctypes.string_at(out.p, out.n) if out.n else b""
        self.lib.am_buf_free(ctypes.byref(out))
        return text.decode()

    def close(self):
        self.lib.am_tokenizer_free(self.t)


POOLS = [
    "abcdefghijklmnopqrstuvwxyz", "ABCXYZ", "0123456789", " ", "  \t\n\r\x0b\x0c\u00a0\u2003\u3000\u0085\u2028", ".,;:!?'\"()[]{}<>|/\\@#$%^&*-_=+~`",
    "éèüöñçÅßøæœİıſK", "e\u0301a\u0308o\u0302\u0327\u0323n\u0303", "привет мир ЁЖ", "你好世界漢字龥", "日本語かなカナﾊﾟｶﾞ", "한국어각힣각", "مرحبا١٢٣", "हिन्दी१२", "ไทย", "αβγΣσς",
    "😀👨\u200d👩\u200d👧🏽🇩🇪❤\ufe0f", "²³¹½¾Ⅷ①㍿ﬁﬀ™", "\u0000\u0001\u007f\u200b\u200d\ufeff\ufffd\u00ad", "—–…“”‘’«»§¶†", "▁▁", "ĠĊ", "\U0001d49c𐐀\U000e0041",
]
WORDS = ["the", " the", "don't", "it's", "I'LL", "we've", " 1234567", "hello", "World", "\n\n", "    ", "return x;", "if (a == b) {", "http://x.y/z", "<s>", "</s>",
         "<unk>", "[CLS]", "[SEP]", "<|im_end|>", "<|im_start|>", " <|x|> ", "<0x41>", "<extra_id_1>", "AAAA", "....", "new word", "NEW", "ſ", "'ſ"]


def strings(rng, n):
    for _ in range(n):
        parts = []
        for _ in range(rng.choice([1, 1, 2, 3, 5, 8, 20])):
            if rng.random() < 0.4:
                parts.append(rng.choice(WORDS))
            else:
                pool = rng.choice(POOLS)
                parts.append("".join(rng.choice(pool) for _ in range(rng.choice([1, 1, 2, 3, 6, 30]))))
            if rng.random() < 0.3:
                parts.append(" ")
        yield "".join(parts)


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
POSSESSIVE = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"


def matrix():
    """Name -> (model, normalizer, pre-tokenizer, decoder, post-processor, added tokens)."""
    bpe = lambda **k: models.BPE(**k)
    P, N, D = pre_tokenizers, normalizers, decoders
    byte = lambda **k: P.ByteLevel(**{"add_prefix_space": False, **k})
    out = {
        "bytes-gpt2": (bpe(), None, byte(), D.ByteLevel()),
        "bytes-prefix": (bpe(), None, byte(add_prefix_space=True), D.ByteLevel()),
        "bytes-nfc": (bpe(), N.NFC(), byte(), D.ByteLevel()),
        "bytes-nfkc": (bpe(), N.NFKC(), byte(), D.ByteLevel()),
        "bytes-nfd": (bpe(), N.NFD(), byte(), D.ByteLevel()),
        "bytes-nfkd": (bpe(), N.NFKD(), byte(), D.ByteLevel()),
        "bytes-lower": (bpe(), N.Sequence([N.NFD(), N.Lowercase(), N.StripAccents()]), byte(), D.ByteLevel()),
        "bytes-strip": (bpe(), N.Sequence([N.Strip(), N.Replace("a", "bb"), N.Replace(Regex(r"\s{2,}"), " ")]), byte(), D.ByteLevel()),
        "bytes-cl100k": (bpe(ignore_merges=True), None, P.Sequence([P.Split(Regex(CL100K), "isolated"), byte(use_regex=False)]), D.ByteLevel()),
        "bytes-possessive": (bpe(), None, P.Sequence([P.Split(Regex(POSSESSIVE), "isolated"), byte(use_regex=False)]), D.ByteLevel()),
        "bytes-removed": (bpe(), None, P.Sequence([P.Split(Regex(CL100K), "removed", invert=True), byte(use_regex=False)]), D.ByteLevel()),
        "bytes-falcon": (bpe(), None, P.Sequence([P.Punctuation("contiguous"), byte(), P.Digits(individual_digits=False), P.Split(Regex("[0-9][0-9][0-9]"), "isolated")]), D.ByteLevel()),
        "bytes-starcoder": (bpe(), None, P.Sequence([P.Digits(individual_digits=True), byte()]), D.ByteLevel()),
        "bytes-words": (bpe(), None, P.Sequence([P.Split(Regex(r"\w+|\W"), "isolated"), byte(use_regex=False)]), D.ByteLevel()),
        "bytes-bound": (bpe(), None, P.Sequence([P.Split(Regex(r"\b"), "isolated"), byte(use_regex=False)]), D.ByteLevel()),
        "bytes-han": (bpe(), None, P.Sequence([P.Split(Regex(r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}&&[^\p{Han}]]+|\p{N}{1,3}|\s+|[^\s\p{L}]"), "isolated"), byte(use_regex=False)]), D.ByteLevel()),
        "bytes-lines": (bpe(), None, P.Sequence([P.Split(Regex(r"^.+$|\h+"), "isolated"), byte(use_regex=False)]), D.ByteLevel()),
        "bytes-empty": (bpe(), None, P.Sequence([P.Split(Regex(r" ?[0-9]*"), "isolated"), byte(use_regex=False)]), D.ByteLevel()),
        "bytes-normalizer": (bpe(), N.ByteLevel(), P.Split(Regex("Ġ"), "merged_with_next"), D.ByteLevel()),
        "meta-always": (bpe(unk_token="<unk>"), None, P.Metaspace(), D.Metaspace()),
        "meta-first": (bpe(unk_token="<unk>", fuse_unk=True), None, P.Metaspace(prepend_scheme="first"), D.Metaspace(prepend_scheme="first")),
        "meta-never": (bpe(unk_token="<unk>"), None, P.Metaspace(prepend_scheme="never", split=False), D.Metaspace(prepend_scheme="never")),
        "llama": (bpe(unk_token="<unk>", fuse_unk=True, byte_fallback=True), N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")]), None,
                  D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])),
        "gemma": (bpe(unk_token="<unk>", fuse_unk=True, byte_fallback=True), N.Replace(" ", "▁"), P.Split(" ", "merged_with_previous"),
                  D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse()])),
        "clip": (bpe(unk_token="<unk>", continuing_subword_prefix="", end_of_word_suffix="</w>"), N.Sequence([N.NFC(), N.Replace(Regex(r"\s+"), " "), N.Lowercase()]),
                 P.Sequence([P.Split(Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True), byte()]), D.BPEDecoder(suffix="</w>")),
        "suffix": (bpe(unk_token="<unk>", end_of_word_suffix="</w>"), None, P.Whitespace(), D.BPEDecoder(suffix="</w>")),
        "prefix": (bpe(unk_token="<unk>", continuing_subword_prefix="##"), None, P.WhitespaceSplit(), D.WordPiece(prefix="##")),
        "bert": (models.WordPiece(unk_token="[UNK]"), N.BertNormalizer(), P.BertPreTokenizer(), D.WordPiece()),
        "bert-cased": (models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=12), N.BertNormalizer(lowercase=False), P.BertPreTokenizer(), D.WordPiece(cleanup=False)),
        "wordpiece-none": (models.WordPiece(unk_token="[UNK]"), N.Nmt(), P.Sequence([P.CharDelimiterSplit("e"), P.Punctuation("merged_with_previous")]), None),
        "wordlevel": (models.WordLevel(unk_token="<unk>"), None, P.Whitespace(), None),
        "unigram": (models.Unigram(), N.NFKC(), P.Metaspace(), D.Metaspace()),
        "unigram-bytes": (models.Unigram(), None, P.Sequence([P.WhitespaceSplit(), P.Metaspace(prepend_scheme="always")]), D.Sequence([D.ByteFallback(), D.Metaspace()])),
        "unigram-bytelevel": (models.Unigram(), None, byte(), D.ByteLevel()),
    }
    out.update({
        "bytes-digits3": (bpe(), None, P.Sequence([P.Split(Regex(r"\p{N}{1,3}"), "isolated"), P.Split(Regex(r"(?=(\d{3})+(?!\d))"), "isolated"), byte(use_regex=False)]), D.ByteLevel()),
        "bytes-deepseek": (bpe(), None, P.Sequence([P.Split(Regex("[\r\n]"), "isolated"), P.Split(Regex(r"\s?\p{L}+"), "isolated"), P.Split(Regex(r"\s?\p{P}+"), "isolated"),
                           P.Split(Regex("[一-龥ࠀ-一가-퟿]+"), "isolated"), P.Digits(individual_digits=True), byte(use_regex=False)]), D.ByteLevel()),
        "bytes-regex-late": (bpe(), None, P.Sequence([P.WhitespaceSplit(), byte(add_prefix_space=True)]), D.ByteLevel()),
        "bytes-replace": (bpe(), N.Sequence([N.Prepend("x"), N.Replace(Regex("[éè]|ﬁ"), ""), N.Strip(left=True, right=False)]), byte(), D.Sequence([D.ByteLevel(), D.Strip("x", 1, 0)])),
        "bytes-words-only": (bpe(), None, P.Sequence([P.Whitespace(), P.Digits(individual_digits=True), byte(add_prefix_space=False, use_regex=False)]), D.ByteLevel()),
        "meta-mark": (bpe(unk_token="<unk>"), None, P.Sequence([P.Punctuation("isolated"), P.Metaspace(replacement="_", prepend_scheme="first", split=True)]), D.Metaspace(replacement="_", prepend_scheme="first")),
        "meta-whole": (bpe(unk_token="<unk>", fuse_unk=True), N.Lowercase(), P.Metaspace(prepend_scheme="always", split=False), D.Metaspace(prepend_scheme="always")),
        "meta-late": (bpe(unk_token="<unk>"), None, P.Sequence([P.Digits(individual_digits=True), P.Metaspace(prepend_scheme="always"), P.Split("e", "merged_with_next")]), D.Metaspace()),
        "suffix-prefix": (bpe(unk_token="<unk>", continuing_subword_prefix="@@", end_of_word_suffix="</w>"), N.NFKC(), P.BertPreTokenizer(), D.Sequence([D.BPEDecoder(suffix="</w>"), D.Strip(" ", 0, 1)])),
        "no-unknown": (bpe(), N.NFC(), P.Whitespace(), D.Sequence([D.Replace("a", "b"), D.Replace(Regex("b+"), "c"), D.Fuse()])),
        "bert-accents": (models.WordPiece(unk_token="[UNK]"), N.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False), P.BertPreTokenizer(), D.WordPiece(prefix="##", cleanup=True)),
        "bert-keep": (models.WordPiece(unk_token="[UNK]"), N.BertNormalizer(strip_accents=False, lowercase=True), P.Sequence([P.WhitespaceSplit(), P.Punctuation()]), D.WordPiece()),
        "wordpiece-short": (models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=3), N.Sequence([N.NFKD(), N.StripAccents()]), P.Whitespace(), D.WordPiece()),
        "unigram-sequence": (models.Unigram(), N.Sequence([N.Nmt(), N.NFKC(), N.Replace(Regex(" {2,}"), " ")]), P.Sequence([P.WhitespaceSplit(), P.Metaspace(prepend_scheme="first")]), D.Metaspace(prepend_scheme="first")),
        "unigram-digits": (models.Unigram(), None, P.Sequence([P.Metaspace(prepend_scheme="never", split=False), P.Digits(individual_digits=True), P.Punctuation()]), D.Metaspace(prepend_scheme="never")),
    })
    for name in ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]:
        for invert in [False, True]:
            out[f"split-{name}-{invert}"] = (bpe(unk_token="<unk>"), None, P.Split(Regex(r"\s+|[0-9]|e"), name, invert=invert), D.Fuse())
        out[f"punct-{name}"] = (bpe(unk_token="<unk>"), None, P.Punctuation(name), D.Fuse())
    return out


ADDED = [AddedToken("<|im_end|>", special=True), AddedToken("<|im_start|>", special=True, rstrip=True), AddedToken("<|x|>", special=False, lstrip=True, rstrip=True),
         AddedToken("new word", normalized=True), AddedToken("NEW", normalized=True, single_word=True), AddedToken("new", single_word=True, normalized=False), AddedToken("\n\n", normalized=False),
         AddedToken("<extra_id_1>", special=True, lstrip=True)]


def train(name, spec, corpus, folder):
    model, norm, pre, dec = spec[:4]
    t = Tokenizer(model)
    if norm: t.normalizer = norm
    if pre: t.pre_tokenizer = pre
    if dec: t.decoder = dec
    specials = ["<unk>", "<s>", "</s>", "[UNK]", "[CLS]", "[SEP]"]
    kind = type(model).__name__
    if kind == "BPE":
        kw = {}
        if model.end_of_word_suffix: kw["end_of_word_suffix"] = model.end_of_word_suffix
        if model.continuing_subword_prefix: kw["continuing_subword_prefix"] = model.continuing_subword_prefix
        tr = trainers.BpeTrainer(vocab_size=1500, special_tokens=specials, show_progress=False, limit_alphabet=300,
                                 initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if name.startswith("bytes") else [], **kw)
    elif kind == "WordPiece": tr = trainers.WordPieceTrainer(vocab_size=1500, special_tokens=specials, show_progress=False, limit_alphabet=300)
    elif kind == "WordLevel": tr = trainers.WordLevelTrainer(vocab_size=800, special_tokens=specials, show_progress=False)
    else: tr = trainers.UnigramTrainer(vocab_size=1500, special_tokens=specials, unk_token="<unk>", show_progress=False)
    t.train_from_iterator(corpus, tr)
    t.post_processor = random.Random(name).choice([
        processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]),
        processors.BertProcessing(("[SEP]", 5), ("[CLS]", 4)), processors.RobertaProcessing(("</s>", 2), ("<s>", 1)),
        processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])])])
    j = json.loads(t.to_str())
    if name in ("llama", "gemma", "unigram-bytes"):  # byte entries
        vocab = j["model"]["vocab"]
        j["model"]["byte_fallback"] = True
        for b in range(256):
            if kind == "BPE": vocab.setdefault(f"<0x{b:02X}>", len(vocab))
            else: vocab.append([f"<0x{b:02X}>", -20.0])
    t = Tokenizer.from_str(json.dumps(j))
    t.add_tokens(ADDED)
    t.add_special_tokens([a for a in ADDED if a.special])
    path = os.path.join(folder, name + ".json")
    t.save(path)
    return path


def compare(lib, name, path, args, n_strings, may_refuse=False):
    theirs, ours = Tokenizer.from_file(path), None
    try:
        ours = Ours(lib, path)
    except ValueError as e:
        print(f"{'refused' if may_refuse else 'FAILED'} {name}: {e}")
        return 0 if may_refuse and "not supported" in str(e) else 1
    rng, bad, shown = random.Random(args.seed), 0, 0
    n_vocab = theirs.get_vocab_size()
    for text in strings(rng, n_strings):
        special = rng.random() < 0.3
        try:
            want = theirs.encode(text, add_special_tokens=special).ids
        except BaseException as e:
            if may_refuse: continue  # panics: a slice inside a character, tokens that reach over each other
            want = "error: " + str(e)
        got = ours.encode(text, special)
        wrong = ours.seam(random.Random(text), text)
        if wrong:
            bad += 1
            if (shown := shown + 1) <= args.show: print(f"  {name}: {text!r}: {wrong}")
        ids = want if isinstance(want, list) and rng.random() < 0.6 else [rng.randrange(n_vocab) for _ in range(rng.randrange(1, 12))]
        skip = rng.random() < 0.5
        try:
            text_want, text_got = theirs.decode(ids, skip_special_tokens=skip), ours.decode(ids, skip)
        except BaseException:  # theirs panics on some
            continue
        if want != got and not (isinstance(want, str) and isinstance(got, str)):
            bad += 1
            if (shown := shown + 1) <= args.show: print(f"  {name}: {text!r}\n    want {[theirs.id_to_token(i) for i in want] if isinstance(want, list) else want}\n    got  {[theirs.id_to_token(i) for i in got] if isinstance(got, list) else got}")
        if text_want != text_got:
            bad += 1
            if (shown := shown + 1) <= args.show: print(f"  {name}: decode {[theirs.id_to_token(i) for i in ids]} skip {skip}\n    want {text_want!r}\n    got  {text_got!r}")
    ours.close()
    print(f"{'FAILED' if bad else 'ok    '} {name}: {bad} of {n_strings} differ", flush=True)
    return bad


def apart(name, fn):
    """fn() in a process of its own: with some added tokens their library never ends and takes memory until there is none. None when it did not end well."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        signal.alarm(300)
        code = 101
        try:
            bad = fn()
            code = 100 if bad is None else min(bad, 99)
        except BaseException: traceback.print_exc()
        finally:  # never up into the parent's frames
            sys.stdout.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0 or code > 100: print(f"left out {name}: it ended with {code}")
    return code if 0 <= code < 100 else None


def compare_random(lib, args, k, corpus, folder):
    t = random_tokenizers.make(args.seed * 1000003 + k, corpus)
    if not t: return None
    t.save(f"{folder}/random.json")
    return compare(lib, f"random {args.seed}-{k}", f"{folder}/random.json", args, 40, may_refuse=True)


# SentencePiece's own options: what a tokenizer.model may ask for.
PIECES = {
    "spm-bpe": dict(model_type="bpe", byte_fallback=True), "spm-bpe-plain": dict(model_type="bpe"),
    "spm-bpe-identity": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True),
    "spm-bpe-nodummy": dict(model_type="bpe", byte_fallback=True, add_dummy_prefix=False, user_defined_symbols=["<tool>", "foo bar"], control_symbols=["<ctl>"]),
    "spm-bpe-spaces": dict(model_type="bpe", byte_fallback=True, allow_whitespace_only_pieces=True, remove_extra_whitespaces=False,
                           normalization_rule_name="identity", split_by_whitespace=False),
    "spm-unigram": dict(model_type="unigram"), "spm-unigram-fold": dict(model_type="unigram", normalization_rule_name="nmt_nfkc_cf"),
    "spm-unigram-bytes": dict(model_type="unigram", byte_fallback=True, remove_extra_whitespaces=False),
    "spm-unigram-identity": dict(model_type="unigram", normalization_rule_name="identity", user_defined_symbols=["<tool>"]),
    "spm-bpe-symbols": dict(model_type="bpe", byte_fallback=True, user_defined_symbols=["é", "12", "the", "foo bar", "<tool>"], unk_id=2, bos_id=0, eos_id=1),
    "spm-bpe-marks": dict(model_type="bpe", byte_fallback=True, remove_extra_whitespaces=False, normalization_rule_name="identity", add_dummy_prefix=False, user_defined_symbols=["▁▁", "▁▁▁", "\t"]),
    "spm-unigram-symbols": dict(model_type="unigram", remove_extra_whitespaces=False, user_defined_symbols=["é", "12", "the"], control_symbols=["<ctl>"], split_digits=True),
}


def compare_pieces(lib, name, options, corpus, folder, args, n_strings):
    """A model of SentencePiece's own trainer against its own library. Control tokens' text is ours to recognise, and unknown is decoded as nothing."""
    prefix = os.path.join(folder, name)
    with open(prefix + ".txt", "w") as f:
        f.write("\n".join(s.replace("\n", " ") for s in corpus))
    sentencepiece.SentencePieceTrainer.train(input=prefix + ".txt", model_prefix=prefix, hard_vocab_limit=False, minloglevel=2, num_threads=1, **{"vocab_size": 1200, **options})
    theirs, ours = sentencepiece.SentencePieceProcessor(model_file=prefix + ".model"), Ours(lib, prefix + ".model")
    rng, bad = random.Random(args.seed), 0
    for text in strings(rng, n_strings):
        if rng.random() < 0.2: text = text.replace(" ", rng.choice(["<tool>", " <tool> ", "foo bar", "é", "  "]), 2)
        want = theirs.encode(text)
        got = ours.encode(text, False) if not any(c in text for c in ("<s>", "</s>", "<unk>", "<ctl>")) else want
        ids = want if rng.random() < 0.6 else [rng.randrange(theirs.get_piece_size()) for _ in range(8)]
        ids = [i for i in ids if i != theirs.unk_id()]
        text_want, text_got = theirs.decode(ids), ours.decode(ids, True)
        bad += (want != got) + (text_want != text_got)
        if bad and (want != got or text_want != text_got) and bad <= args.show:
            print(f"  {name}: {text!r}\n    want {want} {text_want!r}\n    got  {got} {text_got!r}")
    ours.close()
    print(f"{'FAILED' if bad else 'ok    '} {name}: {bad} of {n_strings} differ", flush=True)
    return bad


QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = "|".join([r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
                  r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
                  r"""\p{N}{1,3}""", r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""", r"""\s*[\r\n]+""", r"""\s+(?!\S)""", r"""\s+"""])
KIMI = "|".join([r"""[\p{Han}]+""", r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
                 r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
                 r"""\p{N}{1,3}""", r""" ?[^\s\p{L}\p{N}]+[\r\n]*""", r"""\s*[\r\n]+""", r"""\s+(?!\S)""", r"""\s+"""])
# Split patterns as tiktoken's own files and the models' code have them.
RANKS = {"ranks-gpt2": GPT2, "ranks-r50k": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s", "ranks-qwen": QWEN, "ranks-o200k": O200K, "ranks-kimi": KIMI,
         "ranks-cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s", "ranks-llama3": CL100K}


def compare_ranks(lib, name, pattern, shuffled, corpus, folder, args, n_strings):
    """A rank file made on the spot, against tiktoken. shuffled: any order of ranks, so that entries are met that no pair of others makes."""
    rng = random.Random(args.seed)
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CL100K), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=900, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    byte_of = {c: b for b, c in zip([b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b], sorted(c for c in pre_tokenizers.ByteLevel.alphabet() if ord(c) < 256))}
    byte_of.update({chr(256 + i): b for i, b in enumerate(b for b in range(256) if not (33 <= b <= 126 or 161 <= b <= 172 or 174 <= b))})
    pieces = [bytes(byte_of[c] for c in piece) for piece, _ in sorted(t.get_vocab().items(), key=lambda x: x[1])]
    if shuffled: rng.shuffle(pieces)
    ranks = {piece: i for i, piece in enumerate(pieces)}
    specials = {"<|endoftext|>": len(pieces), "<|im_end|>": len(pieces) + 1, "<|x|>": len(pieces) + 7}
    theirs = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials)
    where = os.path.join(folder, name)
    os.mkdir(where)
    with open(where + "/own.tiktoken", "w") as f: f.writelines(f"{base64.b64encode(piece).decode()} {i}\n" for piece, i in ranks.items())
    with open(where + "/tokenizer_config.json", "w") as f:
        json.dump({"pat_str": pattern, "added_tokens_decoder": {str(i): {"content": s, "special": True} for s, i in specials.items()}}, f)
    ours, bad = Ours(lib, where + "/own.tiktoken"), 0
    for text in strings(rng, n_strings):
        want, got = theirs.encode(text, allowed_special="all"), ours.encode(text, False)
        ids = want if rng.random() < 0.6 else [rng.choice([*ranks.values(), *specials.values()]) for _ in range(8)]
        text_want, text_got = theirs.decode(ids), ours.decode(ids, False)
        typed_want, typed_got = theirs.encode_ordinary(text), ours.encode(text, False, typed=True)
        if want != got or text_want != text_got or typed_want != typed_got:
            bad += 1
            if bad <= args.show: print(f"  {name}: {text!r}\n    want {want} {typed_want} {text_want!r}\n    got  {got} {typed_got} {text_got!r}")
    ours.close()
    print(f"{'FAILED' if bad else 'ok    '} {name}: {bad} of {n_strings} differ", flush=True)
    return bad


def compare_random_pieces(lib, args, k, corpus, folder):
    options = random_tokenizers.pieces(args.seed * 1000003 + k)
    name = f"pieces-{args.seed}-{k}"
    try:
        return compare_pieces(lib, name, options, corpus, folder, args, 40)
    except RuntimeError as e:  # options that their trainer cannot join
        print(f"left out {name}: {str(e)[-100:]!r}")
        return None


def charsmap(folder, rule):
    """The precompiled map of one of SentencePiece's rules: field 2 of field 3 of a model made with it."""
    prefix = os.path.join(folder, rule)
    with open(prefix + ".txt", "w") as f: f.write("a b c\n" * 20)
    sentencepiece.SentencePieceTrainer.train(input=prefix + ".txt", model_prefix=prefix, vocab_size=20, hard_vocab_limit=False, minloglevel=2, normalization_rule_name=rule)
    def field(data, wanted):
        i, found = 0, b""
        def varint():
            nonlocal i
            value = shift = 0
            while True:
                byte, i = data[i], i + 1
                value |= (byte & 127) << shift
                shift += 7
                if byte < 128: return value
        while i < len(data):
            key = varint()
            if key & 7 == 0: varint()
            elif key & 7 == 5: i += 4
            elif key & 7 == 1: i += 8
            else:
                n = varint()
                if key >> 3 == wanted: found = data[i:i + n]
                i += n
        return found
    with open(prefix + ".model", "rb") as f: return field(field(f.read(), 3), 2)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--strings", type=int, default=100000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--show", type=int, default=2)
    p.add_argument("--only", default="")
    p.add_argument("--random", type=int, default=40)
    p.add_argument("paths", nargs="*")
    args = p.parse_args()
    bad = done = 0
    with tempfile.TemporaryDirectory() as folder:
        lib = library(folder)
        corpus = [] if args.paths else list(strings(random.Random(7), 1500)) + ["the quick brown fox jumps over the lazy dog and runs"] * 50
        jobs = [(p, None) for p in args.paths] or [(name, spec) for name, spec in matrix().items() if args.only in name]
        pieces = [] if args.paths or not sentencepiece else [(name, o) for name, o in PIECES.items() if args.only in name]
        ranks = [] if args.paths or not tiktoken else [(name + end, o, bool(end)) for name, o in RANKS.items() for end in ("", "-shuffled") if args.only in name + end]
        share = max(1, -(-args.strings // max(1, len(jobs) + len(pieces) + len(ranks))))
        for name, pattern, shuffled in ranks:
            bad += compare_ranks(lib, name, pattern, shuffled, corpus, folder, args, share)
            done += share
        for name, options in pieces:
            bad += compare_pieces(lib, name, options, corpus, folder, args, share)
            done += share
        for name, spec in jobs:
            bad += compare(lib, name, train(name, spec, corpus, folder) if spec else name, args, share)
            done += share
        if sentencepiece: random_tokenizers.CHARSMAPS[:] = [charsmap(folder, rule) for rule in ("nmt_nfkc", "nfkc_cf")]
        for k in range(0 if args.paths or args.only else args.random):
            for kind in [compare_random, compare_random_pieces] if sentencepiece else [compare_random]:
                found = apart(f"{kind.__name__} {args.seed}-{k}", lambda: kind(lib, args, k, corpus[:600], folder))
                if found is None: continue
                bad += found
                done += 40
    print(f"{done} strings, {bad} differ")
    sys.exit(1 if bad else 0)


main()
