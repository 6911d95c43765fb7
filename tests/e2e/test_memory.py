"""What the product is for: agents come back warm, with the same answers."""
import os
import time

from harness import Server, cached_of, expect, temp_dir, text_of, tier_of, words


def test_warm_after_restart():
    with temp_dir() as d:
        history = []
        with Server(d) as s:
            s.turn(history, "My code is QX-1185. " + words(700))
            s.turn(history, "What is my code?", "alice")
            told = s.turn(list(history), "What is my code?", "alice")
            expect(s.stop() == 0, "exit code")
        with Server(d) as s:
            expect(s.agents()["alice"]["tier"] == "warm", s.agents())
            back = s.turn(list(history), "What is my code?", "alice")
            expect(tier_of(back) == "warm", back)
            expect(cached_of(back) >= back["usage"]["prompt_tokens"] - 40, back["usage"])
            expect("QX-1185" in text_of(back) and text_of(back) == text_of(told), text_of(back))
            again = s.turn(list(history), "What is my code?", "alice")
            expect(tier_of(again) == "hot" and text_of(again) == text_of(told), again)


def test_generated_tokens_are_reused():
    with temp_dir() as d, Server(d) as s:
        history = []
        first = s.turn(history, "Who are you?", "a")
        second = s.turn(history, "And what can you do?", "a")
        seen = first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]
        expect(cached_of(second) >= seen - 1, (first["usage"], second["usage"]))


def test_longest_prefix_without_a_name():
    with temp_dir() as d, Server(d) as s:
        history = []
        first = s.turn(history, "My dog is called Rufus. " + words(300))
        second = s.turn(history, "What is my dog called?")
        expect(second["agent_memory"]["agent"] == first["agent_memory"]["agent"], (first, second))
        expect(cached_of(second) >= first["usage"]["prompt_tokens"], second["usage"])


def test_ten_agents_take_turns_in_a_pool_for_two():
    """Nobody is ever cold again: what leaves memory is on disk."""
    with temp_dir() as d, Server(d, "--ctx", "1536", "--parallel", "1", "--kv-memory", "11M") as s:
        histories = {f"agent{i}": [] for i in range(10)}
        for i, (name, history) in enumerate(histories.items()):
            s.turn(history, f"My number is {1000 + 37 * i}. " + words(500, i), name, max_tokens=8)
        for turn in range(2):
            for i, (name, history) in enumerate(histories.items()):
                reply = s.turn(history, "What is my number?", name, max_tokens=24)
                expect(tier_of(reply) != "cold", f"{name} turn {turn}: {reply['agent_memory']}")
                left = reply["usage"]["prompt_tokens"] - cached_of(reply)
                expect(left < 300, f"{name} computed {left} tokens")
                expect(str(1000 + 37 * i) in text_of(reply), f"{name}: {text_of(reply)}")


def test_bytes_written_are_about_the_new_blocks():
    with temp_dir() as d, Server(d) as s:
        history = []
        s.turn(history, words(1500), "a", max_tokens=4)
        time.sleep(0.3)
        before = s.cache_files()
        s.turn(history, words(200), "a", max_tokens=4)
        time.sleep(0.3)
        after = s.cache_files()
        changed = [n for n in before if n.startswith("b-") and after.get(n) != before[n]]
        new = [n for n in after if n.startswith("b-") and n not in before]
        expect(not changed and len(new) <= 2, f"changed {changed}, new {new}")


def test_deleting_files_while_running():
    with temp_dir() as d, Server(d, "--ctx", "1536", "--parallel", "1", "--kv-memory", "11M") as s:
        right = {}
        for i in range(6):
            history = []
            s.turn(history, f"My number is {1000 + 37 * i}. " + words(500, i), f"agent{i}", max_tokens=8)
            right[f"agent{i}"] = (history, str(1000 + 37 * i))
        for path in list(s.cache_files()):
            os.unlink(os.path.join(s.caches, path))
        for name, (history, number) in right.items():
            reply = s.turn(history, "What is my number?", name)
            expect(number in text_of(reply), f"{name}: {text_of(reply)}")
        expect(s.stop() == 0, "exit code")


def test_deleting_everything_between_runs():
    with temp_dir() as d:
        history = []
        with Server(d) as s:
            s.turn(history, "My number is 5521. " + words(400), "a")
            s.stop()
        for name in os.listdir(os.path.join(d, "caches")):
            path = os.path.join(d, "caches", name)
            if os.path.isfile(path):
                os.unlink(path)
        with Server(d) as s:
            reply = s.turn(history, "What is my number?", "a")
            expect(tier_of(reply) == "cold" and reply["agent_memory"]["miss_reason"] == "new_agent", reply["agent_memory"])
            expect("5521" in text_of(reply), text_of(reply))


def test_safetensors_opens_every_file():
    from harness import need
    need("numpy")
    safetensors = need("safetensors")
    with temp_dir() as d, Server(d) as s:
        history = []
        s.turn(history, words(700), "a", max_tokens=8)
        s.turn([], "Who are you?", "ünï/cødé ..", max_tokens=8)
        s.stop()
        files = s.cache_files()
        expect(sum(n.startswith("b-") for n in files) >= 2 and len(files) >= 4, files)
        n_tensors = 0
        for name in files:
            with safetensors.safe_open(os.path.join(s.caches, name), framework="numpy") as f:
                for key in f.keys():
                    n_tensors += 1
                    f.get_tensor(key)
        return f"{len(files)} files, {n_tensors} tensors"
