#!/usr/bin/env python3
"""Python's side of bench_template: the same chat through jinja2, set up as transformers does.
usage: template_python.py TEMPLATE [TURNS] [SECONDS]      (needs: pip install jinja2)"""
import json
import sys
import time

import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

path, turns, seconds = sys.argv[1], int((sys.argv[2:] or [500])[0]), float((sys.argv[3:] or [2])[0])
text = ("the quick brown fox, jumps <over> \"it\"\n" * 11)[:400]
messages = [{"role": "system", "content": "You are a test."}]
for i in range(turns):
    messages.append({"role": "user", "content": text})
    messages.append({"role": "assistant", "content": text})
    if i % 4 == 3:
        call = {"name": "look_up", "arguments": {"what": 'a "b" c', "n": i}}
        messages[-1]["tool_calls"] = [{"type": "function", "function": call}]


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
env.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = lambda f: time.strftime(f)
source = open(path, encoding="utf-8").read()
start = time.perf_counter()
template = env.from_string(source)
compile_ms = (time.perf_counter() - start) * 1e3
times = []
while sum(times) < seconds * 1e3:
    start = time.perf_counter()
    out = template.render(messages=messages, tools=None, documents=None, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
    times.append((time.perf_counter() - start) * 1e3)
print(f"jinja2 {jinja2.__version__}: compile {compile_ms:.3f} ms; {len(messages)} messages, {len(out.encode())} bytes out: "
      f"best {min(times):.3f} ms, mean {sum(times) / len(times):.3f} ms of {len(times)}")
