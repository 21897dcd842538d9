"""A server on this machine that plays the Hugging Face Hub, and whose failures are scripted.

It answers what huggingface_hub 2.4 asks for when it looks up and downloads a model, with the headers it reads. Files
that the Hub keeps in LFS come from a second port, as they come from a CDN. `Hub.environment` points a client at it, in
a subprocess, because the client reads its environment when it is imported. Xet, gzip and paged listings are left out.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

# Where "again and again" ends, if the client does not leave.
RAW_SECONDS, RAW_BYTES = 40, 512 << 20
# What goes to LFS: on the Hub .gitattributes says so by name, and no larger file is accepted outside it.
LFS_SUFFIXES = (".safetensors", ".bin")
LFS_SIZE = 10_000_000

_REPO = r"(?P<repo>[^/]+/[^/]+)"
_API = re.compile(rf"/api/models/{_REPO}(/(?P<what>revision|tree|paths-info)/(?P<revision>[^/]+))?")
_UPLOAD = re.compile(rf"/api/models/{_REPO}/(?P<what>preupload|commit)/(?P<revision>[^/]+)")
_LFS_BATCH = re.compile(rf"/{_REPO}\.git/info/lfs/objects/batch")
_LFS_UPLOAD = re.compile(r"/upload/(?P<sha256>[0-9a-f]{64})")
_RESOLVE = re.compile(rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass(frozen=True)
class Fault:
    """A fault of the first `times` requests (None: all) whose path and method match; fields combine.

    Without `status` or `redirect` the right answer is the start. Shares are of that answer's body, from 0 to 1.
    """

    pattern: str  # fnmatch, over the path without its query; a star crosses slashes
    method: str = "GET"  # fnmatch
    times: int | None = 1
    status: int | None = None  # this error instead, with `headers`
    headers: dict[str, str] = field(default_factory=dict)  # added to whatever is answered
    cut: float | None = None  # close the connection after this share
    unsized: bool = False  # no Content-Length: where the connection ends, the file does
    flip: bool = False  # one byte wrong, the size right
    stall: float | None = None  # so many seconds of silence after the share `after`, then close
    after: float = 0.0  # 0: before the status line
    reset: bool = False  # RST after the share `after`
    ignore_range: bool = False  # the whole file with status 200
    redirect: str | None = None  # 302 to this URL; the headers that describe the file stay
    slow: int | None = None  # bytes per second
    body: bytes | None = None  # this body instead
    raw: tuple[bytes, bytes] | None = None  # no HTTP of ours: the first bytes, then the others again and again
    pause: float = 0.0  # seconds between those


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # without the query, decoded
    headers: dict[str, str]  # names in lower case
    server: str  # "hub" or "cdn"
    status: int  # 0: the connection ended without an answer


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes = b""


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str, **headers: str):
        headers = {"X-Error-Code": code, "X-Error-Message": message, **headers}
        self.answer = _json({"error": message}, status, headers)


class _File:
    def __init__(self, name: str, content: bytes):
        self.content = content
        self.sha256 = None
        stored = content
        if name.endswith(LFS_SUFFIXES) or len(content) > LFS_SIZE:
            self.sha256 = hashlib.sha256(content).hexdigest()
            # Of an LFS file git has this pointer only, and the blob's hash is the pointer's.
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(content)}\n"
            stored = pointer.encode()
        self.blob_id = hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()
        self.pointer_size = len(stored)

    def described(self, sha256_key: str, **keys: object) -> dict[str, object]:
        lfs = {sha256_key: self.sha256, "size": len(self.content), "pointerSize": self.pointer_size}
        return {**keys, "size": len(self.content), **({"lfs": lfs} if self.sha256 else {})}


class _Repo:
    def __init__(self) -> None:
        self.commits: dict[str, dict[str, _File]] = {}
        self.refs: dict[str, str] = {}
        self.gated_token: str | None = None

    def commit(self, revision: str) -> str:
        commit = self.refs.get(revision, revision)
        if commit not in self.commits:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def entries(self, commit: str) -> dict[str, dict[str, object]]:
        """The tree as the API lists it: path to entry, folders too."""
        entries: dict[str, dict[str, object]] = {}
        for name, file in self.commits[commit].items():
            for folder in list(Path(name).parents)[:-1]:
                path = folder.as_posix()
                entries[path] = {"type": "directory", "oid": commit, "size": 0, "path": path}  # not git's own hash
            entries[name] = file.described("oid", type="file", oid=file.blob_id, path=name)
        return entries


class Hub:
    """Both servers, from `with` on until its end; they may be told everything in between."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._repos: dict[str, _Repo] = {}
        self._lfs: dict[str, _File] = {}
        self._script: list[list] = []  # of [fault, times left]
        self._requests: list[Request] = []
        self._raw_bytes = 0
        self._servers = [_Server(self, "hub"), _Server(self, "cdn")]
        self.url, self.cdn_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def __enter__(self) -> "Hub":
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(self, repo: str, files: Path | dict[str, bytes], branch="main", gated_token: str | None = None) -> str:
        """Make these files (all of them) a commit and the branch's head; return its hash, which the content decides.

        The repository's files are for holders of `gated_token` only, if one is given; its listings are for all.
        """
        if isinstance(files, Path):
            files = {p.relative_to(files).as_posix(): p.read_bytes() for p in files.rglob("*") if p.is_file()}
        tree = {name: _File(name, content) for name, content in sorted(files.items())}
        listing = "\n".join([repo, *(f"{file.blob_id} {name}" for name, file in tree.items())])
        commit = hashlib.sha1(listing.encode()).hexdigest()
        with self._lock:
            one = self._repos.setdefault(repo, _Repo())
            one.commits[commit], one.refs[branch], one.gated_token = tree, commit, gated_token
            self._lfs.update((file.sha256, file) for file in tree.values() if file.sha256)
        return commit

    def tag(self, repo: str, name: str, commit: str) -> None:
        with self._lock:
            self._repos[repo].refs[name] = commit

    def fail(self, fault: Fault) -> None:
        """Add to the script; the first fault that matches a request and has not run out applies."""
        with self._lock:
            self._script.append([fault, fault.times])

    def reset(self) -> None:
        """Forget the faults that have not happened, and the requests that have."""
        with self._lock:
            self._script.clear()
            self._requests.clear()
            self._raw_bytes = 0

    def environment(self, home: Path) -> dict[str, str]:
        """Return variables that make a client use this server and `home` alone, and hide a user's own."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "hf"),
            "HF_HUB_CACHE": str(home / "hf/hub"),
            "HF_TOKEN_PATH": str(home / "hf/token"),
            "HF_HUB_OFFLINE": "0",
            **dict.fromkeys(("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"), ""),
            **dict.fromkeys(("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"), "2"),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1"),
            **{f"HF_HUB_DISABLE_{what}": "1" for what in ("XET", "TELEMETRY", "PROGRESS_BARS")},
        }

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order in which they were answered."""
        with self._lock:
            return list(self._requests)

    @property
    def raw_bytes(self) -> int:
        """Return how many bytes of `raw` answers were sent, or are on their way."""
        with self._lock:
            return self._raw_bytes

    def count(self, pattern: str, method: str = "*") -> int:
        """Return how many requests had such a path (fnmatch) and method."""
        return sum(fnmatchcase(one.path, pattern) and fnmatchcase(one.method, method) for one in self.requests)

    def _fault(self, method: str, path: str) -> Fault:
        with self._lock:
            for step in self._script:
                fault, left = step
                if left != 0 and fnmatchcase(path, fault.pattern) and fnmatchcase(method, fault.method):
                    step[1] = None if left is None else left - 1
                    return fault
        return Fault("")

    def _answer(self, server: str, target: str, headers: dict[str, str], form: str) -> _Answer:
        path, query = urlsplit(target).path, urlsplit(target).query
        try:
            if path == "/api/repos/create":
                return self._create(headers, json.loads(form))
            if path == "/api/validate-yaml":
                return _json({"errors": [], "warnings": []})
            if match := _UPLOAD.fullmatch(path):
                return self._upload(headers, form, **match.groupdict())
            if match := _LFS_BATCH.fullmatch(path):
                return self._lfs_batch(json.loads(form))
            if match := _LFS_UPLOAD.fullmatch(path):
                return self._lfs_upload(match["sha256"], form.encode("utf-8", "surrogateescape"))
            with self._lock:
                if server == "cdn":
                    return self._cdn(path, headers)
                if match := _API.fullmatch(path):
                    return self._api(headers, parse_qs(f"{query}&{form}"), **match.groupdict())
                if match := _RESOLVE.fullmatch(path):
                    return self._resolve(headers, **match.groupdict())
            raise _RefusedError(404, "NotFound", f"nothing here plays {path}")
        except _RefusedError as refused:
            return refused.answer

    def _create(self, headers: dict[str, str], asked: dict[str, str]) -> _Answer:
        if "authorization" not in headers:
            raise _RefusedError(401, "Unauthorized", "Invalid username or password.")
        repo = f"{asked['organization']}/{asked['name']}"
        with self._lock:
            if repo in self._repos:
                return _json({"error": "You already created this model repo", "url": f"{self.url}/{repo}"}, 409)
            self._repos[repo] = _Repo()
        return _json({"url": f"{self.url}/{repo}", "name": repo})

    def _upload(self, headers: dict[str, str], form: str, repo: str, what: str, revision: str) -> _Answer:
        """Take a commit: small files come with it, and those in LFS were put there before."""
        with self._lock:
            one = self._repo(repo, headers)
            files = {name: file.content for name, file in one.commits.get(one.refs.get(revision, ""), {}).items()}
        if what == "preupload":
            asked = json.loads(form)["files"]
            return _json(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": _upload_mode(f["path"], f["size"]), "shouldIgnore": False}
                        for f in asked
                    ]
                }
            )
        for line in map(json.loads, form.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                with self._lock:
                    files[line["value"]["path"]] = self._lfs[line["value"]["oid"]].content
        commit = self.add(repo, files, unquote(revision))
        return _json({"success": True, "commitOid": commit, "commitUrl": f"{self.url}/{repo}/commit/{commit}"})

    def _lfs_batch(self, asked: dict) -> _Answer:
        """Say where to put the files that are not here yet."""
        with self._lock:
            known = set(self._lfs)
        objects = [
            one
            | ({} if one["oid"] in known else {"actions": {"upload": {"href": f"{self.cdn_url}/upload/{one['oid']}"}}})
            for one in asked["objects"]
        ]
        return _json({"transfer": "basic", "objects": objects})

    def _lfs_upload(self, sha256: str, content: bytes) -> _Answer:
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _RefusedError(400, "BadRequest", "the content is not that of the hash")
        with self._lock:
            self._lfs[sha256] = _File(f"{sha256}.bin", content)
        return _Answer(200, {})

    def _repo(self, repo: str, headers: dict[str, str]) -> _Repo:
        if found := self._repos.get(repo):
            return found
        # The Hub does not tell a stranger a missing repository from a private one.
        if "authorization" in headers:
            raise _RefusedError(404, "RepoNotFound", "Repository not found")
        raise _RefusedError(401, "RepoNotFound", "Invalid username or password.")

    def _api(self, headers: dict[str, str], form: dict[str, list[str]], repo: str, what, revision) -> _Answer:
        one = self._repo(repo, headers)
        commit = one.commit(unquote(revision or "main"))
        entries = one.entries(commit)
        if what == "tree":
            deep = form.get("recursive") == ["true"]
            return _json([entry for path, entry in entries.items() if deep or "/" not in path])
        if what == "paths-info":
            return _json([entries[path] for path in form.get("paths", []) if path in entries])
        siblings = [
            file.described("sha256", rfilename=name, blobId=file.blob_id) if "blobs" in form else {"rfilename": name}
            for name, file in one.commits[commit].items()
        ]
        gated = "manual" if one.gated_token else False
        return _json({"id": repo, "sha": commit, "private": False, "gated": gated, "siblings": siblings})

    def _resolve(self, headers: dict[str, str], repo: str, revision: str, file: str) -> _Answer:
        one = self._repo(repo, headers)
        if one.gated_token and headers.get("authorization") != f"Bearer {one.gated_token}":
            known = "authorization" in headers
            why = "you are not in the authorized list" if known else "you must be authenticated to access it"
            raise _RefusedError(403 if known else 401, "GatedRepo", f"Access to model {repo} is restricted and {why}.")
        commit = one.commit(unquote(revision))
        found = one.commits[commit].get(unquote(file))
        if found is None:
            raise _RefusedError(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit})
        etag = f'"{found.sha256 or found.blob_id}"'
        if found.sha256 is None:
            return _content(found, {"X-Repo-Commit": commit, "ETag": etag}, headers)
        about = {"X-Repo-Commit": commit, "X-Linked-Etag": etag, "X-Linked-Size": str(len(found.content))}
        # The real URL says nothing of the file; here the repository and the name are for the patterns of faults.
        location = f"{self.cdn_url}/cdn/{repo}/{found.sha256}/{file}?signature=given"
        return _Answer(302, {**about, "Location": location}, f"Found. Redirecting to {location}".encode())

    def _cdn(self, path: str, headers: dict[str, str]) -> _Answer:
        parts = path.split("/")  # as `_resolve` makes it
        if len(parts) > 4 and (file := self._lfs.get(parts[4])):
            return _content(file, {"ETag": f'"{file.sha256}"'}, headers)
        return _Answer(403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")


def _upload_mode(name: str, size: int) -> str:
    return "lfs" if name.endswith(LFS_SUFFIXES) or size > LFS_SIZE else "regular"


def _json(data: object, status: int = 200, headers: dict[str, str] | None = None) -> _Answer:
    return _Answer(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(data).encode())


def _content(file: _File, about: dict[str, str], headers: dict[str, str]) -> _Answer:
    """The file, or the range that is asked for; a header that is not one range is ignored, as HTTP allows."""
    about = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **about}
    size = len(file.content)
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("range", ""))
    if not match or not any(match.groups()):
        return _Answer(200, about, file.content)
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(int(last) + 1, size) if first and last else size
    if start >= stop:
        return _Answer(416, {**about, "Content-Range": f"bytes */{size}"})
    return _Answer(206, {**about, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}, file.content[start:stop])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # a full queue would delay the client's parallel connections by a second

    def __init__(self, hub: Hub, name: str):
        self.hub, self.name = hub, name
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request, client_address) -> None:
        # Clients that are killed are what some tests are about.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        hub = self.server.hub
        form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode("utf-8", "surrogateescape")
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = unquote(urlsplit(self.path).path)
        fault = hub._fault(self.command, path)
        asked = {name: value for name, value in headers.items() if name != "range" or not fault.ignore_range}
        answer = hub._answer(self.server.name, self.path, asked, form)
        if fault.status is not None:
            answer = _json({"error": "as scripted"}, fault.status)
        elif fault.redirect is not None:
            answer = replace(answer, status=302, headers={**answer.headers, "Location": fault.redirect}, body=b"")
        if fault.body is not None:
            answer = replace(answer, body=fault.body)
        breaks = fault.reset or fault.stall is not None
        silent = breaks and not fault.after
        request = Request(self.command, path, headers, self.server.name, 0 if silent else answer.status)
        with hub._lock:
            hub._requests.append(request)
        if fault.raw is not None:
            self._send_raw(*fault.raw, fault.pause)
        elif not silent:
            stop = fault.cut if fault.cut is not None else fault.after if breaks else 1.0
            self._send(replace(answer, headers={**answer.headers, **fault.headers}), fault, stop)
            breaks = self.command != "HEAD" and (breaks or fault.cut is not None)
        if breaks:
            self._break_off(fault)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _send(self, answer: _Answer, fault: Fault, stop: float) -> None:
        body = bytearray(answer.body)
        if fault.flip and body:
            body[len(body) // 2] ^= 1
        self.send_response(answer.status)
        length = {} if fault.unsized else {"Content-Length": str(len(body))}
        for name, value in {**answer.headers, **length}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = body[: int(len(body) * stop)]
        step = max(1, fault.slow // 20) if fault.slow else max(1, len(body))
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            if fault.slow:
                time.sleep(step / fault.slow)

    def _send_raw(self, first: bytes, others: bytes, pause: float) -> None:
        self.close_connection = True
        self.wfile.write(first)
        end, sent = time.monotonic() + RAW_SECONDS, 0
        while time.monotonic() < end and sent < RAW_BYTES:
            with self.server.hub._lock:
                self.server.hub._raw_bytes += len(others)
            self.wfile.write(others)
            sent += len(others)
            time.sleep(pause)

    def _break_off(self, fault: Fault) -> None:
        self.close_connection = True
        time.sleep(fault.stall or 0)
        if fault.reset:
            # Closing the descriptor itself: the server's own way would say goodbye first.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.close(self.connection.detach())

    def log_message(self, *arguments: object) -> None:
        pass
