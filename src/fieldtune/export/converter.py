"""llama.cpp's own converter, at one version: it comes in the source archive of the Python package llama-cpp-python.

The wheel of that package does not carry it. The archive is fetched by pip, from whatever index pip is set up for,
checked against its known sum, and the converter's files are unpacked into the cache, once.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from filelock import FileLock

from fieldtune.errors import UserError
from fieldtune.records import file_sha256

log = logging.getLogger("fieldtune")

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
ARCHIVE = f"llama_cpp_python-{VERSION}.tar.gz"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
SCRIPT = "convert_hf_to_gguf.py"
_PARTS = (SCRIPT, "conversion", "gguf-py", "LICENSE")  # of vendor/llama.cpp


def ensure_converter(cache: Path) -> Path:
    """The converter's script; `UserError` where it is neither in the cache nor to be had."""
    target = cache / "llama.cpp" / VERSION
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not (target / SCRIPT).exists():
            beside = Path(tempfile.mkdtemp(prefix=f".{VERSION}-", dir=target.parent))
            try:
                _unpack(_archive(target.parent, beside), beside / "converter")
                shutil.rmtree(target, ignore_errors=True)
                (beside / "converter").rename(target)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
    return target / SCRIPT


def _archive(given: Path, beside: Path) -> Path:
    """The archive that someone put into the cache, or a fetched one; checked."""
    path = given / ARCHIVE
    if not path.exists():
        log.info("fetching %s, once, for llama.cpp's converter", ARCHIVE)
        wanted = [f"{PACKAGE}=={VERSION}", "--no-binary", PACKAGE, "--no-deps", "--dest", str(beside)]
        done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *wanted], capture_output=True)
        path = beside / ARCHIVE
        if done.returncode or not path.exists():
            raise UserError(
                f"llama.cpp's converter is not here and pip cannot fetch {PACKAGE} {VERSION}; "
                f"put {ARCHIVE} (https://pypi.org/project/{PACKAGE}/{VERSION}/#files) into {given}"
            )
    if file_sha256(path) != SHA256:
        raise UserError(f"{path} is not {PACKAGE} {VERSION}'s archive (its SHA-256 is another); delete it")
    return path


def _unpack(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as file:
        for member in file:
            parts = PurePosixPath(member.name).parts[1:]
            if parts[:2] == ("vendor", "llama.cpp") and len(parts) > 2 and parts[2] in _PARTS and member.isfile():
                member.name = str(PurePosixPath(*parts[2:]))
                file.extract(member, target, filter="data")
