"""tests/data/browser_attacks.json against the real server: what pages, forms, frames and rebound names send, and what must come back, and that none of it
has changed anything. tests/test_gate.c runs the rows over the gate itself."""
import json
import os
import socket

from harness import TOP, Server, expect, temp_dir

ARGS = {"plain": [], "listed": ["--cors-origin", "https://app.example", "--cors-origin", "http://tool.example:8080", "--allow-host", "ai.home.example"],
        "keyed": ["--cors-origin", "https://app.example"], "public": ["--host", "0.0.0.0", "--allow-no-auth"], "public-keyed": ["--host", "0.0.0.0"]}
KEY = "the-key-of-this-test"


def send(port, row):
    """The exact bytes of one request; status, headers and body of the answer."""
    def fill(text):
        return text.replace("$PORT", str(port)).replace("$KEY", KEY)

    body = row.get("body", "").encode()
    lines = [f"{row['method']} {fill(row['path'])} HTTP/1.1", *(f"{k}: {fill(v)}" for k, v in row["headers"].items()), "Connection: close"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as s:
        s.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        answer = b""
        while piece := s.recv(65536):
            answer += piece
    head, _, rest = answer.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    headers = dict(f.split(": ", 1) for f in fields)
    return int(first.split()[1]), headers, rest, fill


def check(port, row):
    status, headers, body, fill = send(port, row)
    expect(status == row["status"], f"{row['what']}: {status}, not {row['status']}: {body[:200]!r}")
    allow = headers.get("access-control-allow-origin")
    wanted = fill(row["allow_origin"]) if row["allow_origin"] else None
    expect(allow == wanted, f"{row['what']}: access-control-allow-origin {allow}, not {wanted}")
    expect(allow != "*" and "access-control-allow-credentials" not in headers, f"{row['what']}: too much is allowed")
    if status >= 400 and row["method"] != "HEAD":
        code = json.loads(body)["error"]["code"]
        expect("code" not in row or code == row["code"], f"{row['what']}: {code}, not {row.get('code')}")
    asked = "Access-Control-Request-Private-Network" in row["headers"]
    expect(("access-control-allow-private-network" in headers) == (asked and status == 204), f"{row['what']}: private network")
    if status == 403:
        expect(b"agents" not in body.split(b'"message"')[0], "an answer leaks")


def test_browser_attacks():
    with open(os.path.join(TOP, "tests", "data", "browser_attacks.json"), encoding="utf-8") as f:
        rows = json.load(f)
    n = 0
    for kind, args in ARGS.items():
        keyed = "keyed" in kind
        mine = {"authorization": "Bearer " + KEY} if keyed else {}
        with temp_dir() as d, Server(d, *args, env={"AGENT_MEMORY_API_KEY": KEY} if keyed else None) as s:
            s.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}, {"x-agent-id": "x", **mine})
            for row in rows:
                if row["server"] == kind:
                    check(s.live_port, row)
                    n += 1
            expect("x" in [a["id"] for a in s.request("GET", "/v1/agents", headers=mine).json()["data"]], "an attack removed an agent")
            expect(s.request("GET", "/health/ready").status == 200, "an attack closed the server")
            expect(s.stop() == 0, "exit code")
    expect(n == len(rows) >= 60, f"{n} of {len(rows)} rows")
    return f"{n} rows"
