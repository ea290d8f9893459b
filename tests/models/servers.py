"""Loopback HTTP servers for the tests: files with ranges and faults on demand, and the hub's endpoints."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Served:
    """What a server gives and how it misbehaves."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etags: bool = True
    md5: bool = False
    lengths: bool = True
    status: dict[str, int] = field(default_factory=dict)  # path -> answered instead of the file
    status_headers: dict[str, str] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)  # path -> bytes after which to cut, one per answer
    lfs: dict[str, str] = field(default_factory=dict)  # hub: path -> the SHA-256 stated for it
    requests: list[tuple[str, str, Message]] = field(default_factory=list)  # method, path, headers
    sent: dict[str, int] = field(default_factory=dict)  # path -> bytes of bodies
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    served: Served

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(self._path())

    def do_GET(self) -> None:
        self._answer(self._path())

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.served.requests.append((self.command, path, self.headers))
        return path

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _answer(self, path: str) -> None:
        if path in self.served.status:
            self._refuse(self.served.status[path], self.served.status_headers)
        elif path in self.served.files:
            self._send_file(path, self.served.files[path], {})
        else:
            self._refuse(404, {})

    def _send_file(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        etag = f'"{hashlib.sha1(body).hexdigest()}"'
        headers = {"ETag": etag, **headers} if self.served.etags else headers
        if self.served.md5:
            headers["x-ms-blob-content-md5"] = base64.b64encode(hashlib.md5(body).digest()).decode()
        start, status = 0, 200
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match and self.served.ranges and self.headers.get("If-Range", etag) == etag:
            start, status = int(match[1]), 206
            if start >= len(body):
                self._refuse(416, {"Content-Range": f"bytes */{len(body)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        if self.served.lengths:
            headers["Content-Length"] = str(len(body) - start)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            cuts = self.served.cuts.get(path, [])
            part = body[start : start + cuts.pop(0)] if cuts else body[start:]
            # Counted first: a client that has all bytes may look at the count before this thread goes on.
            self.served.sent[path] = self.served.sent.get(path, 0) + len(part)
            self.wfile.write(part)
            self.close_connection = True


class _HubHandler(_Handler):
    """The endpoints of the hub that its client uses, for one model: info, file listing and files."""

    def _answer(self, path: str) -> None:
        api = re.fullmatch(r"api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        file = re.fullmatch(r"([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name, revision = (api[1], api[3]) if api else (file[1], file[2]) if file else ("", None)
        kind = "file" if file else "api"
        if kind in self.served.status:
            self._refuse(self.served.status[kind], self.served.status_headers)
        elif name != "owner/tiny":
            self._refuse(401, {"X-Error-Code": "RepoNotFound"})
        elif revision not in (None, "main", COMMIT):
            self._refuse(404, {"X-Error-Code": "RevisionNotFound"})
        elif api:
            self._send_json(self._tree() if api[2] == "tree" else self._info())
        elif file and file[3] in self.served.files:
            body = self.served.files[file[3]]
            headers = {"X-Repo-Commit": COMMIT}
            if file[3] in self.served.lfs:
                headers["X-Linked-Etag"] = f'"{self.served.lfs[file[3]]}"'
                headers["X-Linked-Size"] = str(len(body))
            self._send_file(file[3], body, {**headers, "ETag": f'"{_git_hash(body)}"'})
        else:
            self._refuse(404, {"X-Error-Code": "EntryNotFound"})

    def _info(self) -> object:
        siblings = [{"rfilename": name} for name in self.served.files]
        return {"id": "owner/tiny", "modelId": "owner/tiny", "sha": COMMIT, "siblings": siblings}

    def _tree(self) -> object:
        entries = []
        for name, body in self.served.files.items():
            entry: dict[str, object] = {
                "type": "file",
                "path": name,
                "size": len(body),
                "oid": _git_hash(body),
            }
            if name in self.served.lfs:
                entry["lfs"] = {"oid": self.served.lfs[name], "size": len(body), "pointerSize": 130}
            entries.append(entry)
        return entries

    def _send_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _git_hash(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


@contextmanager
def serve(served: Served, handler: type[_Handler] = _Handler) -> Iterator[Served]:
    """Run a server of ``served`` on a free loopback port; ``served.url`` has no slash at its end."""
    bound = type("Bound", (handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serve_hub(served: Served) -> Iterator[Served]:
    """Run a hub that has the one model ``owner/tiny`` with the files of ``served``."""
    with serve(served, _HubHandler):
        yield served
