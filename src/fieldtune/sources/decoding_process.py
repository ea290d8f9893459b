"""The process in which foreign decoders run: `python -m fieldtune.sources.decoding_process`.

It reads a job a line from standard input and writes an answer a line, both JSON; pixels go raw to the file that the job
names. A decoder that crashes or hangs takes nothing with it but this process. `sources/decoder.py` is the other end.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fieldtune.errors import UserError
from fieldtune.records import file_sha256
from fieldtune.sources import video
from fieldtune.sources.pictures import MediaError, Pixels, read_image, reading
from fieldtune.stopping import SIGNALS

GRACE = 10  # seconds after the limit until this process ends itself


def main() -> None:
    # What a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # A terminal, Slurm or systemd sends these to every process; the one that asks decides what they mean.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    print(json.dumps({"ready": os.getpid()}), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        signal.alarm(math.ceil(job["seconds"]) + GRACE)  # should the one that asks be gone, and this decoder hang
        print(json.dumps(_answer(job)), file=answers, flush=True)
        signal.alarm(0)


def _answer(job: Mapping[str, Any]) -> dict[str, Any]:
    """What was found, or {media: reason}, {user: message} or {refused: errno}."""
    try:
        return _done(job, Path(job["path"]))
    except MediaError as error:
        return {"media": error.reason}
    except UserError as error:
        return {"user": str(error)}
    except OSError as error:  # of the file for the pixels; those of the media file are MediaErrors
        return {"refused": error.errno}


def _done(job: Mapping[str, Any], path: Path) -> dict[str, Any]:
    match job["do"]:
        case "sha256":
            with reading(path, "cannot be read"):
                return {"sha256": file_sha256(path)}
        case "probe":
            return asdict(video.probe(path))
        case "check":
            return asdict(video.check(path))
        case "decode":
            return _written(job, video.decode(path, job["indices"]))
        case "image":
            return _written(job, read_image(path))
    raise ValueError(f"unknown job {job['do']!r}")


def _written(job: Mapping[str, Any], pixels: Pixels) -> dict[str, Any]:
    if "out" in job:
        with Path(job["out"]).open("wb") as file:
            file.write(np.ascontiguousarray(pixels).data)
    return {"shape": pixels.shape}


if __name__ == "__main__":
    main()
