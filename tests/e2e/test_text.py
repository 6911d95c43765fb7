"""`agent-memory text`: tokenizers and templates as filters of JSON lines, against Hugging Face's and jinja2's answers in ../shared."""
import json
import os
import struct
import subprocess
import tempfile

from harness import BINARY, SHARED, Skip, expect


def text(verb, lines, *args):
    done = subprocess.run([BINARY, "text", verb, *args], input="".join(json.dumps(x) + "\n" if not isinstance(x, str) else x + "\n" for x in lines),
                          capture_output=True, text=True, timeout=120, check=False)
    expect(done.returncode == 0, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def read_u32(path, name):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        begin, end = json.loads(f.read(n))[name]["data_offsets"]
        f.seek(8 + n + begin)
        data = f.read(end - begin)
    return struct.unpack(f"<{len(data) // 4}I", data)


def test_of_the_embedded_model():
    lines = [{"text": "Who <|im_end|> are you?"}, {"text": "Who <|im_end|> are you?", "special": False}, {"text": 1}, "no json", {"text": ""}]
    with_special, without, wrong, broken, empty = text("encode", lines)
    expect(len(without["ids"]) > len(with_special["ids"]), without)
    expect(with_special["offsets"][0][0] == 0 and with_special["offsets"][-1][1] == len(lines[0]["text"]), with_special)
    expect(wrong["error"]["line"] == 3 and "text" in wrong["error"]["message"] and broken["error"]["code"] == "invalid_json", (wrong, broken))
    expect(empty == {"ids": [], "offsets": []}, empty)
    whole, skipped, bad = text("decode", [{"ids": with_special["ids"]}, {"ids": with_special["ids"], "skip_special": True}, {"ids": [10**12]}])
    expect(whole["text"] == lines[0]["text"] and "<|im_end|>" not in skipped["text"] and "ids[0]" in bad["error"]["message"], (whole, skipped, bad))
    rendered, failed = text("render", [{"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": True}, {"messages": 3}])
    expect("hi" in rendered["text"], rendered)
    expect("text" in failed or "error" in failed, failed)


def test_tokenizers_of_hugging_face():
    folder = os.path.join(SHARED, "golden", "tokenizers")
    if not os.path.isdir(folder):
        raise Skip("no ../shared")
    with open(folder + "/lines.json", encoding="utf-8") as f:
        lines = json.load(f)
    n_compared = 0
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".safetensors"):
            continue
        name = file[:-12]
        path = os.path.join(SHARED, "testdata", "tokenizers", "hf", name)
        ids, ends = read_u32(f"{folder}/{file}", "ids"), read_u32(f"{folder}/{file}", "ends")
        for i, answer in enumerate(text("encode", [{"text": s} for s in lines], "--tokenizer", path)):
            expect(tuple(answer.get("ids", [])) == ids[ends[i - 1] if i else 0:ends[i]], lambda: f"{name} {lines[i]!r}: {answer}")
            n_compared += 1
    return f"{n_compared} strings"


def test_templates_of_jinja2():
    path = os.path.join(SHARED, "testdata", "templates", "language_cases.json")
    if not os.path.exists(path):
        raise Skip("no ../shared")
    with open(path, encoding="utf-8") as f:
        cases = json.load(f)
    cases = cases if isinstance(cases, list) else cases["cases"]
    n_compared = 0
    with tempfile.TemporaryDirectory() as d:
        for case in cases:
            if not isinstance(case.get("python"), str) or case.get("needs_function") or case["name"].startswith("TOJSON_ENSURE_ASCII"):
                continue  # these have a key with a NUL in it, which is refused
            with open(d + "/t.jinja", "w", encoding="utf-8", newline="") as f:
                f.write(case["template"])
            [answer] = text("render", [case["context"]], "--template", d + "/t.jinja")
            expect(answer.get("text") == case["python"], lambda: f"{case['name']}: {answer} instead of {case['python']!r}")
            n_compared += 1
    return f"{n_compared} templates"


def test_a_template_that_does_not_compile():
    with tempfile.TemporaryDirectory() as d:
        with open(d + "/t.jinja", "w", encoding="utf-8") as f:
            f.write("a\n{{ b")
        done = subprocess.run([BINARY, "text", "render", "--template", d + "/t.jinja"], input='{"b": 1}\n{"b": 2}\n', capture_output=True, text=True, timeout=60, check=False)
        answers = [json.loads(line)["error"] for line in done.stdout.splitlines()]
        expect(done.returncode == 1 and [a["line"] for a in answers] == [1, 2], done)
        expect(all(a["code"] == "malformed" and "line 2: TemplateSyntaxError: unexpected end of template" in a["message"] for a in answers), answers)


def test_report():
    strict = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    with tempfile.TemporaryDirectory() as d:
        for source, appends in ((strict, True), ("{{ messages | length }}" + strict, False)):
            with open(d + "/t.jinja", "w", encoding="utf-8") as f:
                f.write(source)
            done = subprocess.run([BINARY, "text", "report", "--template", d + "/t.jinja"], capture_output=True, text=True, timeout=60, check=False)
            found = json.loads(done.stdout)
            expect(done.returncode == 0 and not found["system"] and found["strings"] and not found["tools"] and found["reasoning"] == "text", found)
            expect(found["answers"]["calls"] == "json" and found["answers"]["told"] and found["answers"]["open"] == "<tool_call>", found)
            plain = found["histories"]["plain"]
            expect(plain["appends"] is appends, found)
            expect(appends or (plain["leaves_at"] == 0 and plain["had"][0] == "1" and plain["has"][0] == "3"), found)
