"""Downloads a model from the Hugging Face Hub: only what is needed to load it, checked, errors in one line.

Fetched are the files in the repository's root that hold configuration, tokenizer, templates and safetensors
weights (pickled ``*.bin`` weights only where there are no safetensors; code never). The token comes from
``HF_TOKEN`` or from ``hf auth login`` and is only ever sent to the hub.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from fieldtune.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_log = logging.getLogger(__name__)

_DESCRIPTIONS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
_PICKLED = ("pytorch_model*.bin", "adapter_model.bin")  # not training_args.bin and the like
_TEMPLATES = "additional_chat_templates/*.jinja"


class _Damaged(Exception):
    """Files whose bytes are not those that the hub promised."""


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _select(names: Iterable[str], with_weights: bool) -> list[str]:
    """Of a repository's files those to fetch. Raises UserError when there are no weights in it."""
    all_names = list(names)
    root = [name for name in all_names if "/" not in name]
    weights = [name for name in root if name.endswith(".safetensors")]
    if any(name.startswith(("model", "adapter_model")) for name in weights):
        # Some repositories hold a second copy of the weights for the vendor's own loader.
        weights = [name for name in weights if not name.startswith("consolidated")]
    descriptions = [name for name in root if _matches(name, _DESCRIPTIONS)]
    if weights:
        descriptions = [name for name in descriptions if not name.endswith(".bin.index.json")]
    else:
        weights = [name for name in root if _matches(name, _PICKLED)]
    if not weights:
        kinds = sorted({Path(name).suffix for name in all_names if Path(name).suffix}) or ["none"]
        raise UserError(
            f"it has no *.safetensors and no pytorch_model*.bin weights (its file types: {', '.join(kinds)});"
            " choose a repository that has the weights for transformers"
        )
    return [
        *(weights if with_weights else ()),
        *descriptions,
        *(name for name in all_names if fnmatch(name, _TEMPLATES)),
    ]


def _blobs(folder: Path) -> Iterator[tuple[Path, Path]]:
    """(file, blob) of a snapshot. The cache names a blob by its ETag: the SHA-256 of LFS files, else git's
    hash.

    Without symbolic links (some Windows systems) the cache keeps no such names, and nothing is yielded.
    """
    for file in sorted(folder.rglob("*")):
        if file.is_symlink():
            yield file, file.parent / file.readlink()


def _is_damaged(blob: Path) -> bool:
    name = blob.name
    if re.fullmatch(r"[0-9a-f]{64}", name):
        with blob.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() != name
    if re.fullmatch(r"[0-9a-f]{40}", name):
        data = blob.read_bytes()  # git's own files are small
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() != name
    return False


def _verify(folder: Path) -> None:
    """Raise _Damaged, after deleting them from the cache, when files of the snapshot are not what the hub
    promised.
    """
    damaged = [(file, blob) for file, blob in _blobs(folder) if blob.exists() and _is_damaged(blob)]
    for file, blob in damaged:
        blob.resolve().unlink(missing_ok=True)  # the blob itself may be a link into a store shared by repositories
        blob.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
    if damaged:
        raise _Damaged(", ".join(str(file.relative_to(folder)) for file, _ in damaged))


