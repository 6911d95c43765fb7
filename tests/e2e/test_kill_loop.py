"""kill -9 again and again under load: whatever it leaves behind, the next start clears, and takes no longer for it."""
import os
import random
import re
import statistics
import threading
import time

from harness import TORTURE, Server, expect, run, temp_dir, words

N_KILLS = 200 if TORTURE else 15


def meminfo_kib(key):
    with open("/proc/meminfo", encoding="ascii") as f:
        return int(re.search(rf"^{key}:\s+(\d+)", f.read(), re.M)[1])


def shared_memory():
    """Names under /dev/shm, and System V segments of this user."""
    names = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    try:
        with open("/proc/sysvipc/shm", encoding="ascii") as f:
            names |= {line.split()[1] for line in f.readlines()[1:] if int(line.split()[7]) == os.getuid()}
    except OSError:
        pass
    return names


def busy(s, i, stop):
    history = []
    while not stop.is_set():
        try:
            s.turn(history, words(120, i + 10 * len(history)), f"agent{i}", max_tokens=8)
        except Exception:
            return  # it was killed
        if len(history) >= 6:
            history = []


def test_nothing_is_left_behind():
    rng = random.Random(11)
    starts, before_shared, before_locked = [], shared_memory(), meminfo_kib("Mlocked")
    with temp_dir() as d:
        for kill in range(N_KILLS):
            with Server(d, "--parallel", "4") as s:
                while not s.events("server_ready"):  # comes right after what wait_ready waits for
                    time.sleep(0.005)
                starts.append(float(re.search(r"ms=([0-9.]+)", s.events("server_ready")[0])[1]))
                left = [n for n in os.listdir(s.caches) if ".tmp" in n]
                expect(not left, f"kill {kill}: the start left {left}")
                stop = threading.Event()
                threads = [threading.Thread(target=busy, args=(s, i, stop)) for i in range(4)]
                for t in threads:
                    t.start()
                time.sleep(rng.uniform(0.05, 0.8))
                s.kill()
                stop.set()
                for t in threads:
                    t.join()
            new = shared_memory() - before_shared
            expect(not any("agent" in n for n in new), f"kill {kill}: shared memory {new}")
        with Server(d) as s:  # the lock of the dead is no lock
            expect(s.stop() == 0, "exit code at the end")
        files = set(os.listdir(d))
        expect(files <= {"caches"}, f"in the data folder: {files}")
        code, out, err = run("agents", "verify", "--deep", "--data-dir", d, timeout=300)
        expect(code == 0, f"verify --deep says {code}: {out}{err}")
    expect(meminfo_kib("Mlocked") <= before_locked + 65536, "locked memory grew")
    third = max(3, len(starts) // 3)
    first, last = statistics.median(starts[:third]), statistics.median(starts[-third:])
    expect(last <= 2 * first + 200, f"a start took {first:.0f} ms at first and {last:.0f} ms at last: {starts}")
    return f"{N_KILLS} kills, a start takes {first:.0f} ms at first, {last:.0f} ms at last"
