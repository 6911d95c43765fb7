"""The anthropic package against the server, and what Claude Code sends beside it."""
import contextlib
import json
import os
import subprocess

from harness import TOP, Server, Skip, cached_of, expect, need, run, temp_dir, tier_of, words

ASK = [{"role": "user", "content": "Who are you?"}]
GREEDY = {"temperature": 0}  # the SDK sends it as it is; its newest version has no argument for it


def client(url, retries=0, **more):
    return need("anthropic").Anthropic(base_url=url, **{"api_key": "none", "max_retries": retries, "timeout": 120, **more})


def create(c, messages, **more):
    return c.messages.create(**{"model": "claude-sonnet-4-5", "max_tokens": 32, "messages": messages, "extra_body": GREEDY, **more})


def prompt_tokens(usage):
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


@contextlib.contextmanager
def scripted():
    """The server with an engine that answers what it is told, whose calls, thoughts and failures no model gives at will."""
    need("anthropic")
    binary = os.path.join(TOP, "build", "tests", "test_anthropic")
    if not os.path.exists(binary):
        raise Skip("no build/tests/test_anthropic: run make tests first")
    p = subprocess.Popen([binary, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(p.stdout.readline())}"
    finally:
        p.stdin.close()
        expect(p.wait(30) == 0, "the scripted server ended badly")


def said(text):
    return [{"role": "user", "content": "say:" + text}]


def test_messages_and_their_usage():
    with temp_dir() as d, Server(d) as s:
        c = client(s.url)
        r = create(c, ASK)
        expect(r.type == "message" and r.role == "assistant" and len(r.content) == 1 and "Memo" in r.content[0].text, r)
        expect(r.stop_reason == "end_turn" and r.stop_sequence is None and r.id.startswith("msg_"), r)
        expect(prompt_tokens(r.usage) == 12 and r.usage.cache_read_input_tokens == 0 and r.usage.output_tokens > 3, r.usage)
        count = c.messages.count_tokens(model="claude-sonnet-4-5", messages=ASK)
        expect(count.input_tokens == 12, count)
        history = [*ASK, {"role": "assistant", "content": r.content}, {"role": "user", "content": "My code is QX-1185."}]
        r2 = create(c, history)
        expect(r2.usage.cache_read_input_tokens > 12 and r2.agent_memory["tier"] == "hot", r2)
        expect(prompt_tokens(r2.usage) == c.messages.count_tokens(model="x", messages=history).input_tokens, r2.usage)
        cut = create(c, ASK, max_tokens=3)
        expect(cut.stop_reason == "max_tokens" and cut.usage.output_tokens == 3, cut)
        stopped = create(c, ASK, stop_sequences=["never", "small"])
        expect(stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == "small" and "small" not in stopped.content[0].text, stopped)
        on = create(c, [*ASK, {"role": "assistant", "content": "I am Memo, a small"}])
        expect(on.content[0].text.startswith(" assistant"), on)
        full = create(c, [{"role": "user", "content": words(5000)}], max_tokens=100000, extra_body={**GREEDY, "ignore": 1})
        expect(full.stop_reason in ("end_turn", "model_context_window_exceeded"), full)
        kept = full.usage.cache_creation_input_tokens + full.usage.cache_read_input_tokens
        expect(kept % 256 == 0 and full.usage.cache_creation_input_tokens > 4000 and full.usage.input_tokens < 256, full.usage)


def test_streams_say_what_whole_answers_say():
    with temp_dir() as d, Server(d) as s:
        c = client(s.url)
        whole = create(c, ASK)
        with c.messages.stream(model="x", max_tokens=32, messages=ASK, extra_body=GREEDY) as stream:
            events = [e.type for e in stream]
            final = stream.get_final_message()
        expect(events[:2] == ["message_start", "content_block_start"] and events[-3:] == ["content_block_stop", "message_delta", "message_stop"], events)
        expect(final.content[0].text == whole.content[0].text and final.stop_reason == "end_turn", (final, whole))
        expect(prompt_tokens(final.usage) == 12 and final.usage.output_tokens == whole.usage.output_tokens, final.usage)
        raw = list(c.messages.create(model="x", max_tokens=32, messages=ASK, stream=True, extra_body=GREEDY))
        first = raw[0].message
        expect(prompt_tokens(first.usage) == 12 and first.usage.cache_read_input_tokens == 11 and first.content == [] and first.stop_reason is None, first)


def test_an_agent_is_the_same_by_both_apis():
    with temp_dir() as d:
        history = []
        with Server(d) as s:
            s.turn(history, "My code is QX-1185. " + words(400), "alice")
            r = create(client(s.url), [*history, {"role": "user", "content": "What is my code?"}], extra_headers={"x-agent-id": "alice"})
            expect("QX-1185" in r.content[0].text and r.agent_memory["tier"] == "hot", r)
            expect(r.usage.cache_read_input_tokens > 400 and r.usage.input_tokens < 20, r.usage)
            history += [{"role": "user", "content": "What is my code?"}, {"role": "assistant", "content": r.content[0].text}]
            s.stop()
        with Server(d) as s:
            r = s.chat([*history, {"role": "user", "content": "Say it again."}], "alice")
            expect(tier_of(r) == "warm" and cached_of(r) > 400, r)
            r = create(client(s.url), [*history, {"role": "user", "content": "Say it again."}], extra_headers={"x-agent-id": "alice"})
            expect(r.agent_memory["agent"] == "alice" and r.usage.cache_read_input_tokens > 400, r)


def fails(call, kind, text, status=None):
    try:
        call()
    except kind as e:
        expect(text in str(e), e)
        expect(status is None or e.status_code == status, e)
        expect(e.request_id, "no request id")
        return e
    raise AssertionError(f"no {kind.__name__}")


def test_errors_are_the_right_classes():
    anthropic = need("anthropic")
    with temp_dir() as d, Server(d, "--max-body", "1M", "--strict-model") as s:
        c = client(s.url)
        fails(lambda: create(c, ASK, model="claude-x"), anthropic.NotFoundError, "not_found_error")
        fails(lambda: c.models.retrieve("claude-x"), anthropic.NotFoundError, "no model 'claude-x'")
        fails(lambda: create(c, [], model="memo-28m"), anthropic.BadRequestError, "'messages' must not be empty")
        image = [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}]}]
        fails(lambda: create(c, image, model="memo-28m"), anthropic.BadRequestError, "messages[0].content[0]")
        fails(lambda: create(c, [{"role": "user", "content": "word " * 9000}], model="memo-28m"), anthropic.BadRequestError, "prompt is too long: 9009 tokens > 8191 maximum")
        fails(lambda: create(c, [{"role": "user", "content": "x" * (2 << 20)}], model="memo-28m"), anthropic.APIStatusError, "request_too_large", 413)
        expect([m.id for m in c.models.list(limit=1000)] == ["memo-28m"] and c.models.retrieve("memo-28m").max_input_tokens == 8192, "models")


