"""A hub of models on this machine, in the form of Hugging Face's API, that can be told to break off, lie and be slow.

    with Hub({"org/name": {"config.json": b"...", ...}}) as hub:   hub.url, hub.log, hub.faults

Large files are answered with the address of another origin (localhost on a second port), as the real one does."""
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse

LARGE = 1 << 20
COMMIT = "5a0c8ab1e1b5b0b6f1b3c1d2e3f405162738495a"


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass  # clients that hang up are what this is about


class Request:
    def __init__(self, handler, origin):
        self.origin, self.path = origin, urllib.parse.unquote(urllib.parse.urlsplit(handler.path).path)
        self.range, self.token = handler.headers.get("range"), handler.headers.get("authorization")
        self.sent = 0

    def __repr__(self):
        return f"{self.origin} {self.path} {self.range or ''} {'token ' if self.token else ''}{self.sent}"


class Hub:
    """repos: name -> {path: bytes}. faults: {path: fn(handler, request, data) -> True when it answered}, asked before a file is sent."""

    def __init__(self, repos, token=None, sizes=True, redirect=True):
        self.repos, self.token, self.sizes, self.redirect = repos, token, sizes, redirect
        self.log, self.faults, self.lock = [], {}, threading.Lock()
        self.commit = COMMIT
        self.api_fault = None
        self.servers = []

    def __enter__(self):
        for origin in ("hub", "cdn"):
            server = Quiet(("127.0.0.1", 0), handler_of(self, origin))
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            self.servers.append(server)
        self.url = f"http://127.0.0.1:{self.servers[0].server_port}"
        self.cdn = f"http://localhost:{self.servers[1].server_port}"
        return self

    def __exit__(self, *exc):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def fetched(self, name, origin=None):
        """Bytes of a file that left here."""
        return sum(r.sent for r in self.log if r.path.endswith("/" + name) and (not origin or r.origin == origin))

    def count(self, name):
        return sum(1 for r in self.log if r.path.endswith("/" + name))


def sha(data):
    return hashlib.sha256(data).hexdigest()


def repo_json(hub, name, files):
    def one(path, data):
        o = {"rfilename": path}
        if hub.sizes:
            o["size"], o["blobId"] = len(data), hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            if len(data) >= LARGE:
                o["lfs"] = {"sha256": sha(data), "size": len(data), "pointerSize": 134}
        return o
    return {"id": name, "modelId": name, "sha": hub.commit, "private": False, "gated": False, "siblings": [one(p, d) for p, d in files.items()]}


def handler_of(hub, origin):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def answer(self, status, body=b"", **fields):
            self.send_response(status)
            for name, value in fields.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def send_part(self, request, data, total=None, etag=None, upto=None, slow=0, length=None):
            """The bytes asked for. total, length: what is said of them instead of the truth; upto: then the line breaks; slow: seconds a piece."""
            m = re.match(r"bytes=(\d+)-(\d*)$", request.range or "")
            first, last = (int(m[1]), int(m[2]) if m[2] else len(data) - 1) if m else (0, len(data) - 1)
            last = min(last, len(data) - 1)
            part = data[first:last + 1]
            self.send_response(206 if m else 200)
            if m:
                self.send_header("content-range", f"bytes {first}-{last}/{total or len(data)}")
            self.send_header("content-length", str(length if length is not None else len(part)))
            self.send_header("etag", etag or f'"{sha(data)}"')
            self.end_headers()
            for at in range(0, len(part), 1 << 16):
                piece = part[at:at + (1 << 16)]
                if upto is not None and at + len(piece) > upto:
                    self.wfile.write(piece[:max(0, upto - at)])
                    request.sent += max(0, upto - at)
                    self.close_connection = True
                    return
                self.wfile.write(piece)
                request.sent += len(piece)
                if slow:
                    time.sleep(slow)

        def do_GET(self):
            request = Request(self, origin)
            with hub.lock:
                hub.log.append(request)
            try:
                self.get(request)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def get(self, request):
            path = request.path
            if origin == "hub" and hub.token and request.token != f"Bearer {hub.token}":
                return self.answer(401, b"no", x_error_code="GatedRepo", x_error_message="Access to this model is restricted.")
            api = re.match(r"/api/models/([^/]+/[^/]+)/revision/(.+)$", path)
            if api:
                if hub.api_fault and hub.api_fault(self, request):
                    return None
                if api[1] not in hub.repos:
                    return self.answer(404, b"{}", x_error_code="RepoNotFound", x_error_message="Repository not found")
                if api[2] not in ("main", "v1.0", hub.commit):
                    return self.answer(404, b"{}", x_error_code="RevisionNotFound", x_error_message="Invalid rev id")
                return self.answer(200, json.dumps(repo_json(hub, api[1], hub.repos[api[1]])).encode())
            file = re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)$", path)
            data = hub.repos.get(file[1], {}).get(file[2]) if file else None
            if data is None:
                return self.answer(404, b"no such file")
            fault = hub.faults.get(file[2])
            large = len(data) >= LARGE and hub.redirect
            if origin == "hub" and large:
                if fault and getattr(fault, "at_hub", False) and fault(self, request, data):
                    return None
                return self.answer(302, b"elsewhere", location=hub.cdn + urllib.parse.quote(path) + "?signature=abc", x_linked_etag=f'"{sha(data)}"', x_linked_size=len(data),
                                   x_repo_commit=hub.commit)
            if fault and fault(self, request, data):
                return None
            return self.send_part(request, data)

    return Handler
