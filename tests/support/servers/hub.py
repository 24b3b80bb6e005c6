"""A small Hugging Face hub on loopback: takes a commit with its large files, and remembers everything it was asked."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_token_of_this_test"


@dataclass
class Hub:
    """What arrived.

    Attributes:
        repos: name -> private?
        files: path in the repository -> contents, from the last commit.
        requests: method and path of every request, in order.
        refuse: status to answer every request with, or None.
    """

    url: str = ""
    repos: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    refuse: int | None = None
    stored: dict[str, bytes] = field(default_factory=dict)  # large files by SHA-256

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> tuple[int, Any]:
        self.requests.append(f"{method} {path}")
        if method == "PUT":  # large files go to a signed address, without the token
            self.stored[path.rsplit("/", 1)[1]] = body
            return 200, {}
        if self.refuse:
            return self.refuse, {"error": "not you"}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials"}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.repos.setdefault(name, asked.get("private", False) or asked.get("visibility") == "private")
            return 200, {"url": f"{self.url}/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            return 200, {"files": [self._mode(f) for f in json.loads(body)["files"]]}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self._place(o) for o in json.loads(body)["objects"]]}
        if "/commit/" in path:
            self._commit([json.loads(line) for line in body.splitlines()])
            return 200, {"success": True, "commitOid": "c0ffee", "commitUrl": f"{self.url}/owner/name/commit/c0ffee"}
        return 404, {"error": f"no such page: {path}"}

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith(".safetensors")
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _place(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "actions": {"upload": {"href": f"{self.url}/store/{item['oid']}", "header": {}}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.stored[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                self.files[value["path"]] = content


@contextmanager
def hub() -> Iterator[Hub]:
    """A running hub."""
    standing_in = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = self.path.partition("?")[0]
            status, value = standing_in.answer(self.command, path, body, self.headers.get("authorization"))
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    standing_in.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield standing_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