def test_keys_and_tenants():
    anthropic = need("anthropic")
    with temp_dir() as d:
        keys = [run("keys", "add", name, "--data-dir", d)[1].strip() for name in ("one", "two")]
        with Server(d) as s:
            fails(lambda: create(client(s.url, api_key="sk-am-none"), ASK), anthropic.AuthenticationError, "authentication_error")
            long = [{"role": "user", "content": words(600)}]
            first = create(client(s.url, api_key=keys[0]), long, extra_headers={"x-agent-id": "a"})
            again = create(client(s.url, api_key=None, auth_token=keys[0]), long, extra_headers={"x-agent-id": "a"})
            other = create(client(s.url, api_key=keys[1]), long, extra_headers={"x-agent-id": "a"})
            expect(first.usage.cache_read_input_tokens == 0 and again.usage.cache_read_input_tokens > 512, (first.usage, again.usage))
            expect(other.usage.cache_read_input_tokens == 0 and other.agent_memory["miss_reason"] == "new_agent", other)


def test_calls_thoughts_and_their_results():
    with scripted() as url:
        c = client(url)
        tools = [{"name": "get", "description": "gets", "input_schema": {"type": "object", "properties": {"k": {"type": "string"}}}}]
        text = '<think>hm, so</think>Let me look. <tool_call>{"name": "get", "arguments": {"k": "ä\\"\\n"}}</tool_call><tool_call>{"name": "get", "arguments": {}}</tool_call>'
        whole = create(c, said(text), tools=tools)
        with c.messages.stream(model="x", max_tokens=99, messages=said(text), tools=tools, thinking={"type": "enabled", "budget_tokens": 1024}) as stream:
            kinds = {e.type for e in stream}
            final = stream.get_final_message()
        expect({"thinking", "signature", "text", "input_json", "content_block_stop"} <= kinds, kinds)
        for r in (whole, final):
            expect([b.type for b in r.content] == ["thinking", "text", "tool_use", "tool_use"] and r.stop_reason == "tool_use", r)
            expect(r.content[0].thinking == "hm, so" and r.content[1].text == "Let me look." and r.content[2].input == {"k": 'ä"\n'} and r.content[3].input == {}, r)
            expect(len({b.id for b in r.content[2:]}) == 2 and all(b.id.startswith("toolu_") for b in r.content[2:]), r)
        expect(whole.content[0].signature == final.content[0].signature != "", "signatures")
        expect(final.agent_memory["not_enforced"] == ["thinking.budget_tokens"] and "not_enforced" not in whole.agent_memory, final)
        back = [*said("x"), whole.to_param(), {"role": "user", "content": [{"type": "tool_result", "tool_use_id": b.id, "content": "5"} for b in whole.content[2:]] +
                                                [{"type": "text", "text": "dump"}]}]
        seen = json.loads(create(c, back).content[0].text)
        expect([m["role"] for m in seen] == ["user", "assistant", "tool", "tool", "user"], seen)
        expect([m["tool_call_id"] for m in seen[2:4]] == [b.id for b in whole.content[2:]] == [x["id"] for x in seen[1]["tool_calls"]], seen)
        expect(seen[1]["reasoning_content"] == "hm, so" and seen[1]["content"] == "Let me look." and seen[1]["tool_calls"][0]["function"]["arguments"] == {"k": 'ä"\n'}, seen)


