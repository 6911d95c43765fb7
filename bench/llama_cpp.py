#!/usr/bin/env python3
"""llama.cpp as bench/peer drives it: its shared library, loaded from the npm package node-llama-cpp (release v0.5.0), behind a pipe.

    bench/llama_cpp.py FOLDER MODEL [--cpu NAME] [--threads N]

FOLDER holds libllama.*.so and libggml-*.so; NAME says which libggml-cpu-NAME.so (haswell for AVX2), else the library picks. Each line of input is one
piece of work, "KV FLASH N_PAST N_TOKENS N_STREAMS" (KV: f16 or q4_0; FLASH: 0 or 1; N_STREAMS 0: prefill), each line of output its seconds.

The structures are those of that release's llama.h. Another release may have others: the version is pinned in bench/peer."""
import argparse
import ctypes as c
import glob
import os
import sys
import time

I32, U32, F32, PTR, BOOL = c.c_int32, c.c_uint32, c.c_float, c.c_void_p, c.c_bool
GGML_TYPE = {"f16": 1, "q4_0": 2}
FILE_TYPE = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k": 11, "q4_k": 14, "q5_k": 16, "q6_k": 18}


class ModelParams(c.Structure):
    _fields_ = [("devices", PTR), ("tensor_buft_overrides", PTR), ("n_gpu_layers", I32), ("split_mode", I32), ("load_mode", I32), ("lazy_mode", I32),
                ("main_gpu", I32), ("tensor_split", PTR), ("progress_callback", PTR), ("progress_callback_user_data", PTR), ("kv_overrides", PTR),
                ("vocab_only", BOOL), ("check_tensors", BOOL), ("use_extra_bufts", BOOL), ("no_host", BOOL), ("no_alloc", BOOL), ("load_mtp", BOOL)]


class ContextParams(c.Structure):
    _fields_ = [("n_ctx", U32), ("n_batch", U32), ("n_ubatch", U32), ("n_seq_max", U32), ("n_rs_seq", U32), ("n_outputs_max", U32),
                ("n_outputs_max_per_seq", U32), ("n_threads", I32), ("n_threads_batch", I32), ("ctx_type", I32), ("rope_scaling_type", I32),
                ("pooling_type", I32), ("attention_type", I32), ("flash_attn_type", I32), ("rope_freq_base", F32), ("rope_freq_scale", F32),
                ("yarn_ext_factor", F32), ("yarn_attn_factor", F32), ("yarn_beta_fast", F32), ("yarn_beta_slow", F32), ("yarn_orig_ctx", U32),
                ("defrag_thold", F32), ("cb_eval", PTR), ("cb_eval_user_data", PTR), ("type_k", I32), ("type_v", I32), ("abort_callback", PTR),
                ("abort_callback_data", PTR), ("embeddings", BOOL), ("offload_kqv", BOOL), ("no_perf", BOOL), ("op_offload", BOOL), ("swa_full", BOOL),
                ("kv_unified", BOOL), ("samplers", PTR), ("n_samplers", c.c_size_t), ("ctx_other", PTR)]


class Batch(c.Structure):
    _fields_ = [("n_tokens", I32), ("token", c.POINTER(I32)), ("embd", PTR), ("pos", c.POINTER(I32)), ("n_seq_id", c.POINTER(I32)),
                ("seq_id", c.POINTER(c.POINTER(I32))), ("logits", c.POINTER(c.c_int8))]


class Libraries:
    def __init__(self, folder):
        def only(pattern):
            found = glob.glob(os.path.join(folder, pattern))
            if len(found) != 1:
                raise SystemExit(f"{folder} has {len(found)} files {pattern}, not one")
            return found[0]

        base = c.CDLL(only("libggml-base.so"), mode=c.RTLD_GLOBAL)
        self.ggml = c.CDLL(only("libggml.v*.so"), mode=c.RTLD_GLOBAL)
        self.llama = c.CDLL(only("libllama.v*.so"), mode=c.RTLD_GLOBAL)
        self.silent = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)(lambda level, text, data: None)
        base.ggml_log_set(self.silent, None)
        self.llama.llama_log_set(self.silent, None)

    def load_best(self, folder):
        self.ggml.ggml_backend_load_all_from_path.argtypes = [c.c_char_p]
        self.ggml.ggml_backend_load_all_from_path(folder.encode())


class QuantizeParams(c.Structure):
    """Its beginning, which has stayed the same for long; what follows is as the library fills it in."""
    _fields_ = [("nthread", I32), ("ftype", I32), ("output_tensor_type", I32), ("token_embedding_type", I32), ("allow_requantize", BOOL),
                ("quantize_output_tensor", BOOL), ("only_copy", BOOL), ("pure", BOOL), ("rest", c.c_char * 236)]


def quantise(folder, model, path, form):
    """Writes a GGUF file of floats with every matrix in one form, FILE_TYPE's."""
    libraries = Libraries(folder)
    libraries.load_best(folder)
    lib = libraries.llama
    lib.llama_model_quantize_default_params.restype = QuantizeParams
    lib.llama_model_quantize.argtypes, lib.llama_model_quantize.restype = [c.c_char_p, c.c_char_p, PTR], U32
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.pure = FILE_TYPE[form], True
    if lib.llama_model_quantize(model.encode(), path.encode(), c.byref(params)):
        raise SystemExit(f"llama.cpp does not write {model} as {form}")


