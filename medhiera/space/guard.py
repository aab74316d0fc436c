"""What a request may ask of the page: an upload of limited size, and no file but one that was uploaded.

Stands between the browser and Gradio. Gradio's own checks let a request name any file in its folder, and an
address that it then fetches; and two visitors who send the same bytes share one file there.
"""

import json
import re
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Container, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from gradio import route_utils
from starlette.requests import Request
from starlette.responses import JSONResponse

LARGEST_UPLOAD = 64 * 2**20
"""Bytes of one file."""
LARGEST_MESSAGE = 2**20
"""Bytes of any other request: a button, a choice, a slider."""
MOST_ON_DISK = 2**30
"""Bytes of uploads that nobody has had read; more are refused until these are removed."""
AROUND_A_FILE = 2**16
"""Bytes that a form may have beside the file in it."""

_ELSEWHERE = re.compile(r"/(file|proxy)=\s*[a-z][a-z0-9+.-]+:", re.IGNORECASE)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _OwnFolder(route_utils.GradioUploadFile):
    """An upload whose folder has a name that nobody can guess; Gradio's is made of the file's bytes alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sha.update(secrets.token_bytes(32))


route_utils.GradioUploadFile = _OwnFolder  # Gradio has no option for it


class RequestGuard:
    """ASGI middleware: refuses a request, before its body is read where its size says enough.

    Args:
        app: what answers all others.
        folder: where Gradio keeps uploads.
        uploaded: the paths of all uploads.
        lifetime: seconds after which an upload that nobody had read is removed.
    """

    def __init__(self, app: Any, folder: Path, uploaded: Container[str], lifetime: float) -> None:
        self.app = app
        self.folder = folder
        self.uploaded = uploaded
        self.lifetime = lifetime

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        refused = None
        if scope["type"] == "http":
            refused = self._refuse_address(scope) or self._refuse_size(scope)
            if refused is None and scope["method"] == "POST" and not _is_upload(scope):
                body = await Request(scope, receive).body()
                refused = self._refuse_content(body)
                receive = _again(body, receive)
        await (refused or self.app)(scope, receive, send)

    def _refuse_address(self, scope: Message) -> JSONResponse | None:
        """Gradio would fetch the address and hand on what it gets."""
        if _ELSEWHERE.search(scope["path"]):
            return _refusal(403, "This page fetches nothing from elsewhere.")
        return None

    def _refuse_size(self, scope: Message) -> JSONResponse | None:
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        length = dict(scope["headers"]).get(b"content-length", b"").decode("latin-1")
        if not length.isdecimal():
            return _refusal(411, "The request does not say how large it is.")
        if int(length) > (LARGEST_UPLOAD + AROUND_A_FILE if _is_upload(scope) else LARGEST_MESSAGE):
            return _refusal(413, f"Too large: at most {LARGEST_UPLOAD // 2**20} MB are read.")
        if _is_upload(scope) and int(length) + self._clean_up() > MOST_ON_DISK:
            return _refusal(503, "Too many uploads at once; try again in some minutes.")
        return None

    def _refuse_content(self, body: bytes) -> JSONResponse | None:
        try:
            content = json.loads(body or b"null")
            if isinstance(content, dict):  # a chosen example is described there, and nobody opens it
                content.pop("event_data", None)
            paths = [str(path) for path in _paths(content)]
        except (ValueError, RecursionError):
            return _refusal(400, "No JSON.")
        if any(path not in self.uploaded for path in paths):
            return _refusal(403, "This is no uploaded file.")
        return None

    def _clean_up(self) -> int:
        """Remove what is too old, unfinished uploads too; bytes that are left."""
        left = 0
        for entry in self.folder.iterdir():
            try:
                if time.time() - entry.stat().st_mtime > self.lifetime:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                    continue
                left += sum(file.stat().st_size for file in (entry, *entry.glob("*")) if file.is_file())
            except OSError:
                continue  # another request removed it
        return left


def _refusal(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status)  # as Gradio says it, which its page then shows


def _is_upload(scope: Message) -> bool:
    return bool(scope["path"].rstrip("/").endswith("/upload"))


def _paths(content: Any) -> Iterator[Any]:
    """Every file that a message names, however deep."""
    if isinstance(content, dict):
        if content.get("path"):
            yield content["path"]
        content = list(content.values())
    if isinstance(content, list):
        for each in content:
            yield from _paths(each)


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, for whoever reads it next."""
    parts = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def next_part() -> Message:
        part = next(parts, None)
        return part if part is not None else await receive()

    return next_part