def test_the_sdks_own_tool_loop():
    anthropic = need("anthropic")
    calls = []

    @anthropic.beta_tool
    def get(key: str) -> str:
        """Gets.

        Args:
            key: What to get.
        """
        calls.append(key)
        return "say:It is 5."

    with scripted() as url:
        for stream in (False, True):
            runner = client(url).beta.messages.tool_runner(model="x", max_tokens=99, tools=[get], stream=stream,
                                                           messages=said('<tool_call>{"name": "get", "arguments": {"key": "code"}}</tool_call>'))
            last = runner.until_done()
            expect(last.content[-1].text == "It is 5." and last.stop_reason == "end_turn", last)
        expect(calls == ["code", "code"], calls)


def test_failures_and_retries():
    anthropic = need("anthropic")

    def count(s, status):
        text = s.request("GET", "/metrics").body.decode()
        return sum(int(line.split()[-1]) for line in text.splitlines() if 'route="/v1/messages"' in line and f'status="{status}"' in line)

    with scripted() as url:
        s = Server("")
        s.live_port = int(url.rsplit(":", 1)[1])
        full = [{"role": "user", "content": "full"}]
        fails(lambda: create(client(url), full), anthropic.APIStatusError, "overloaded_error", 529)
        expect(count(s, 529) == 1, "one request")
        fails(lambda: create(client(url, retries=1), full), anthropic.InternalServerError, "overloaded_error", 529)
        expect(count(s, 529) == 3, "a retry")
        fails(lambda: create(client(url), [{"role": "user", "content": "fail"}]), anthropic.InternalServerError, "a disk broke", 500)
        seen = []

        def broken():
            with client(url).messages.stream(model="x", max_tokens=9, messages=[{"role": "user", "content": "broken"}]) as stream:
                seen.extend(e.type for e in stream)

        fails(broken, anthropic.APIStatusError, "a disk broke")
        expect("content_block_delta" in seen and "message_stop" not in seen, seen)
        with client(url).messages.stream(model="x", max_tokens=9, messages=[{"role": "user", "content": "wait:350"}]) as stream:
            expect(stream.get_final_text() == "ok", "an answer after pings")


