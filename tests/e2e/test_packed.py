"""Packed weights: the second start maps what the first one wrote, answers the same and finds its agents; kill -9 while it is written and damage cost nothing but packing again; the
memory is explained as a mapped file's, and two servers share it."""
import os
import shutil
import time

from harness import TOP, Server, expect, temp_dir, text_of, words

MEMO = os.path.join(TOP, "models", "memo-28m")
MIN_FILE = 1 << 20


def packed(d):
    folder = os.path.join(d, "packed")
    return [os.path.join(folder, n) for n in sorted(os.listdir(folder))] if os.path.isdir(folder) else []


def ask(s, agent, history):
    return text_of(s.turn(history, words(30, len(history)), agent, temperature=0, max_tokens=12))


def mapped(s):
    return s.request("GET", "/debug/memory").json()


def test_the_next_start_maps_them():
    with temp_dir() as d, temp_dir() as other:
        args = ("--model", f"memo={MEMO}", "--packed-from", "1")
        with Server(d, *args) as s:
            s.wait_event("packed_weights_written", timeout=60)
            first, before = ask(s, "a", []), mapped(s)
        files = packed(d)
        expect(len(files) == 1 and os.path.getsize(files[0]) > MIN_FILE and files[0].endswith(".packed"), files)
        size = os.path.getsize(files[0])
        with Server(d, *args) as s:
            expect(not s.events("packed_weights_written") and not s.events("packed_weights_refused"), "written again")
            expect("a" in s.agents(), "the agent is gone: another fingerprint")
            expect(ask(s, "b", []) == first, "another answer")
            after = mapped(s)
            grown = after["parts"]["weights_mapped"] - before["parts"]["weights_mapped"]
            expect(grown > 0.9 * size and after["parts"]["weights_packed"] < 0.1 * before["parts"]["weights_packed"], after["parts"])
            expect(abs(after["explained"] - 1) < 0.03, after)
            # the same file in another data folder (a hard link): both processes have one copy
            os.makedirs(os.path.join(other, "packed"))
            os.link(files[0], os.path.join(other, "packed", os.path.basename(files[0])))
            with Server(other, *args) as t:
                expect(ask(t, "c", []) == first, "another answer of the second server")
                with open(f"/proc/{t.process.pid}/smaps_rollup") as f:
                    rollup = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in f if line.split(":")[0] in ("Rss", "Pss_File", "Shared_Clean")}
                expect(rollup["Shared_Clean"] > 0.9 * size, rollup)
    return f"{size} bytes"


def test_off_and_small():
    with temp_dir() as d:
        for least in ("0", "1G"):
            with Server(d, "--model", f"memo={MEMO}", "--packed-from", least) as s:
                ask(s, "a", [])
            expect(packed(d) == [], packed(d))


def test_kill_and_damage():
    with temp_dir() as d:
        args = ("--model", f"memo={MEMO}", "--packed-from", "1")
        s = Server(d, *args).start()
        s.kill() # wherever the writer is: it has its name, or a name with this process's number
        with Server(d, *args) as s:
            first = ask(s, "a", [])
            deadline = time.monotonic() + 60
            while [f for f in packed(d) if not f.endswith(".packed")] or not packed(d):
                expect(time.monotonic() < deadline, packed(d))
                time.sleep(0.05)
        files = packed(d)
        expect(len(files) == 1, files)
        with open(files[0], "r+b") as f:
            f.seek(os.path.getsize(files[0]) // 2)
            byte = f.read(1)
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte[0] ^ 1]))
        with Server(d, *args) as s:
            expect(s.events("packed_weights_refused"), "damage was not seen")
            expect(ask(s, "b", []) == first, "another answer")
            s.wait_event("packed_weights_written", timeout=60)
        with Server(d, *args) as s:
            expect(not s.events("packed_weights_refused"), "it was not written anew")
        shutil.rmtree(os.path.join(d, "packed"))
        with Server(d, *args) as s:
            expect(ask(s, "c", []) == first, "another answer")