class Peer:
    def __init__(self, folder, model, cpu, threads):
        self.libraries = Libraries(folder)
        ggml = self.libraries.ggml
        self.lib = lib = self.libraries.llama
        for name, result, arguments in [
                ("llama_model_default_params", ModelParams, []), ("llama_context_default_params", ContextParams, []),
                ("llama_model_load_from_file", PTR, [c.c_char_p, ModelParams]), ("llama_init_from_model", PTR, [PTR, ContextParams]),
                ("llama_free", None, [PTR]), ("llama_decode", I32, [PTR, Batch]), ("llama_synchronize", None, [PTR]),
                ("llama_get_memory", PTR, [PTR]), ("llama_memory_seq_rm", BOOL, [PTR, I32, I32, I32]), ("llama_memory_clear", None, [PTR, BOOL]),
                ("llama_memory_seq_cp", None, [PTR, I32, I32, I32, I32]), ("llama_batch_init", Batch, [I32, I32, I32]),
                ("llama_model_get_vocab", PTR, [PTR]), ("llama_vocab_n_tokens", I32, [PTR])]:
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        if cpu:
            ggml.ggml_backend_load.argtypes, ggml.ggml_backend_load.restype = [c.c_char_p], PTR
            if not ggml.ggml_backend_load(os.path.join(folder, f"libggml-cpu-{cpu}.so").encode()):
                raise SystemExit(f"no libggml-cpu-{cpu}.so that runs here in {folder}")
        else:
            self.libraries.load_best(folder)
        lib.llama_backend_init()
        self.threads = threads
        self.model = lib.llama_model_load_from_file(model.encode(), lib.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {model}")
        self.n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.batch = lib.llama_batch_init(2048, 0, 1)
        self.context, self.contexts = None, {}  # by kind, the oldest first: a deep one takes minutes to fill

    def decode(self, entries):
        """One batch of (token, position, sequence); logits for the last of each sequence."""
        b = self.batch
        last = {s: i for i, (_, _, s) in enumerate(entries)}
        for i, (token, position, sequence) in enumerate(entries):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, position, 1, last[sequence] == i
            b.seq_id[i][0] = sequence
        b.n_tokens = len(entries)
        if self.lib.llama_decode(self.context, b):
            raise SystemExit("llama_decode failed")
        self.lib.llama_synchronize(self.context)

    def token(self, position):
        return position * 7919 % self.n_vocab

    def make(self, kv, flash, past, n_sequences, total):
        lib = self.lib
        params = lib.llama_context_default_params()
        params.n_seq_max = n_sequences
        params.n_ctx = (total + 255) // 256 * 256 * n_sequences
        params.n_batch, params.n_ubatch = 2048, 512
        params.n_threads = params.n_threads_batch = self.threads
        params.type_k = params.type_v = GGML_TYPE[kv]
        params.flash_attn_type, params.kv_unified, params.no_perf = flash, False, True
        self.context = lib.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"llama.cpp makes no context of {params.n_ctx} tokens")
        for at in range(0, past, 512):
            self.decode([(self.token(at + i), at + i, 0) for i in range(min(512, past - at))])
        for s in range(1, n_sequences):
            lib.llama_memory_seq_cp(lib.llama_get_memory(self.context), 0, s, -1, -1)

    def prepare(self, kv, flash, past, streams, total):
        """A context whose every sequence has `past` tokens and room for `total`; two are kept, for rows that ask for the same."""
        key = (kv, flash, past, max(streams, 1))
        lib = self.lib
        self.context, room = self.contexts.pop(key, (None, 0))
        if room < total:
            old = [self.context] if self.context else []
            while len(self.contexts) > 1:
                old.append(self.contexts.pop(next(iter(self.contexts)))[0])
            for context in old:
                lib.llama_free(context)
            room = total
            self.make(*key, total)
        self.contexts[key] = (self.context, room)
        memory = lib.llama_get_memory(self.context)
        if past == 0:
            lib.llama_memory_clear(memory, False)
        for s in range(max(streams, 1) if past else 0):
            lib.llama_memory_seq_rm(memory, s, past, -1)

    def run(self, kv, flash, past, n, streams):
        self.prepare(kv, flash, past, streams, past + n)
        start = time.monotonic()
        if streams:
            for step in range(n):
                self.decode([((step * 31 + s * 17 + 5) % self.n_vocab, past + step, s) for s in range(streams)])
        else:
            for at in range(past, past + n, 2048):
                self.decode([(self.token(at + i), at + i, 0) for i in range(min(2048, past + n - at))])
        return time.monotonic() - start


def main():
    p = argparse.ArgumentParser()
    p.add_argument("folder")
    p.add_argument("model")
    p.add_argument("--cpu")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    a = p.parse_args()
    peer = Peer(a.folder, a.model, a.cpu, a.threads)
    print("ready", flush=True)
    for line in sys.stdin:
        kv, flash, past, n, streams = line.split()
        print(peer.run(kv, int(flash), int(past), int(n), int(streams)), flush=True)


if __name__ == "__main__":
    main()
