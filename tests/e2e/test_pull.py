"""Models from a hub that behaves, breaks off, lies and is slow; and what is done with them afterwards: list, show, serve, rm."""
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import ssl
import struct
import subprocess
import tempfile
import time

import hub as hubs
from harness import BINARY, TOP, Server, Skip, expect, run, temp_dir
from hub import Hub, sha

MEMO = os.path.join(TOP, "models", "memo-28m")
DECOYS = {"pytorch_model.bin": b"\x80pickle", "consolidated.safetensors": b"x" * 100, "onnx/model.onnx": b"x", "original/consolidated.00.pth": b"x", "README.md": b"# x",
          ".gitattributes": b"*", "training_args.bin": b"x", "tf_model.h5": b"x", "adapter_model.safetensors": b"x"}
QUIET = {"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "", "HF_HOME": "/nonexistent", "HF_ENDPOINT": "", "http_proxy": "", "no_proxy": "*"}
WEIGHTS = "model.safetensors"


@functools.lru_cache(1)
def memo():
    files = {}
    for name in os.listdir(MEMO):
        with open(os.path.join(MEMO, name), "rb") as f:
            files[name] = f.read()
    return files


def sharded(files):
    """The same model with its weights in two files."""
    data = files[WEIGHTS]
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    names = sorted(header)
    out, index = {k: v for k, v in files.items() if k != WEIGHTS}, {}
    for i, part in enumerate((names[:len(names) // 2], names[len(names) // 2:])):
        own, body = {}, b""
        for name in part:
            a, b = header[name]["data_offsets"]
            own[name] = {**header[name], "data_offsets": [len(body), len(body) + b - a]}
            body += data[8 + n + a:8 + n + b]
            index[name] = f"model-0000{i + 1}-of-00002.safetensors"
        text = json.dumps(own).encode()
        text += b" " * (-len(text) % 8)
        out[f"model-0000{i + 1}-of-00002.safetensors"] = struct.pack("<Q", len(text)) + text + body
    out["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": index}).encode()
    return out


@functools.lru_cache(1)
def ggufs():
    with temp_dir() as d:
        out = {}
        for kind in ("q4_0", "q8_0"):
            path = os.path.join(d, kind + ".gguf")
            code, o, e = run("convert", MEMO, path, "--to", "gguf-" + kind, timeout=120)
            expect(code == 0, o + e)
            with open(path, "rb") as f:
                out[kind] = f.read()
        return out


def pull(hub, data_dir, what, *args, env=None, code=0, timeout=120):
    got, out, err = run("pull", what, "--data-dir", data_dir, "--hub", hub.url, *args, env={**QUIET, **(env or {})}, timeout=timeout)
    expect(got == code, lambda: f"{what}: exit code {got}, wanted {code}: {out}{err}")
    return out + err


def listed(data_dir, *args):
    code, out, err = run("list", "--json", "--data-dir", data_dir, *args)
    expect(code == 0, err)
    return {m["name"]: m for m in json.loads(out)}


def kept(data_dir, name="org/memo"):
    d = os.path.join(data_dir, "models", *name.split("/"))
    return set(os.listdir(d)) if os.path.isdir(d) else set()


def content(data_dir, file, name="org/memo"):
    with open(os.path.join(data_dir, "models", *name.split("/"), file), "rb") as f:
        return f.read()


@contextlib.contextmanager
def world(repos=None, **more):
    with temp_dir() as d, Hub(repos or {"org/memo": {**memo(), **DECOYS}}, **more) as hub:
        yield d, hub


def is_right(d, name="org/memo", files=None):
    for file, data in (files or memo()).items():
        expect(content(d, file, name) == data, file)
    expect(not any(f.endswith((".part", ".json.tmp")) for f in kept(d, name)), str(kept(d, name)))
    expect(not os.listdir(os.path.join(d, "models", ".part")), "nothing is left over")


def test_a_folder_and_what_is_done_with_it():
    with world() as (d, hub):
        out = pull(hub, d, "hf:org/memo")
        expect("serve --model org/memo" in out, out)
        expect(kept(d) == set(memo()) - {"README.md", "LICENSE"} - {n for n in memo() if n.endswith(".md")} | {".pulled.json"}, str(kept(d)))
        is_right(d, files={k: v for k, v in memo().items() if k in kept(d)})
        expect(not any(hub.count(name) for name in DECOYS), "decoys are not fetched")
        expect(hub.count(WEIGHTS) > 8, "ranges in parallel")
        expect(all(r.path.split("/")[4] == hub.commit for r in hub.log if "/resolve/" in r.path), "files of the commit, not of the branch")
        expect("nothing has changed" in pull(hub, d, "org/memo"), "again")
        models = listed(d)
        expect(models["org/memo"]["from"] == "pulled" and models["org/memo"]["parameters"] == models["memo-28m"]["parameters"] and models["org/memo"]["modified"], str(models))
        code, out, err = run("show", "org/memo", "--data-dir", d)
        expect(code == 0 and "architecture  llama" in out, out + err)
        with Server(d, "--model", "org/memo", "--model", "small=org/memo", "--ctx", "1024", "--kv-memory", "32M", "--kv-bits", "8", "--log-level", "warn") as s:
            r = s.request("POST", "/v1/chat/completions", {"model": "org/memo", "messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0})
            expect(r.status == 200 and "Memo" in r.json()["choices"][0]["message"]["content"], str(r.body))
            expect(s.request("GET", "/v1/models/org/memo").json()["id"] == "org/memo", "by its name, slash and all")
            there = ["--data-dir", d, "--port", str(s.live_port)]
            code, out, err = run("ps", *there)
            expect(code == 0 and re.search(r"^org/memo +ready .* s ago$", out, re.M) and "LAST USE" in out, out + err)
            code, out, err = run("rm", "org/memo", "--yes", *there)
            expect(code == 1 and "agent-memory unload org/memo" in err, out + err)
            code, out, err = run("rm", "org/memo", *there)
            expect(code == 2 and "--yes" in err and "org/memo" in listed(d), out + err)
            code, out, err = run("rm", "org/memo", "--yes", "--force", *there)
            expect(code == 0 and "removed" in out, out + err)
            expect(s.request("GET", "/v1/admin/status").json()["models"][0]["state"] == "absent", "unloaded first")
        expect("org/memo" not in listed(d) and os.listdir(os.path.join(d, "models")) == [".part"], str(os.listdir(os.path.join(d, "models"))))
        code, out, err = run("rm", "org/memo", "--yes", "--data-dir", d, "--port", "1")
        expect(code == 1 and "was not pulled" in err, err)
        code, out, err = run("serve", "--model", "org/memo", "--data-dir", d, "--port", "0")
        expect(code == 2 and "agent-memory pull org/memo" in err, err)


def test_shards_of_the_index_alone():
    files = sharded(memo())
    with world({"org/memo": {**files, "model-00003-of-00003.safetensors": b"old", WEIGHTS.replace("model", "other"): b"x"}}) as (d, hub):
        pull(hub, d, "org/memo")
        expect({n for n in kept(d) if n.endswith(".safetensors")} == {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}, str(kept(d)))
        code, out, err = run("show", "--load", "org/memo", "--data-dir", d)
        expect(code == 0 and "29.4 M" in out, out + err)
        hub.repos["org/memo"]["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": "../../evil.safetensors"}}).encode()
        hub.commit = hub.commit[::-1]
        expect("no name of a file" in pull(hub, d, "org/memo", code=3), "an index that points outside")


def test_gguf_files_by_choice():
    q = ggufs()
    repo = {"memo-Q4_0.gguf": q["q4_0"], "memo-Q8_0.gguf": q["q8_0"], "mmproj-memo-Q8_0.gguf": b"GGUF", "README.md": b"x", "config.json": b"{}"}
    with world({"org/memo-GGUF": repo}) as (d, hub):
        said = pull(hub, d, "org/memo-GGUF", code=2)
        expect("memo-Q4_0.gguf, memo-Q8_0.gguf" in said and "mmproj" not in said, said)
        expect("no GGUF file 'Q5_K'" in pull(hub, d, "org/memo-GGUF:Q5_K", code=2), "a choice that is none")
        pull(hub, d, "org/memo-GGUF:q8_0")
        expect(set(listed(d)) == {"memo-28m", "org/memo-GGUF"} and hub.count("memo-Q4_0.gguf") == 0, str(listed(d)))
        pull(hub, d, "hf:org/memo-GGUF:memo-Q4_0.gguf")
        expect(set(listed(d)) == {"memo-28m", "org/memo-GGUF:Q4_0", "org/memo-GGUF:Q8_0"}, str(listed(d)))
        code, out, err = run("show", "org/memo-GGUF", "--data-dir", d)
        expect(code == 1 and "name one" in err and "Q4_0" in err, out + err)
        with Server(d, "--model", "org/memo-GGUF:Q4_0", "--ctx", "1024", "--kv-memory", "32M", "--log-level", "warn") as s:
            expect(s.request("GET", "/v1/models").json()["data"][0]["id"] == "org/memo-GGUF:Q4_0", "its name")
        code, out, err = run("rm", "org/memo-GGUF:Q4_0", "--yes", "--data-dir", d, "--port", "1")
        expect(code == 0 and set(listed(d)) == {"memo-28m", "org/memo-GGUF"}, out + err)


def test_all_parts_of_a_split_file():
    parts = {f"q4/memo-Q4_K_M-0000{i}-of-00003.gguf": b"GGUF\3\0\0\0" + bytes([i]) * 3000 for i in (1, 2, 3)}
    with world({"org/x": {**parts, "q8/memo-Q8_0-00001-of-00003.gguf": b"GGUF"}}) as (d, hub):
        said = pull(hub, d, "org/x:Q8_0", code=3)
        expect("3 parts, 1 are there" in said, said)
        said = pull(hub, d, "org/x", code=3)
        expect("is no model" in said and all(hub.count(f"memo-Q4_K_M-0000{i}-of-00003.gguf") for i in (1, 2, 3)), said)
        expect("org/x" not in str(listed(d)), "what cannot be read is not kept")


def test_plain_addresses():
    q = ggufs()["q4_0"]
    with world({"some/where": {"dir/memo.gguf": q, "page.gguf": b"<html>not found</html>"}}, redirect=False) as (d, hub):
        url = f"{hub.url}/some/where/resolve/x/dir/memo.gguf"
        pull(hub, d, url)
        expect(content(d, "memo.gguf", "127.0.0.1/memo") == q and "127.0.0.1/memo" in listed(d), str(listed(d)))
        expect("nothing has changed" in pull(hub, d, url), "by its ETag")
        expect("no GGUF file" in pull(hub, d, url.replace("dir/memo", "page"), code=3), "a page")
        said = pull(hub, d, url + "?x", "--sha256", "0" * 64, code=3)
        expect("sha256" in said and content(d, "memo.gguf", "127.0.0.1/memo") == q, said)
        expect("the address of a .gguf file" in pull(hub, d, hub.url + "/model.safetensors", code=2), "other files")
        expect("user's name" in pull(hub, d, "http://a:b@127.0.0.1/x.gguf", code=2), "a user")


def test_names_that_are_none():
    with world() as (d, hub):
        for name in ("memo", "../etc/passwd", "org/..", "org/a/b", "org/memo@", "org/memo:", "org/memo@a..b", "org/memo:../x", "org/.x", "-a/b", "org/a--b", "file:///etc/passwd", "org/me mo"):
            pull(hub, d, name, code=2)
        expect(not hub.log, "nobody was asked")
        expect("Repository not found" in pull(hub, d, "org/none", code=1), "no such repository")
        expect("Invalid rev id" in pull(hub, d, "org/memo@nope", code=1), "no such revision")
        pull(hub, d, "org/memo@v1.0")


def test_paths_that_lead_outside():
    for path in ("../evil.json", "/etc/evil.json", "a/../../evil.json", "a//b.json", "a\\b.json", "x\u0000.json", "..", "a\nb.json"):
        with world({"org/memo": {**memo(), path: b"evil"}}) as (d, hub):
            expect("refused" in pull(hub, d, "org/memo", code=3), path)
            expect(not kept(d) and not os.path.exists(os.path.join(d, "evil.json")), path)


def test_tokens_go_to_the_hub_alone():
    with world(token="hf_secret") as (d, hub):
        said = pull(hub, d, "org/memo", code=1)
        expect("restricted" in said and "HF_TOKEN" in said, said)
        pull(hub, d, "org/memo", env={"HF_TOKEN": "hf_secret"})
        cdn = [r for r in hub.log if r.origin == "cdn"]
        expect(cdn and not any(r.token for r in cdn), "the other origin does not see it")
        expect(not any("secret" in (r.token or "") for r in hub.log if r.origin != "hub"), "nor anybody")
        with open(os.path.join(d, "token"), "w", encoding="ascii") as f:
            f.write("hf_secret\n")
        shutil.rmtree(os.path.join(d, "models"))
        pull(hub, d, "org/memo", env={"HF_HOME": d})
    with world(token="hf_secret") as (d, hub):
        pull(hub, d, "org/memo", env={"HUGGING_FACE_HUB_TOKEN": "hf_secret", "HF_ENDPOINT": hub.url})


def times(n, fault):
    """The fault for the first n requests of a file, then none."""
    left = [n]

    def some(handler, request, data):
        left[0] -= 1
        return left[0] >= 0 and fault(handler, request, data)
    return some


def answer(status, **fields):
    return lambda h, r, data: h.answer(status, b"busy", **fields) or True


def test_what_fails_is_tried_again():
    faults = {
        "breaks off": times(6, lambda h, r, data: h.send_part(r, data, upto=300000) or True),
        "503": times(4, answer(503)),
        "429 with a time": times(1, answer(429, retry_after=1)),
        "500 and 408": times(2, answer(500)),
        "closes at once": times(4, lambda h, r, data: setattr(h, "close_connection", True) or True),
        "a short answer": times(3, lambda h, r, data: h.send_part(r, data, length=1000, upto=1000) or True),
        "signed address that ran out": times(2, answer(403)),
    }
    for name, fault in faults.items():
        with world() as (d, hub):
            hub.faults[WEIGHTS] = fault
            pull(hub, d, "org/memo")
            expect(content(d, WEIGHTS) == memo()[WEIGHTS], name)


def test_silence_is_given_up():
    def silent(handler, request, data):
        handler.send_part(request, data, upto=100000)
        handler.wfile.flush()
        handler.close_connection = False
        time.sleep(4)
        return True
    with world() as (d, hub):
        hub.faults[WEIGHTS] = times(2, silent)
        pull(hub, d, "org/memo", "--silence", "1s")
        expect(content(d, WEIGHTS) == memo()[WEIGHTS], "all of it")


def test_retries_end():
    with world() as (d, hub):
        hub.faults[WEIGHTS] = answer(503)
        said = pull(hub, d, "org/memo", "--retries", "2", code=1)
        expect("given up after 3 tries" in said and "503" in said, said)
        expect("org/memo" not in listed(d) and not kept(d), "nothing under its name")
        hub.faults.clear()
        before = hub.fetched("tokenizer.json")
        pull(hub, d, "org/memo")
        expect(hub.fetched("tokenizer.json") == before, "what was whole is not fetched again")


def test_a_server_without_ranges():
    with world() as (d, hub):
        def whole(handler, request, data):
            request.range = None
            return handler.send_part(request, data) or True
        hub.faults[WEIGHTS] = whole
        pull(hub, d, "org/memo")
        expect(content(d, WEIGHTS) == memo()[WEIGHTS], "one stream")
    with world() as (d, hub):
        def broken(handler, request, data):
            request.range = None
            return handler.send_part(request, data, upto=len(data) // 2) or True
        hub.faults[WEIGHTS] = broken
        expect("given up" in pull(hub, d, "org/memo", "--retries", "2", code=1), "a line that never holds")


def test_a_file_that_changes_meanwhile():
    with world({"org/x": {"memo.gguf": ggufs()["q4_0"]}}, redirect=False) as (d, hub):
        url, count = f"{hub.url}/org/x/resolve/main/memo.gguf", [0]

        def once(handler, request, data):
            count[0] += 1
            return handler.send_part(request, data, etag='"old"' if count[0] < 4 else '"new"') or True
        hub.faults["memo.gguf"] = once
        pull(hub, d, url)
        expect(content(d, "memo.gguf", "127.0.0.1/memo") == ggufs()["q4_0"], "of one content")

        def always(handler, request, data):
            count[0] += 1
            return handler.send_part(request, data, etag=f'"{count[0]}"') or True
        hub.faults["memo.gguf"] = always
        expect("changed on the server" in pull(hub, d, url, code=3), "and never ends")


def test_lies():
    flipped = bytearray(memo()[WEIGHTS])
    flipped[5000000] ^= 1
    lies = {
        "sha256": (lambda h, r, data: h.send_part(r, bytes(flipped), etag='"x"') or True, 3),
        "another length": (lambda h, r, data: h.send_part(r, data, total=len(data) + 5) or True, 3),
        "its length on the server": (lambda h, r, data: h.send_part(r, data + b"more") or True, 3),
        "another range": (lambda h, r, data: setattr(r, "range", "bytes=0-99") or h.send_part(r, data) or True, 3),
        "redirects without end": (lambda h, r, data: h.answer(302, location=h.path) or True, 3),
        "no address of the web": (lambda h, r, data: h.answer(302, location="file:///etc/passwd") or True, 1),
        "404": (lambda h, r, data: h.answer(404) or True, 1),
    }
    for says, (fault, code) in lies.items():
        with world() as (d, hub):
            hub.faults[WEIGHTS] = fault
            said = pull(hub, d, "org/memo", "--retries", "1", code=code)
            expect(says in said or says == "another length", f"{says}: {said}")
            expect(not kept(d) and "org/memo" not in listed(d), says)
    with world() as (d, hub):
        hub.faults["config.json"] = lambda h, r, data: h.send_part(r, data + b" ") or True
        expect("has" in pull(hub, d, "org/memo", code=3), "a small file of another length")
    with world() as (d, hub):
        hub.api_fault = lambda h, r: h.answer(200, b'{"sha": "' + hubs.COMMIT.encode() + b'", "siblings": [{"rfilename": "config.json", "size": 4503599627370000}]}') or True
        expect("neither" in pull(hub, d, "org/memo", code=1), "no weights")
        hub.api_fault = lambda h, r: h.answer(200, b"[1, 2") or True
        pull(hub, d, "org/memo", code=3)
        hub.api_fault = lambda h, r: h.answer(200, json.dumps({"sha": hubs.COMMIT, "siblings": [{"rfilename": "config.json", "size": 10},
                                                              {"rfilename": WEIGHTS, "size": 1 << 51}]}).encode()) or True
        said = pull(hub, d, "org/memo", code=1)
        expect("are free there" in said and hub.count(WEIGHTS) == 0, said)


def test_a_model_that_cannot_run_here_is_not_fetched():
    config = json.dumps({**json.loads(memo()["config.json"]), "architectures": ["NovelForCausalLM"], "model_type": "novel"}).encode()
    with world({"org/memo": {**memo(), "config.json": config}}) as (d, hub):
        said = pull(hub, d, "org/memo", code=1)
        expect("novel" in said.lower() and "--force" in said and hub.fetched(WEIGHTS) == 0, said)
        pull(hub, d, "org/memo", "--force")
        expect("cannot be loaded" in run("list", "--data-dir", d)[1], "list says so")


def start(hub, d, *args):
    return subprocess.Popen([BINARY, "pull", "org/memo", "--data-dir", d, "--hub", hub.url, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, **QUIET})


def wait_for(condition, what):
    end = time.monotonic() + 60
    while not condition():
        expect(time.monotonic() < end, what)
        time.sleep(0.02)


def test_broken_off_it_goes_on():
    for how in (signal.SIGINT, signal.SIGKILL, signal.SIGTERM):
        with world() as (d, hub):
            hub.faults[WEIGHTS] = lambda h, r, data: h.send_part(r, data, slow=0.15) or True
            p = start(hub, d)
            size = len(memo()[WEIGHTS])
            journal = os.path.join(d, "models", ".part", "org--memo", WEIGHTS + ".part.json")
            wait_for(lambda: os.path.exists(journal) and hub.fetched(WEIGHTS) > size // 2, "half of it")
            p.send_signal(how)
            out, err = p.communicate(timeout=30)
            expect(p.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 128 + how), f"{p.returncode} {err}")
            expect(how == signal.SIGKILL or "goes on from here" in err, err)
            expect("org/memo" not in listed(d), "what is not whole is not listed")
            with open(journal, encoding="ascii") as f:
                known = sum(json.load(f)["filled"])
            expect(known > 0, "the journal knows of it")
            hub.faults.clear()
            time.sleep(0.3)
            before, small = hub.fetched(WEIGHTS), hub.fetched("tokenizer.json")
            pull(hub, d, "org/memo")
            again = hub.fetched(WEIGHTS) - before  # the hub counts what it wrote; a dead client's last pieces were never read
            expect(abs(again - (size - known)) <= 1 << 20, f"{how}: {again} bytes came again, {known} of {size} were there")
            expect(hub.fetched("tokenizer.json") == small > 0, "whole files stay")
            is_right(d, files={k: v for k, v in memo().items() if k in kept(d)})


def test_what_was_kept_may_be_rotten():
    with world() as (d, hub):
        hub.faults[WEIGHTS] = lambda h, r, data: h.send_part(r, data, slow=0.15) or True
        p = start(hub, d)
        part = os.path.join(d, "models", ".part", "org--memo", WEIGHTS + ".part")
        wait_for(lambda: os.path.exists(part + ".json") and hub.fetched(WEIGHTS) > 4000000, "some of it")
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=30)
        hub.faults.clear()
        with open(part, "r+b") as f:
            f.write(b"rotten")
        pull(hub, d, "org/memo")
        is_right(d, files={k: v for k, v in memo().items() if k in kept(d)})


def test_two_at_once():
    with world() as (d, hub):
        hub.faults[WEIGHTS] = lambda h, r, data: h.send_part(r, data, slow=0.15) or True
        p = start(hub, d)
        wait_for(lambda: hub.count(WEIGHTS) > 0, "it runs")
        expect("another process" in pull(hub, d, "org/memo", code=1), "the second")
        p.kill()
        p.communicate()


def test_a_new_revision_fetches_what_changed():
    with world() as (d, hub):
        pull(hub, d, "org/memo")
        hub.repos["org/memo"]["generation_config.json"] = b'{"temperature": 0.5}'
        hub.commit = hub.commit[::-1]
        before = hub.fetched(WEIGHTS)
        out = pull(hub, d, "org/memo")
        expect(hub.fetched(WEIGHTS) == before and content(d, "generation_config.json") == b'{"temperature": 0.5}', out)
        expect(content(d, WEIGHTS) == memo()[WEIGHTS] and not os.listdir(os.path.join(d, "models", ".part")), "and the rest is there")


def test_sizes_unknown_to_the_hub():
    with world(sizes=False) as (d, hub):
        pull(hub, d, "org/memo")
        expect(content(d, WEIGHTS) == memo()[WEIGHTS], "a mirror that says little")


def test_events_for_programs():
    with world() as (d, hub):
        hub.faults[WEIGHTS] = lambda h, r, data: h.send_part(r, data, slow=0.02) or True
        events = [json.loads(line) for line in pull(hub, d, "org/memo", "--json").splitlines()]
        expect(events[-1]["event"] == "done" and events[-1]["name"] == "org/memo" and events[-1]["fetched_bytes"] == events[-1]["bytes"], str(events[-1]))
        expect(any(e["event"] == "progress" and 0 < e["done"] <= e["total"] for e in events), str(events[:3]))
        failed = [json.loads(line) for line in pull(hub, d, "org/none", "--json", code=1).splitlines()]
        expect(failed[-1]["event"] == "error" and "not found" in failed[-1]["message"], str(failed))


def test_certificates_are_checked():
    if not shutil.which("openssl"):
        raise Skip("no openssl to make a certificate")
    with world({"org/x": {"memo.gguf": ggufs()["q4_0"]}}, redirect=False) as (d, hub):
        pem = os.path.join(d, "cert.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", pem + ".key", "-out", pem, "-days", "2", "-subj", "/CN=localhost", "-addext",
                        "subjectAltName=DNS:localhost"], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem, pem + ".key")
        server = hub.servers[1]
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = f"https://localhost:{server.server_port}/org/x/resolve/main/memo.gguf"
        said = pull(hub, d, url, code=1)
        expect("certificate" in said.lower(), said)
        pull(hub, d, url, env={"CURL_CA_BUNDLE": pem})
        expect(content(d, "memo.gguf", "localhost/memo") == ggufs()["q4_0"], "with its authority")
        hub.faults["memo.gguf"] = lambda h, r, data: h.answer(302, location=url.replace("https", "http")) or True
        shutil.rmtree(os.path.join(d, "models"))
        expect("from https to http" in pull(hub, d, url, env={"CURL_CA_BUNDLE": pem}, code=1), "no way down")