def test_what_claude_code_sends():
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,some-new-one",
               "authorization": "Bearer any", "x-claude-code-session-id": "11112222-3333-4444-5555-666677778888"}

    def turn(s, cch, messages, **more):
        system = [{"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1.5.ab; cc_entrypoint=cli; cch={cch};"},
                  {"type": "text", "text": "You are Claude Code. " + words(600), "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
        body = {"model": "claude-opus-4-8", "max_tokens": 32000, "system": system, "messages": messages, "stream": False, "thinking": {"type": "adaptive"},
                "output_config": {"effort": "medium"}, "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
                "metadata": {"user_id": json.dumps({"device_id": "d" * 64, "account_uuid": "", "session_id": "s"})}, **more.pop("body", {})}
        r = s.request("POST", "/v1/messages?beta=true", body, {**headers, **more})
        expect(r.status == 200, r.body)
        return r.json()

    with temp_dir() as d, Server(d) as s:
        expect(s.request("HEAD", "/").status == 200 and s.request("HEAD", "/api/hello").status == 404, "probes")
        expect(s.request("POST", "/api/event_logging/batch", {"events": []}).status == 404, "a log that is not kept")
        models = s.request("GET", "/v1/models?limit=1000", headers={"anthropic-version": "2023-06-01"}).json()
        expect(models["data"][0]["type"] == "model" and models["has_more"] is False, models)
        count = s.request("POST", "/v1/messages/count_tokens?beta=true", {"model": "claude-opus-4-8", "messages": ASK}, headers)
        expect(count.json() == {"input_tokens": 12}, count.body)
        user = {"role": "user", "content": [{"type": "text", "text": "<system-reminder>\nBe brief.\n</system-reminder>"}, {"type": "text", "text": "My code is QX-1185."}]}
        first = turn(s, "a1b2c", [user])
        expect(first["agent_memory"]["agent"] == headers["x-claude-code-session-id"], first)
        text = first["content"][0]["text"] if first["content"] else ""
        second = [user, {"role": "assistant", "content": [{"type": "text", "text": text or "ok"}]}, {"role": "system", "content": "<total_tokens>123 tokens left</total_tokens>"},
                  {"role": "user", "content": [{"type": "text", "text": "What is my code?"}]}]
        again = turn(s, "fffff", second)  # its line changed, the prompt did not
        expect(again["usage"]["cache_read_input_tokens"] > 600 and again["agent_memory"]["tier"] == "hot", again)
        sub = turn(s, "1", [user], **{"x-claude-code-agent-id": "agent-7"})
        expect(sub["agent_memory"]["agent"] == headers["x-claude-code-session-id"] + "/agent-7" and sub["usage"]["cache_read_input_tokens"] >= 512, sub)
        title = turn(s, "2", [{"role": "user", "content": "A title, please."}], body={"model": "claude-haiku-4-5-20251001"})
        expect(title["agent_memory"]["agent"].endswith("/haiku"), title)
        expect(len(s.agents()) == 3, s.agents())
