"""Downloads one file over HTTP: resumed when cut, checked when complete, moved into place only when good.

Beside the target lie, while a download is under way, ``NAME.part`` (the bytes so far) and ``NAME.part.json``
(what the server said of them: total size, validator, MD5), and afterwards ``NAME.sha256`` (the sum of the
good file, in the form that ``sha256sum --check`` reads).
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fieldtune.errors import UserError
from fieldtune.models.download_part import Facts, Part
from fieldtune.runs import write_text

if TYPE_CHECKING:
    import httpx

Progress = Callable[[int, int | None], None]

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)$")
_BUSY_STATUSES = {408, 425, 429}


class _Unavailable(Exception):
    """This URL does not give the file. ``transient``: asking again may help."""

    def __init__(self, reason: str, *, transient: bool) -> None:
        super().__init__(reason)
        self.transient = transient


class _Cut(Exception):
    """The connection ended before the file did; what came is kept."""


class _Corrupt(Exception):
    """All bytes came, and they are not the file."""


def _digests(path: Path) -> tuple[str, str]:
    """SHA-256 and MD5 of a file, hexadecimal, in one pass over it."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            md5.update(chunk)
    return sha256.hexdigest(), md5.hexdigest()


def _sum_path(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _is_intact(target: Path, sha256: str | None) -> bool:
    """True when ``target`` exists and has the given sum or, with none given, the recorded one."""
    if not target.is_file():
        return False
    if sha256 is None:
        try:
            sha256 = _sum_path(target).read_text(encoding="utf-8").split()[0]
        except (OSError, ValueError, IndexError):
            return False
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256.lower()


def _md5_of(response: httpx.Response) -> str | None:
    """MD5 (hexadecimal) that the server states for the whole file, None without one."""
    stated = response.headers.get("x-ms-blob-content-md5")
    if stated is None and response.status_code == 200:
        stated = response.headers.get("Content-MD5")  # of a 206 it is the sum of that range only
    try:
        return base64.b64decode(stated, validate=True).hex() if stated else None
    except binascii.Error:
        return None


def _validator_of(response: httpx.Response) -> str | None:
    """What If-Range may carry: a strong ETag, else the date of the last change (RFC 9110, 13.1.5)."""
    etag: str | None = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    changed: str | None = response.headers.get("Last-Modified")
    return changed


def _accept(response: httpx.Response, part: Part, url: str) -> bool:
    """Fit the part to the response's beginning; False when it does not continue the part (which is then
    dropped).
    """
    status = response.status_code
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _Unavailable("the server compresses the file though asked not to", transient=False)
    if status == 206:
        match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        known = part.facts.total if part.facts else None
        if not match or int(match[1]) != part.size or match[3] != str(known):
            part.discard()
            return False
        part.joined = True
        remembered_md5 = part.facts.md5 if part.facts else None
        part.remember(Facts(url, known, _validator_of(response), _md5_of(response) or remembered_md5))
        return True
    if status == 416:
        part.discard()
        return False
    if status != 200:
        busy = status in _BUSY_STATUSES or status >= 500
        raise _Unavailable(f"HTTP {status} {response.reason_phrase}".rstrip(), transient=busy)
    part.discard()
    length = response.headers.get("Content-Length")
    total = int(length) if length and length.isdigit() else None
    part.remember(Facts(url, total, _validator_of(response), _md5_of(response)))
    return True


def _receive(client: httpx.Client, url: str, part: Part, progress: Progress | None) -> None:
    """One request for what is missing. Raises _Cut or _Unavailable."""
    import httpx

    # Compression would make lengths, ranges and sums those of other bytes.
    headers = {"Accept-Encoding": "identity", **part.resume_headers(url)}
    try:
        with client.stream("GET", url, headers=headers) as response:
            if accepted := _accept(response, part, url):
                total, done = part.facts.total if part.facts else None, part.size
                with part.path.open("ab" if done else "wb") as file:
                    for chunk in response.iter_raw():
                        file.write(chunk)
                        done += len(chunk)
                        if progress:
                            progress(done, total)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise _Unavailable(f"no connection ({_text(error)})", transient=True) from error
    except httpx.TransportError as error:
        if isinstance(error, httpx.UnsupportedProtocol):
            raise _Unavailable(_text(error), transient=False) from error
        raise _Cut(_text(error)) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _Unavailable(_text(error), transient=False) from error
    if not accepted:
        _receive(client, url, part, progress)  # the part is gone now, so this asks for the whole file
    elif total is not None and done != total:
        raise _Cut(f"{done} of {total} bytes came")


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _receive_all(
    client: httpx.Client, url: str, part: Part, progress: Progress | None, *, retries: int, last: bool
) -> None:
    """Ask ``url`` until the part is complete; ``retries`` further requests while none brings the part
    further.
    """
    furthest, left = part.size, retries
    while part.facts is None or part.facts.total is None or part.size != part.facts.total:
        try:
            _receive(client, url, part, progress)
            return
        except (_Cut, _Unavailable) as error:
            # A URL that does not answer is asked again only when there is no other one to turn to.
            final = isinstance(error, _Unavailable) and not (error.transient and last)
            if part.size > furthest:
                furthest, left = part.size, retries
            left -= 1
            if final or left < 0:
                raise
            time.sleep(min(8.0, 0.25 * 2 ** (retries - left - 1)))


def _check(part: Part, sha256: str | None) -> str:
    """Compare the complete part's sums; its SHA-256. A part that does not match is deleted."""
    actual_sha256, actual_md5 = _digests(part.path)
    md5 = part.facts.md5 if part.facts else None
    for kind, actual, expected in (("SHA-256", actual_sha256, sha256), ("MD5", actual_md5, md5)):
        if expected is not None and actual != expected.lower():
            part.discard()
            raise _Corrupt(f"{kind} is {actual}, expected {expected.lower()}")
    return actual_sha256


def _from_url(
    client: httpx.Client,
    url: str,
    part: Part,
    sha256: str | None,
    progress: Progress | None,
    *,
    retries: int,
    last: bool,
) -> str:
    """The SHA-256 of the complete part got from ``url``; a part joined from several answers gets one fresh
    try.
    """
    _receive_all(client, url, part, progress, retries=retries, last=last)
    was_joined = part.joined
    try:
        return _check(part, sha256)
    except _Corrupt:
        if not was_joined:
            raise
    _receive_all(client, url, part, progress, retries=retries, last=last)
    return _check(part, sha256)


def fetch(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
    timeout: float = 30.0,
    retries: int = 3,
) -> Path:
    """Make ``target`` the file that ``urls`` (mirrors of one file, tried in order) give; returns ``target``.

    An intact target is not fetched again: one with the given ``sha256`` or, with none given, with the sum
    recorded after the first good download. A cut download is resumed, in a later run too, and from the next
    URL when that has a file of the same size; the sum, where one is known, decides whether the joined file is
    good.

    ``progress(done, total)`` is called with bytes; ``total`` is None when the server does not tell.
    ``timeout`` is in seconds, of silence, not of the whole download. ``retries``: further requests to a URL
    while none gets further.

    Raises UserError, in one line: every URL with the reason why it failed; a folder that cannot be written; a
    full disk.
    """
    import filelock
    import httpx

    if not urls:
        raise UserError(f"no URL to fetch {target.name} from: give at least one")
    try:
        if _is_intact(target, sha256):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        # Two processes (the ranks of a distributed run, say) must not write one part.
        lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
        limits = httpx.Timeout(timeout, connect=min(timeout, 10.0))
        with lock, httpx.Client(timeout=limits, follow_redirects=True) as client:
            if _is_intact(target, sha256):
                return target  # another process fetched it meanwhile
            part, reasons = Part(target), []
            for number, url in enumerate(urls, start=1):
                try:
                    last = number == len(urls)
                    actual = _from_url(client, url, part, sha256, progress, retries=retries, last=last)
                except (_Cut, _Unavailable, _Corrupt) as error:
                    reasons.append(f"{url}: {error}")
                    continue
                part.path.replace(target)
                write_text(_sum_path(target), f"{actual}  {target.name}\n")
                part.discard()
                return target
    except OSError as error:
        raise UserError(_disk_reason(error, target)) from error
    kept = f"; {part.size} bytes are kept and the next run resumes there" if part.size else ""
    raise UserError(f"cannot fetch {target.name}: {'; '.join(reasons)}; check the connection and run again{kept}")


def _disk_reason(error: OSError, target: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"cannot write {target}: the disk is full; free space there and run again to resume"
    return f"cannot write {target}: {error.strerror or error}; choose a folder that can be written"
