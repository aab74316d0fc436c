"""A small Hub on loopback for tests: enough for the real client to publish models and datasets and load them.

It keeps repositories in memory (a dataset's under the name `datasets:owner/name`), fails on purpose when told
(`faults`), and notes every request (`requests`). The client must see `environment()` before it is imported.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".png", ".bin", ".parquet")


@dataclass
class Repository:
    """The files of the newest commit, and the commits' messages."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, tuple[str, dict[str, bytes]]] = field(default_factory=dict)  # commit and files

    def at(self, revision: str) -> tuple[str, dict[str, bytes]]:
        """Commit and files of a tag, or of the newest commit."""
        return self.tags.get(revision, (self.head, self.files))

    @property
    def head(self) -> str:
        return hashlib.sha1(json.dumps(self.commits).encode()).hexdigest()


@dataclass
class Fault:
    """Fail the next `times` requests whose "METHOD /path" matches: with a status, or by dropping the line."""

    pattern: str
    status: int | None = None
    times: int = 1
    after_work: bool = False  # drop only the answer: the server has done what was asked


class LoopbackHub:
    """Use as a context manager."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.lfs: dict[str, bytes] = {}
        self.collections: dict[str, dict[str, Any]] = {}
        self.access: dict[str, Any] = {"role": "write"}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.before_put: Callable[[], None] = lambda: None
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "LoopbackHub":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *details: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: str) -> dict[str, str]:
        return {
            "HF_ENDPOINT": self.address,
            "HF_TOKEN": "hf_loopback",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HOME": home,
            "NO_PROXY": "127.0.0.1",
        }

    def sent(self) -> list[str]:
        """The requests that may change something."""
        return [line for line in self.requests if not line.startswith(("GET", "HEAD"))]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub

    def log_message(self, *details: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET

    def _serve(self) -> None:
        path = re.sub(r"^(/api)?/datasets/", _as_model, unquote(urlsplit(self.path).path))
        line = f"{self.command} {path}"
        self.hub.requests.append(line)
        fault = next((fault for fault in self.hub.faults if re.search(fault.pattern, line)), None)
        if fault:
            fault.times -= 1
            if fault.times == 0:
                self.hub.faults.remove(fault)
            if fault.status is None and not fault.after_work:
                self.close_connection = True
                return
        if self.command == "PUT":
            self.hub.before_put()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault and fault.status is not None:
            return self._answer({"error": "failed on purpose"}, fault.status)
        for pattern, method in _ROUTES:
            match = re.fullmatch(pattern, line)
            if match:
                answer = method(self, body, *match.groups())
                break
        else:
            answer = ({"error": f"no route for {line}"}, 404, {"X-Error-Code": "EntryNotFound"})
        if fault and fault.after_work:
            self.close_connection = True
            return
        self._answer(*answer)

    def _answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and status == 200:
            data = data[int(asked[1]) : int(asked[2]) + 1 if asked[2] else None]
            status = 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _is_signed_in(self) -> bool:
        return self.headers.get("Authorization") == "Bearer hf_loopback"

    def whoami(self, body: bytes) -> tuple[Any, ...]:
        if not self._is_signed_in():
            return ({"error": "Invalid username or password."}, 401)
        return ({"type": "user", "name": "tester", "orgs": [], "auth": {"accessToken": self.hub.access}},)

    def create(self, body: bytes) -> tuple[Any, ...]:
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'tester'}/{asked['name']}"
        is_dataset = asked.get("type") == "dataset"
        answer = {"url": f"{self.hub.address}/{'datasets/' if is_dataset else ''}{name}", "name": name}
        name = f"datasets:{name}" if is_dataset else name
        if not self._is_signed_in() or self.hub.access["role"] == "read":
            return ({"error": "no write access"}, 403)
        if name in self.hub.repositories:
            return (answer, 409)
        private = asked.get("private") is True or asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private)
        return (answer,)

    def validate_card(self, body: bytes) -> tuple[Any, ...]:
        return ({"errors": [], "warnings": []},)

    def _repository(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        return None if repository and repository.private and not self._is_signed_in() else repository

    def info(self, body: bytes, name: str, revision: str | None) -> tuple[Any, ...]:
        repository = self._repository(name)
        if repository is None:
            return _NO_REPOSITORY
        commit, files = repository.at(revision or "main")
        siblings = [{"rfilename": file} for file in sorted(files)]
        return (
            {
                "id": name.removeprefix("datasets:"),
                "sha": commit,
                "gated": repository.settings.get("gated", False),
                "private": repository.private,
                "tags": [],
                "siblings": siblings,
            },
        )

    def tree(self, body: bytes, name: str, revision: str, folder: str | None) -> tuple[Any, ...]:
        repository = self._repository(name)
        if repository is None:
            return _NO_REPOSITORY
        prefix = f"{folder}/" if folder else ""
        held = repository.at(revision)[1]
        files = [file for file in sorted(held) if file.startswith(prefix)]
        if folder and not files:
            return ({"error": "no such folder"}, 404, {"X-Error-Code": "EntryNotFound"})
        entries = [_entry(file, held[file]) for file in files]
        if "recursive=true" not in urlsplit(self.path).query.lower():
            below = sorted({prefix + file.removeprefix(prefix).split("/")[0] for file in files} - set(files))
            entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(prefix)]
            entries += [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in below]
        return (entries,)

    def paths(self, body: bytes, name: str) -> tuple[Any, ...]:
        repository = self._repository(name)
        if repository is None:
            return _NO_REPOSITORY
        asked = parse_qs(body.decode())["paths"]
        return ([_entry(file, repository.files[file]) for file in asked if file in repository.files],)

    def preupload(self, body: bytes, name: str) -> tuple[Any, ...]:
        files = self.hub.repositories[name].files
        answers = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            answer = {"path": path, "shouldIgnore": False}
            answer["uploadMode"] = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            if path in files:
                lfs = answer["uploadMode"] == "lfs"
                answer["oid"] = _sha256(files[path]) if lfs else _entry(path, files[path])["oid"]
            answers.append(answer)
        return ({"files": answers},)

    def lfs_batch(self, body: bytes, name: str) -> tuple[Any, ...]:
        objects = json.loads(body)["objects"]
        for item in objects:
            if item["oid"] not in self.hub.lfs:
                item["actions"] = {"upload": {"href": f"{self.hub.address}/lfs/{item['oid']}"}}
        return ({"transfer": "basic", "objects": objects},)

    def lfs_put(self, body: bytes, oid: str) -> tuple[Any, ...]:
        if _sha256(body) != oid:
            return ({"error": "the content is not what was announced"}, 400)
        self.hub.lfs[oid] = body
        return ({},)

    def commit(self, body: bytes, name: str) -> tuple[Any, ...]:
        if not self._is_signed_in() or self.hub.access["role"] == "read":
            return ({"error": "no write access"}, 403)
        repository = self.hub.repositories[name]
        files = dict(repository.files)
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.lfs[value["oid"]]
            else:
                del files[value["path"]]
        repository.files = files
        repository.commits.append(message)
        answer = {
            "commitUrl": f"{self.hub.address}/{name.replace(':', '/')}/commit/{repository.head}",
            "commitOid": repository.head,
        }
        return (answer,)

    def resolve(self, body: bytes, name: str, revision: str, file: str) -> tuple[Any, ...]:
        repository = self._repository(name)
        if repository is None:
            return _NO_REPOSITORY
        commit, files = repository.at(revision)
        headers = {"X-Repo-Commit": commit}
        if file not in files:
            return ({"error": "no such file"}, 404, headers | {"X-Error-Code": "EntryNotFound"})
        content = files[file]
        return (content, 200, headers | {"ETag": f'"{_entry(file, content)["oid"]}"'})

    def tag(self, body: bytes, name: str, revision: str) -> tuple[Any, ...]:
        repository, tag = self.hub.repositories[name], json.loads(body)["tag"]
        if not self._is_signed_in() or self.hub.access["role"] == "read":
            return ({"error": "no write access"}, 403)
        if tag in repository.tags:
            return ({"error": "Tag reference exists already"}, 409)
        if revision not in ("main", repository.head):
            return ({"error": "no such revision"}, 404, {"X-Error-Code": "RevisionNotFound"})
        repository.tags[tag] = (repository.head, dict(repository.files))
        return ({},)

    def settings(self, body: bytes, name: str) -> tuple[Any, ...]:
        if not self._is_signed_in() or self.hub.access["role"] == "read":
            return ({"error": "no write access"}, 403)
        self.hub.repositories[name].settings |= json.loads(body)
        return ({},)

    def list_collections(self, body: bytes) -> tuple[Any, ...]:
        owner = parse_qs(urlsplit(self.path).query).get("owner", [""])[0]
        return ([entry for entry in self.hub.collections.values() if entry["owner"]["name"] == owner],)

    def create_collection(self, body: bytes) -> tuple[Any, ...]:
        asked = json.loads(body)
        if not self._is_signed_in() or self.hub.access["role"] == "read":
            return ({"error": "no write access"}, 403)
        title = asked["title"]
        name = re.sub(r"[^a-z0-9]+", "-", title.lower())
        slug = f"{asked['namespace']}/{name}-{len(self.hub.collections):024x}"
        self.hub.collections[slug] = {
            "slug": slug, "title": title, "owner": {"name": asked["namespace"]}, "items": [],
            "description": asked.get("description"), "private": asked["private"], "theme": "blue",
            "upvotes": 0, "lastUpdated": "2026-01-01T00:00:00.000Z",
        }  # fmt: skip
        return (self.hub.collections[slug] | {"position": 0},)

    def collection(self, body: bytes, slug: str) -> tuple[Any, ...]:
        if slug not in self.hub.collections:
            return ({"error": "no such collection"}, 404)
        return (self.hub.collections[slug] | {"position": 0},)

    def add_item(self, body: bytes, slug: str) -> tuple[Any, ...]:
        if slug not in self.hub.collections:
            return ({"error": "no such collection"}, 404)
        items, asked = self.hub.collections[slug]["items"], json.loads(body)
        if any(item["id"] == asked["item"]["id"] for item in items):
            return ({"error": "it is there already"}, 409)
        note = {"text": asked["note"]} if "note" in asked else None
        items.append({"_id": f"{len(items):024x}", "position": len(items), "note": note, **asked["item"]})
        return self.collection(body, slug)


_NO_REPOSITORY = ({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
_ROUTES: list[tuple[str, Callable[..., tuple[Any, ...]]]] = [
    (r"GET /api/whoami-v2", _Handler.whoami),
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate_card),
    (r"GET /api/collections", _Handler.list_collections),
    (r"POST /api/collections", _Handler.create_collection),
    (r"GET /api/collections/([^/]+/[^/]+)", _Handler.collection),
    (r"POST /api/collections/([^/]+/[^/]+)/items", _Handler.add_item),
    (r"GET /api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", _Handler.info),
    (r"GET /api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", _Handler.tree),
    (r"POST /api/models/([^/]+/[^/]+)/tag/(.+)", _Handler.tag),
    (r"PUT /api/models/([^/]+/[^/]+)/settings", _Handler.settings),
    (r"POST /api/models/([^/]+/[^/]+)/paths-info/[^/]+", _Handler.paths),
    (r"POST /api/models/([^/]+/[^/]+)/preupload/main", _Handler.preupload),
    (r"POST /([^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (r"PUT /lfs/(\w+)", _Handler.lfs_put),
    (r"POST /api/models/([^/]+/[^/]+)/commit/main", _Handler.commit),
    (r"(?:GET|HEAD) /([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler.resolve),
]


def _as_model(start: re.Match[str]) -> str:
    return f"{start[1]}/models/datasets:" if start[1] else "/datasets:"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _entry(file: str, content: bytes) -> dict[str, Any]:
    """How the Hub lists a file; the oid is git's."""
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content), "oid": oid}
    if file.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
    return entry
