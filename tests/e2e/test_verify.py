"""agents verify: every kind of damage by its name, repair, and the model's own bits."""
import ctypes
import json
import os
import re
import shutil

from harness import Server, Skip, expect, run, temp_dir, words


def verify(d, *flags, code=None):
    got, out, err = run("agents", "verify", "--data-dir", d, "--json", *flags, timeout=300)
    expect(code is None or got == code, f"exit {got} instead of {code}: {out}{err}")
    return json.loads(out) if out.strip() else err


def filled(d):
    with Server(d) as s:
        for i, name in enumerate(["a", "b"]):
            history = []
            s.turn(history, f"My number is {4711 + i}. " + words(450, i), name, max_tokens=8)
            s.turn(history, "What is my number?", name, max_tokens=8)
        expect(s.request("POST", "/v1/agents/a/fork", {"to": "c"}).status in (200, 201), "fork")
        during = verify(d, code=0)
        expect(during["agents"] >= 2, during)
        expect(s.stop() == 0, "exit code")


def damage_of(path, kind):
    """Damages a file; the reasons that may be given."""
    size = os.path.getsize(path)
    with open(path, "r+b") as f:
        if kind == "flip":
            f.seek(size // 2)
            byte = f.read(1)[0]
            f.seek(size // 2)
            f.write(bytes([byte ^ 1]))
            return {"checksum"}
        if kind == "last byte":
            f.seek(size - 20)
            byte = f.read(1)[0]
            f.seek(size - 20)
            f.write(bytes([byte ^ 128]))
            return {"checksum", "rows_checksum"}
        if kind == "short":
            f.truncate(size - 1)
            return {"format"}
        if kind == "empty":
            f.truncate(0)
            return {"format"}
        f.write(b"\xff" * 8)
        return {"format"}


def xxh3_128(data):
    """Canonical form, from the library the program itself uses."""
    class Sum(ctypes.Structure):
        _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]
    try:
        xxh = ctypes.CDLL("libxxhash.so.0").XXH3_128bits
    except OSError as e:
        raise Skip("no libxxhash.so.0") from e
    xxh.restype, xxh.argtypes = Sum, [ctypes.c_char_p, ctypes.c_size_t]
    found = xxh(data, len(data))
    return found.high.to_bytes(8, "big") + found.low.to_bytes(8, "big")


def test_each_damage_has_its_reason_and_repair_ends_it():
    with temp_dir() as d:
        filled(d)
        clean = verify(d, code=0)
        expect(clean["agents"] == 3 and clean["blocks"] >= 4 and clean["wrong"] == 0, clean)
        names = sorted(os.listdir(os.path.join(d, "caches")))
        block = next(n for n in names if n.startswith("b-"))
        head = next(n for n in names if n.startswith("a~"))
        for name in (block, head):
            for kind in ("flip", "last byte", "short", "empty", "huge"):
                with temp_dir() as e:
                    shutil.copytree(os.path.join(d, "caches"), os.path.join(e, "caches"))
                    reasons = damage_of(os.path.join(e, "caches", name), kind)
                    if name == head and kind == "flip":
                        reasons |= {"rows_checksum"}
                    found = verify(e, code=3)
                    wrong = [f for f in found["findings"] if f["wrong"]]
                    expect(len(wrong) == 1 and wrong[0]["file"] == name and wrong[0]["reason"] in reasons, f"{kind} in {name}: {wrong}")
                    fixed = verify(e, "--repair", code=0)
                    expect(fixed["repaired"] == 1, fixed)
                    after = verify(e, code=0)
                    expect(after["reasons"].get("refused") == 1, after)
                    with Server(e) as s:
                        expect("b" in s.agents(), "agent b is gone")


def test_files_under_other_names():
    with temp_dir() as d:
        filled(d)
        caches = os.path.join(d, "caches")
        blocks = sorted(n for n in os.listdir(caches) if n.startswith("b-"))
        head = next(n for n in os.listdir(caches) if n.startswith("a~"))
        os.rename(os.path.join(caches, blocks[0]), os.path.join(caches, blocks[1]))
        os.rename(os.path.join(caches, head), os.path.join(caches, "x" + head))
        open(os.path.join(caches, "half.tmp.safetensors"), "w", encoding="ascii").close()
        os.mkdir(os.path.join(caches, "z~012345678901.safetensors"))
        found = verify(d, code=3)
        expect(found["reasons"]["name"] == 2 and found["reasons"]["orphan"] == 1 and found["reasons"]["format"] == 1, found)
        expect(found["reasons"]["missing_blocks"] >= 1, found)
        verify(d, "--repair", code=0)
        verify(d, code=0)


def test_repair_wants_the_folder_for_itself():
    with temp_dir() as d, Server(d) as s:
        said = verify(d, "--repair", code=1)
        expect(str(s.process.pid) in said and "--repair" in said, said)


def test_deep():
    with temp_dir() as d:
        filled(d)
        found = verify(d, "--deep", code=0)
        expect(found["deep"]["agents"] == 3 and found["deep"]["blocks"] >= 4 and found["deep"]["rows"] > 0, found)
        # state that is not the model's, under checksums that are right: another model's blocks cannot be told but by computing them
        other = verify(d, "--deep", "--kv-bits", "8,8", code=0)
        expect(other["deep"]["agents"] == 0, other)
        return f"{found['deep']['blocks']} blocks and {found['deep']['rows']} open rows equal"


def test_deep_finds_forged_state():
    with temp_dir() as d:
        filled(d)
        caches = os.path.join(d, "caches")
        path = os.path.join(caches, sorted(n for n in os.listdir(caches) if n.startswith("b-"))[0])
        with open(path, "r+b") as f:
            body = bytearray(f.read()[:-16])
            body[-5000] ^= 16
            f.seek(0)
            f.write(body + xxh3_128(bytes(body)))
        verify(d, code=0)
        found = verify(d, "--deep", code=3)
        expect(found["reasons"]["differs"] >= 1, found)


def test_tenants():
    with temp_dir() as d:
        code, key, err = run("keys", "add", "alpha", "--data-dir", d)
        expect(code == 0, err)
        key = re.search(r"\S{40,}", key)[0]
        with Server(d) as s:
            body = {"messages": [{"role": "user", "content": "My number is 4711. " + words(450)}], "temperature": 0, "max_tokens": 8}
            r = s.request("POST", "/v1/chat/completions", body, {"x-agent-id": "a", "authorization": f"Bearer {key}"})
            expect(r.status == 200, r.body)
            expect(s.stop() == 0, "exit code")
        found = verify(d, "--deep", code=0)
        expect(found["agents"] == 1 and found["deep"]["blocks"] >= 1 and "other_tenant" not in found["reasons"], found)
        os.rename(os.path.join(d, "keys.json"), os.path.join(d, "keys.gone"))
        found = verify(d, code=0)
        expect(found["reasons"]["other_tenant"] >= 1, found)


def forge(path, token_at, token):
    """A head with another token and sums that fit it."""
    with open(path, "rb") as f:
        data = bytearray(f.read())
    n = int.from_bytes(data[:8], "little")
    header, base = json.loads(data[8:8 + n]), 8 + n
    at = {name: base + t["data_offsets"][0] for name, t in header.items() if name != "__metadata__"}
    data[at["tokens"] + 4 * token_at:at["tokens"] + 4 * token_at + 4] = token.to_bytes(4, "little")
    data[at["sum"]:at["sum"] + 16] = xxh3_128(bytes(data[:at["sum"]]))
    if "rows" in at:
        data[at["rows_sum"]:at["rows_sum"] + 16] = xxh3_128(bytes(data[at["sum"]:at["rows_sum"]]))
    with open(path, "wb") as f:
        f.write(data)


def test_forged_heads():
    with temp_dir() as d:
        filled(d)
        caches = os.path.join(d, "caches")
        head = os.path.join(caches, next(n for n in os.listdir(caches) if n.startswith("a~")))
        forge(head, 3, 5)
        found = verify(d, code=3)
        wrong = [f for f in found["findings"] if f["wrong"]]
        expect([f["reason"] for f in wrong] == ["chain"] and wrong[0]["file"] == os.path.basename(head), wrong)
        verify(d, "--repair", code=0)
        expect(verify(d, "--deep", code=0)["agents"] == 2, "after repair")
    with temp_dir() as d:
        with Server(d) as s:
            s.chat("hello", "short", max_tokens=4)
            s.stop()
        caches = os.path.join(d, "caches")
        forge(os.path.join(caches, next(n for n in os.listdir(caches) if n.startswith("short~"))), 2, 0x00ffffff)
        verify(d, code=0)  # no block's name depends on it yet
        found = verify(d, "--deep", code=3)
        expect(found["reasons"].get("tokens") == 1, found)
        with Server(d) as s:  # and nobody is served from it
            expect(s.chat("hello", "short", max_tokens=4)["choices"][0]["message"]["content"], "an answer")
            expect(s.stop() == 0, "exit code")


def test_what_is_only_worth_knowing():
    with temp_dir() as d:
        filled(d)
        caches = os.path.join(d, "caches")
        for name in os.listdir(caches):
            if name.startswith(("a~", "c~")):
                os.remove(os.path.join(caches, name))
        with open(os.path.join(caches, "notes.txt"), "w", encoding="ascii") as f:
            f.write("somebody's")
        found = verify(d, code=0)
        expect(found["reasons"].get("unused_blocks") == 1 and found["reasons"].get("not_ours") == 1, found)
        verify(d, "--repair", code=0)
        expect(os.path.exists(os.path.join(caches, "notes.txt")), "a file that is not ours was moved")
        with Server(d):
            open(os.path.join(caches, "x.tmp.safetensors"), "w", encoding="ascii").close()
            expect(verify(d, code=0)["reasons"].get("being_written") == 1, "a temporary file while a server runs")
