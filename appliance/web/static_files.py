"""The dashboard's own files, from the package: the same in a wheel, a zip or the frozen executable.

Invariant: only what lies below `static` when the node starts can be had, whatever a path says; nothing is read
from a disk while the node runs (files are small: some 250 KB in all, compressed a third).
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}
INDEX: Final = "index.html"


@dataclass(frozen=True, slots=True)
class StaticFile:
    """Kept compressed; unpacked for the rare client that takes no gzip."""

    packed: bytes
    content_type: str
    tag: str


def load_static() -> dict[str, StaticFile]:
    """Path below `static` to file."""
    return dict(_walk(files("appliance.web").joinpath("static"), ""))


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, StaticFile]]:
    found = []
    for item in sorted(folder.iterdir(), key=lambda each: each.name):
        if item.is_dir():
            found += _walk(item, f"{prefix}{item.name}/")
            continue
        content_type = TYPES.get(item.name[item.name.rfind(".") :])
        if content_type is not None:
            content = item.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            packed = gzip.compress(content, compresslevel=6, mtime=0)
            found.append((prefix + item.name, StaticFile(packed, content_type, tag)))
    return found


async def serve_static(request: Request) -> Response:
    """The pages are one file: which of them is shown is behind the #."""
    found: StaticFile | None = request.app.state.static.get(request.path_params.get("path") or INDEX)
    if found is None:
        return PlainTextResponse("not found\n", 404)
    # Asked again each time and answered in a few bytes: a page of an older version must not meet a newer node.
    headers = {"etag": found.tag, "cache-control": "no-cache", "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    body = found.packed
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
    else:
        body = gzip.decompress(body)
    return Response(body, headers={**headers, "content-type": found.content_type})
