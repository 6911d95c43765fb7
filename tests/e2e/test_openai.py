"""The openai package against the server, as client programs use it."""
from harness import Server, expect, need, temp_dir


def client(s):
    return need("openai").OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0, timeout=120)


def test_chat_and_its_usage():
    with temp_dir() as d, Server(d) as s:
        c = client(s)
        r = c.chat.completions.create(model="memo-28m", messages=[{"role": "user", "content": "Who are you?"}], temperature=0)
        expect("Memo" in r.choices[0].message.content, r)
        expect(r.choices[0].finish_reason == "stop" and r.usage.prompt_tokens == 12, r)
        expect(r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens, r.usage)
        history = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": r.choices[0].message.content},
                   {"role": "user", "content": "My code is QX-1185."}]
        r = c.chat.completions.create(model="memo-28m", messages=history, temperature=0)
        expect(r.usage.prompt_tokens_details.cached_tokens > 12, r.usage)
        expect(r.model_extra["agent_memory"]["tier"] == "hot", r)


def test_an_answer_goes_on():
    with temp_dir() as d, Server(d) as s:
        history = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am Memo, a small"}]
        on = s.chat(history, continue_final_message=True)
        expect(on["choices"][0]["message"]["content"].startswith(" assistant"), on)
        closed, bare = s.chat(history, max_tokens=1), s.chat(history, max_tokens=1, add_generation_prompt=False)
        expect(on["usage"]["prompt_tokens"] < bare["usage"]["prompt_tokens"] < closed["usage"]["prompt_tokens"], (on, bare, closed))
        r = s.request("POST", "/v1/chat/completions", {"messages": history[:1], "continue_final_message": True})
        expect(r.status == 400 and b"final message" in r.body, r.body)


def test_stream():
    with temp_dir() as d, Server(d) as s:
        c = client(s)
        text, usage, finish = "", None, None
        for chunk in c.chat.completions.create(model="memo-28m", messages=[{"role": "user", "content": "Who are you?"}], temperature=0,
                                               stream=True, stream_options={"include_usage": True}):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
                finish = chunk.choices[0].finish_reason or finish
            usage = chunk.usage or usage
        expect("Memo" in text and finish == "stop", (text, finish))
        expect(usage.prompt_tokens == 12 and usage.completion_tokens > 3, usage)


def test_logprobs_stop_and_n():
    with temp_dir() as d, Server(d) as s:
        c = client(s)
        ask = {"model": "memo-28m", "messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0}
        r = c.chat.completions.create(**ask, logprobs=True, top_logprobs=3)
        first = r.choices[0].logprobs.content[0]
        expect(len(first.top_logprobs) == 3 and first.logprob <= 0 and first.top_logprobs[0].logprob >= first.top_logprobs[1].logprob, first)
        r = c.chat.completions.create(**ask, stop=["small"])
        expect("small" not in r.choices[0].message.content and r.choices[0].finish_reason == "stop", r)
        r = c.chat.completions.create(**ask, max_tokens=3)
        expect(r.choices[0].finish_reason == "length" and r.usage.completion_tokens == 3, r)


def test_models():
    with temp_dir() as d, Server(d) as s:
        c = client(s)
        names = [m.id for m in c.models.list()]
        expect(names == ["memo-28m"], names)
        expect(c.models.retrieve("memo-28m").object == "model", "retrieve")


def test_errors():
    openai = need("openai")
    with temp_dir() as d, Server(d, "--max-body", "1M", "--strict-model") as s:
        c = client(s)
        ask = [{"role": "user", "content": "x"}]

        def fails(kind, code, **kw):
            try:
                c.chat.completions.create(**{"model": "memo-28m", "messages": ask, **kw})
            except kind as e:
                expect(e.request_id, "no request id")
                expect(code is None or e.code == code, f"{e.code} instead of {code}")
                return e
            raise AssertionError(f"no {kind.__name__}")

        fails(openai.NotFoundError, "model_not_found", model="gpt-5")
        fails(openai.BadRequestError, None, messages=[])
        fails(openai.BadRequestError, None, temperature="hot")
        e = fails(openai.BadRequestError, "context_length_exceeded", messages=[{"role": "user", "content": "word " * 9000}])
        expect("8192" in str(e), e)
        fails(openai.APIStatusError, None, messages=[{"role": "user", "content": "x" * (2 << 20)}])
