"""A stand-in for the Hugging Face Hub on 127.0.0.1: as much of it as fetching and publishing models needs."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Repository:
    """Files by commit, and commits by branch. ``large`` files are served as LFS files are, by a redirect."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    large: bool = True

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        name = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[name] = dict(files)
        self.refs[branch] = name
        return name


class StandIn(ThreadingHTTPServer):
    """``repositories`` by ``owner/name``. ``requests`` lists what was asked, as "METHOD path".

    ``fault(method, path)`` may name something to go wrong with a request: a status ("500"), a status with an
    error code ("403 GatedRepo"), "truncate", "swap" (other bytes of the same length), or "portal" (a web page
    instead of any answer).
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.token = "hf_secret"  # what uploads need
        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def environment(self, **more: str) -> dict[str, str]:
        """The variables of a process whose Hub this is; the client reads them when it is imported."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return kept | {"HF_ENDPOINT": self.url, "NO_PROXY": "127.0.0.1,localhost"} | more

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(self, *args: Any) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        """Uploads, as its client does them for small files: make a repository, ask how, commit."""
        self.server.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault(self.command, self.path) or ""
        if fault[:1].isdigit():
            status, _, code = fault.partition(" ")
            return self._refuse(int(status), code)
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._refuse(401, "")
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if "organization" in asked else asked["name"]
            if name in self.server.repositories:
                return self._json({"url": f"{self.server.url}/{name}"}, status=409)
            self.server.repositories[name] = Repository()
            return self._json({"url": f"{self.server.url}/{name}"})
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        name, _, what = self.path.removeprefix("/api/models/").rpartition("/main")[0].rpartition("/")
        if what == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]
            return self._json({"files": modes})
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        commit = self.server.repositories[name].commit(files)
        url = f"{self.server.url}/{name}/commit/{commit}"
        return self._json({"success": True, "commitOid": commit, "commitUrl": url})

    def _json(self, value: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(value).encode()
        self._answer(status, {"Content-Type": "application/json"}, content)

    def _serve(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        fault = self.server.fault(self.command, self.path) or ""
        if fault[:1].isdigit():
            status, _, code = fault.partition(" ")
            return self._refuse(int(status), code)
        if fault == "portal":
            return self._answer(200, {"Content-Type": "text/html"}, b"<html>Sign in to this network</html>")
        if self.path.startswith("/api/models/"):  # whether large files go another way than this one
            name = self.path.removeprefix("/api/models/").partition("/revision/")[0]
            return self._json({"id": name, "xetEnabled": False})
        if self.path.startswith("/blobs/"):
            return self._content(self.server.blobs[self.path.removeprefix("/blobs/")], {}, fault)
        repository_name, _, rest = self.path.removeprefix("/").partition("/resolve/")
        repository = self.server.repositories.get(repository_name)
        if repository is None:
            return self._refuse(401, "RepoNotFound")
        revision, _, name = rest.partition("/")
        revision = revision.replace("%2F", "/")
        commit = revision if revision in repository.commits else repository.refs.get(revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        headers = {"X-Repo-Commit": commit}
        content = repository.commits[commit].get(name)
        if content is None:
            return self._refuse(404, "EntryNotFound", headers)
        if not repository.large or name.endswith(".json"):
            git_hash = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return self._content(content, headers | {"ETag": f'"{git_hash}"'}, fault)
        sha256 = hashlib.sha256(content).hexdigest()
        self.server.blobs[sha256] = content
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        # Another name of this machine, as the Hub sends large files from another host.
        location = f"{self.server.url.replace('127.0.0.1', 'localhost')}/blobs/{sha256}"
        return self._answer(302, headers | {"Location": location}, b"")

    def _content(self, content: bytes, headers: dict[str, str], fault: str) -> None:
        if fault == "swap":
            content = bytes(255 - byte for byte in content)
        self._answer(200, headers, content, cut=fault == "truncate")

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._answer(status, (headers or {}) | ({"X-Error-Code": code} if code else {}), b"")

    def _answer(self, status: int, headers: dict[str, str], content: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("X-HF-Warning", "anonymous; You are sending unauthenticated requests")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = cut or self.close_connection

    def log_message(self, format: str, *args: Any) -> None:
        pass