def _download(api: HfApi, name: str, revision: str | None, cache: Path | None, with_weights: bool) -> Path:
    from huggingface_hub import constants, snapshot_download

    info = api.model_info(name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    files = _select((sibling.rfilename for sibling in info.siblings or []), with_weights)
    for attempt in (1, 2):
        folder = Path(
            snapshot_download(name, revision=revision, cache_dir=cache, endpoint=api.endpoint, allow_patterns=files)
        )
        try:
            _verify(folder)
            break
        except _Damaged:
            if attempt == 2:
                raise
    return folder


def _cached(name: str, revision: str | None, cache: Path | None, with_weights: bool) -> Path | None:
    """The snapshot in the cache when all its files are there, else None."""
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    try:
        tree = get_cached_repo_tree(name, revision=revision, cache_dir=cache)
        files = _select((file.path for file in tree), with_weights)
    except CachedRepoTreeNotFoundError:
        files = None  # fetched by an older client; it cannot be told whether files are missing
    try:
        return Path(
            snapshot_download(name, revision=revision, cache_dir=cache, allow_patterns=files, local_files_only=True)
        )
    except LocalEntryNotFoundError:
        return None


def fetch_snapshot(
    name: str,
    *,
    revision: str | None,
    cache: Path | None = None,
    endpoint: str | None = None,
    with_weights: bool = True,
) -> Path:
    """Folder with the files of the model ``name`` ("owner/model") at ``revision`` (branch, tag or commit;
    None: main).

    Files lie in huggingface_hub's cache (``cache``; None: its usual place) and are fetched only when missing
    there. What the hub names by a checksum is compared with it; a file that does not match is deleted and
    fetched once more. When the hub does not answer, a complete snapshot in the cache is used. ``endpoint``:
    another hub's address. Without ``with_weights`` configuration, tokenizer and templates only: megabytes.

    Raises UserError, in one line: a gated, private or unknown repository; an unknown revision; no weights; no
    network and nothing in the cache; a cut or damaged download; a full disk.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RevisionNotFoundError

    api = HfApi(endpoint=endpoint)
    try:
        return _download(api, name, revision, cache, with_weights)
    except HFValidationError as error:
        raise UserError(
            f"{name!r} is no model's name on the hub: write it as owner/model, or give a folder that exists"
        ) from error
    except UserError as error:
        raise UserError(f"cannot use the model {name}: {error}") from error
    except _Damaged as error:
        raise UserError(
            f"the files of {name} came damaged twice ({error}): their checksums are not those the hub gives;"
            " check the connection (a proxy?) and run again"
        ) from error
    except Exception as error:  # the client passes on exceptions of its HTTP and Xet libraries
        folder = None if isinstance(error, RevisionNotFoundError) else _cached(name, revision, cache, with_weights)
        if folder is None:
            raise UserError(_reason(error, name, revision, api.endpoint)) from error
        _log.warning("the hub does not give %s; using the copy in the cache: %s", name, folder)
    try:
        _verify(folder)
    except _Damaged as error:
        raise UserError(
            f"the cached files of {name} were damaged and are deleted now ({error}): connect to the hub and run again"
        ) from error
    return folder


def _reason(error: Exception, name: str, revision: str | None, endpoint: str) -> str:
    """One line for any failure of the hub's client."""
    from huggingface_hub import errors, get_token

    page, root = f"{endpoint}/{name}", _root(error)
    if isinstance(root, errors.GatedRepoError):
        if get_token():
            return (
                f"the model {name} is gated, and the account of your token has no access: accept its license at {page}"
                " (a fine-grained token must also be allowed to read gated repositories)"
            )
        return (
            f"the model {name} is gated: accept its license at {page}, then set HF_TOKEN to a token of that"
            " account (or run `hf auth login`)"
        )
    if isinstance(root, errors.RevisionNotFoundError):
        return f"the model {name} has no revision {revision!r}: choose one listed at {page}/commits"
    if isinstance(root, errors.RepositoryNotFoundError):
        return (
            f"there is no model {name} at {endpoint}, or it is private: check the name (owner/model);"
            " for a private one set HF_TOKEN (or run `hf auth login`)"
        )
    if isinstance(root, errors.HfHubHTTPError):
        return _status_reason(root, name, page)
    full = isinstance(root, OSError) and root.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left on device" in str(root):  # the Xet library gives the text only
        return f"cannot store the model {name}: the disk is full; free space, or set HF_HOME to a larger disk"
    if isinstance(root, OSError) and "Consistency check failed" in str(root):
        return f"the download of {name} was cut: a file is shorter than the hub states; run again"
    # By name, as the client's HTTP library differs between its versions.
    kinds = {kind.__name__ for kind in type(root).__mro__}
    if isinstance(root, errors.OfflineModeIsEnabled):
        return f"the model {name} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it: unset that"
    if kinds & {"LocalEntryNotFoundError", "ConnectError", "TimeoutException", "ProxyError"}:
        return (
            f"cannot reach {endpoint}, and the model {name} is not completely in the cache: check the network"
            f" ({_line(root)}), or give a folder that holds the model"
        )
    if "TransportError" in kinds:
        return f"the download of {name} was cut ({_line(root)}); run again"
    if isinstance(root, OSError) and root.strerror:
        where = f"{root.strerror} ({root.filename})"
        return f"cannot store the model {name}: {where}; set HF_HOME to a folder you can write"
    return f"cannot fetch the model {name} from {endpoint}: {type(root).__name__}: {_line(root)}; run again"


def _status_reason(error: Exception, name: str, page: str) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return f"the hub refuses the token for {name} (HTTP 401): renew HF_TOKEN (or run `hf auth login`)"
    if status == 403:
        return (
            f"the hub forbids access to {name} (HTTP 403): if it is gated, accept its license at {page};"
            " then use a token in HF_TOKEN that may read it"
        )
    if status == 429:
        return f"the hub answers too many requests for {name} (HTTP 429): wait some minutes and run again"
    return f"the hub failed to give {name} (HTTP {status}): run again later"


def _root(error: BaseException) -> BaseException:
    """The error that the client wrapped, where it did."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
