"""kill -9 at random moments of a busy server: nothing finished is lost, nothing wrong is used, nothing is left over."""
import collections
import os
import random
import threading
import time

from harness import TORTURE, Server, cached_of, expect, temp_dir, text_of, tier_of, words

N_AGENTS, N_KILLS = 6, 1000 if TORTURE else 50
QUESTIONS = ["What is my number?", "Who are you?", "And what is my number again?", "Tell me something short."]


def opening(i):
    return f"My number is {1000 + 37 * i}. " + words(40 + 60 * i, i)


class Agent:
    """A conversation and the right answers: those of a server that never died (greedy, so there is one)."""

    def __init__(self, i):
        self.name, self.history, self.i, self.step, self.finished = f"agent{i}", [], i, 0, 0

    def next_text(self):
        return opening(self.i) if self.step == 0 else QUESTIONS[self.step % len(QUESTIONS)]

    def turn(self, s):
        reply = s.chat([*self.history, {"role": "user", "content": self.next_text()}], self.name, max_tokens=16)
        return text_of(reply), reply

    def take(self, answer, reply):
        self.history += [{"role": "user", "content": self.next_text()}, {"role": "assistant", "content": answer}]
        self.step += 1
        self.finished = reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"]

    def restart(self):
        self.history, self.step, self.finished = [], 0, 0


def reference(n_steps):
    """right[i][step]: the answer of agent i at a step, from a server that is left alone."""
    right = []
    with temp_dir() as d, Server(d) as s:
        for i in range(N_AGENTS):
            agent, answers = Agent(i), []
            for _ in range(n_steps):
                answer, reply = agent.turn(s)
                agent.take(answer, reply)
                answers.append(answer)
            right.append(answers)
    return right


def busy(s, agent, right, stop, wrong, tiers):
    while not stop.is_set():
        if agent.step == len(right[agent.i]):
            return
        try:
            answer, reply = agent.turn(s)
        except Exception:
            return  # the server died under it: the turn never finished
        if answer != right[agent.i][agent.step]:
            wrong.append(f"{agent.name} step {agent.step}: {answer!r} instead of {right[agent.i][agent.step]!r} ({reply['agent_memory']})")
        agent.take(answer, reply)
        tiers[tier_of(reply)] += 1


def test_kill_9():
    rng = random.Random(7)
    right, wrong, lost = reference(8), [], []
    agents = [Agent(i) for i in range(N_AGENTS)]
    tiers = collections.Counter()
    with temp_dir() as d:
        for kill in range(N_KILLS):
            with Server(d, "--parallel", "4", "--log-level", "warn") as s:
                orphans = [n for n in os.listdir(s.caches) if ".tmp" in n]
                expect(not orphans, f"left over: {orphans}")
                known = s.agents()
                for a in agents:
                    if a.step and known.get(a.name, {}).get("tokens", 0) < a.finished - 1:
                        lost.append(f"{a.name}: {known.get(a.name)} but {a.finished} tokens were finished")
                stop = threading.Event()
                threads = [threading.Thread(target=busy, args=(s, a, right, stop, wrong, tiers)) for a in agents]
                for t in threads:
                    t.start()
                time.sleep(rng.uniform(0.02, 1.2))
                stop.set()
                s.kill()
                for t in threads:
                    t.join()
            expect(not wrong and not lost, f"after kill {kill + 1}: {wrong or lost}")
            for a in agents:
                if a.step == len(right[a.i]):  # start that conversation over, under a new name
                    a.restart()
                    a.name = f"agent{a.i}-{kill}"
        with Server(d) as s:
            expect(s.stop() == 0, "exit code at the end")
        refused = os.path.join(d, "caches", "refused")
        moved = os.listdir(refused) if os.path.isdir(refused) else []
        expect(not moved, f"refused without damage: {moved}")
    expect(tiers["warm"] > N_KILLS // 5 and tiers["hot"] > 0, f"too little happened: {tiers}")
    return f"{N_KILLS} kills, finished turns: {dict(tiers)}"


def test_finished_turns_are_warm_after_kill_9():
    with temp_dir() as d:
        history = []
        with Server(d) as s:
            s.turn(history, "My number is 4711. " + words(600), "a")
            s.turn(history, "What is my number?", "a")
            s.kill()
        with Server(d) as s:
            reply = s.turn(history, "What is my number?", "a")
            expect("4711" in text_of(reply), text_of(reply))
            expect(cached_of(reply) >= 512, reply["usage"])
