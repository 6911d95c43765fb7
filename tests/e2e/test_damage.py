"""Damaged, foreign and impossible files: a reason and an answer, never a crash, never a wrong answer."""
import os
import random
import shutil
import subprocess
import threading
import time

from harness import TORTURE, Server, Skip, expect, temp_dir, text_of, tier_of, words


def prepared(d):
    """A conversation of one agent, some blocks long, on disk under d; its history and the next answer."""
    history = []
    with Server(d) as s:
        s.turn(history, "My number is 4711. " + words(500), "a", max_tokens=8)
        s.stop()
        with Server(d) as again:
            right = text_of(again.chat([*history, {"role": "user", "content": "What is my number?"}], "probe"))
            expect(again.request("DELETE", "/v1/agents/probe").status == 200, "cannot remove the probe")
            again.stop()
    return history, right


def ask(d, history, right, what):
    with Server(d) as s:
        reply = s.chat([*history, {"role": "user", "content": "What is my number?"}], "a")
        expect(text_of(reply) == right, f"{what}: {text_of(reply)!r} instead of {right!r} ({reply['agent_memory']})")
        expect(s.stop() == 0, f"{what}: exit code")
        return reply["agent_memory"], "\n".join(s.log)


def each_damage(damage, what, n=1, must_say=True):
    """damage(path) on heads and blocks of a fresh copy, n times each; the answer must stay right."""
    with temp_dir() as d:
        history, right = prepared(d)
        names = sorted(n for n in os.listdir(os.path.join(d, "caches")) if n.endswith(".safetensors"))
        heads = [n for n in names if not n.startswith("b-")]
        blocks = [n for n in names if n.startswith("b-")]
        expect(heads and blocks, names)
        for i in range(n):
            for name in (heads[0], blocks[i % len(blocks)]):
                with temp_dir() as copy:
                    shutil.copytree(os.path.join(d, "caches"), os.path.join(copy, "caches"))
                    damage(os.path.join(copy, "caches", name))
                    info, log = ask(copy, history, right, f"{what} in {name}")
                    if must_say:
                        expect("refused" in log or info["miss_reason"], f"{what} in {name}: nothing was said: {info}")


def test_bit_flips():
    rng = random.Random(3)

    def flip(path):
        size = os.path.getsize(path)
        at = rng.randrange(size)
        with open(path, "r+b") as f:
            f.seek(at)
            byte = f.read(1)[0]
            f.seek(at)
            f.write(bytes([byte ^ 1 << rng.randrange(8)]))

    each_damage(flip, "bit flip", 100 if TORTURE else 12)


def test_truncated():
    each_damage(lambda p: os.truncate(p, os.path.getsize(p) // 2), "half a file")
    each_damage(lambda p: os.truncate(p, 0), "an empty file")
    each_damage(lambda p: os.truncate(p, 7), "seven bytes")


def test_huge_lengths():
    def huge(path):
        with open(path, "r+b") as f:
            f.write(b"\xff" * 8)

    each_damage(huge, "a header of 2^64 bytes")


def test_foreign_content():
    def foreign(path):
        with open(path, "wb") as f:
            f.write((2).to_bytes(8, "little") + b"{}")

    each_damage(foreign, "an empty safetensors file")


def test_not_a_file():
    def directory(path):
        os.unlink(path)
        os.mkdir(path)

    def symlink(path):
        os.rename(path, path + ".moved")
        os.symlink(path + ".moved", path)

    def fifo(path):
        os.unlink(path)
        os.mkfifo(path)

    each_damage(directory, "a directory", must_say=False)
    each_damage(symlink, "a symlink", must_say=False)
    each_damage(fifo, "a fifo", must_say=False)


def test_full_disk():
    with temp_dir() as d:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", d], capture_output=True, check=False).returncode:
            raise Skip("mount is not allowed here")
        try:
            with Server(d) as s:
                told = []
                for i in range(6):
                    history = []
                    s.turn(history, f"My number is {1000 + 37 * i}. " + words(700, i), f"agent{i}", max_tokens=8)
                    reply = s.turn(history, "What is my number?", f"agent{i}")
                    expect(str(1000 + 37 * i) in text_of(reply), text_of(reply))
                    told.append(reply["agent_memory"].get("durable"))
                expect(told[0] is None and told[-1] is False, told)
                expect(s.request("GET", "/health").status == 200, "health")
                s.stop()
                expect(any("No space" in line or "ENOSPC" in line for line in s.log), "nothing about the full disk in the log")
        finally:
            subprocess.run(["umount", "-l", d], check=False)


def test_another_model_tag():
    with temp_dir() as d:
        history, _ = prepared(d)
        with Server(d, "--kv-bits", "8,8") as s:
            reply = s.chat([*history, {"role": "user", "content": "What is my number?"}], "a")
            expect(tier_of(reply) == "cold" and reply["agent_memory"]["miss_reason"] == "model_changed", reply["agent_memory"])
            expect("4711" in text_of(reply), text_of(reply))
            s.stop()
        with Server(d) as s:
            reply = s.chat([*history, {"role": "user", "content": "What is my number?"}], "a")
            expect(tier_of(reply) == "warm", reply["agent_memory"])


def test_folder_emptied_under_load():
    with temp_dir() as d, Server(d) as s:
        stop, wrong = threading.Event(), []

        def sweep():
            while not stop.is_set():
                for name in s.cache_files():
                    try:
                        os.unlink(os.path.join(s.caches, name))
                    except OSError:
                        pass
                time.sleep(0.01)

        sweeper = threading.Thread(target=sweep)
        sweeper.start()
        try:
            for i in range(8):
                history = []
                s.turn(history, f"My number is {1000 + 37 * i}. " + words(300, i), f"agent{i}", max_tokens=8)
                reply = s.turn(history, "What is my number?", f"agent{i}")
                if str(1000 + 37 * i) not in text_of(reply):
                    wrong.append(text_of(reply))
        finally:
            stop.set()
            sweeper.join()
        expect(not wrong, wrong)
        expect(s.stop() == 0, "exit code")
