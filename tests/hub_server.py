"""A stand-in for the Hugging Face hub: repositories with commits and branches, private to one token."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse


@dataclass
class Repository:
    """Files by name of each commit, and the commit of each branch."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, new: dict[str, bytes], summary: str) -> str:
        held = {**self.commits.get(self.branches.get(branch, ""), {}), **new}
        text = summary + repr(sorted(held.items())) + str(len(self.commits))
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name], self.branches[branch] = held, name
        return name


class Hub:
    """The server.

    Attributes:
        url: what HF_ENDPOINT should be.
        token: whose bearer may write, and read what is private.
        repositories: by name.
        requests: method and path of each request.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.url = ""

    def answer(self, method: str, path: str, body: bytes, bearer: str) -> tuple[int, Any, dict[str, str]]:
        parts = [unquote(part) for part in urlparse(path).path.strip("/").split("/")]
        allowed = bearer == f"Bearer {self.token}"
        if method == "POST" and not allowed:
            return 401, {"error": f"Invalid credentials in the header: {bearer}"}, {}
        if parts[:3] == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
            if name in self.repositories:
                return 409, {"error": "exists", "url": f"{self.url}/{name}"}, {}
            self.repositories[name] = Repository(bool(asked.get("private")) or asked.get("visibility") == "private")
            self.repositories[name].commit("main", {}, "initial")
            return 200, {"url": f"{self.url}/{name}"}, {}
        if parts[:2] == ["api", "validate-yaml"]:
            return 200, {"errors": [], "warnings": []}, {}
        if parts[:2] == ["api", "models"]:
            return self._api(method, "/".join(parts[2:4]), parts[4:], body, allowed)
        return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), allowed)

    def _find(self, name: str, allowed: bool) -> Repository | None:
        found = self.repositories.get(name)
        return found if found is not None and (allowed or not found.private) else None

    def _api(
        self, method: str, name: str, rest: list[str], body: bytes, allowed: bool
    ) -> tuple[int, Any, dict[str, str]]:
        found = self._find(name, allowed)
        if found is None:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        action, revision = (rest[0], "/".join(rest[1:])) if rest else ("revision", "main")
        if method == "POST" and action == "branch":
            if revision in found.branches:
                return 409, {"error": "exists"}, {}
            found.branches[revision] = found.branches["main"]
            return 200, {}, {}
        if method == "POST" and action == "preupload":
            named = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in named]
            return 200, {"files": modes}, {}
        if method == "POST" and action == "commit":
            lines = [json.loads(line) for line in body.splitlines() if line]
            new = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            done = found.commit(revision, new, lines[0]["value"]["summary"])
            return 200, {"success": True, "commitOid": done, "commitUrl": f"{self.url}/{name}/commit/{done}"}, {}
        commit = found.branches.get(revision, revision)
        if commit not in found.commits:
            return 404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"}
        if action == "tree":
            held = found.commits[commit]
            return 200, [{"type": "file", "path": p, "size": len(d), "oid": _oid(d)} for p, d in held.items()], {}
        return 200, {"id": name, "modelId": name, "sha": commit, "private": found.private, "siblings": []}, {}

    def _file(self, name: str, commit: str, path: str, allowed: bool) -> tuple[int, Any, dict[str, str]]:
        found = self._find(name, allowed)
        data = None if found is None else found.commits.get(commit, {}).get(path)
        if data is None:
            return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}
        return 200, data, {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": commit}


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serve_hub(token: str) -> Iterator[Hub]:
    """A hub on a free port of this machine."""
    hub = Hub(token)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _reply(self) -> None:
            body = _read_body(self)
            hub.requests.append(f"{self.command} {self.path}")
            bearer = self.headers.get("authorization", "")
            status, value, headers = hub.answer(self.command, self.path, body, bearer)
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for key, text in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, text)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_POST = _reply

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _read_body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("transfer-encoding", "") != "chunked":
        return request.rfile.read(int(request.headers.get("content-length", 0)))
    body = b""
    while size := int(request.rfile.readline().strip() or b"0", 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body
