"""What the media cache saves: epochs over films with it, against the loop that decodes and looks in every epoch.

    python benchmarks/media_cache.py [--clips 12] [--epochs 8] [--seconds 4] [--json FILE]

The films are rendered here: 320 x 240, 30 frames a second, H.264. Twice measured, both ways in this process and by the
same functions: 16 frames a film brought to 224 x 224 (what a tower that is trained takes), and the features of a frozen
tower, a stand-in of random weights in the form of CLIP's vision tower (4 layers, width 256). Goal of the latter over 8
epochs: at most 0.15 of the plain loop's time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel

from fieldtune.data.cache_entry import Array, Entry, storable
from fieldtune.data.media_cache import Key, MediaCache, needs
from fieldtune.records import file_sha256
from fieldtune.sources.decoder import Decoder
from fieldtune.sources.video import decode, probe, sample_16

GOAL, SIDE, FRAMES = 0.15, 224, 16
WIDTH, LAYERS, PATCHES = 256, 4, (224 // 16) ** 2
RATE = 30  # frames per second

Make = Callable[[np.ndarray[Any, Any]], Mapping[str, Array]]


def render(path: Path, seed: int, seconds: float) -> None:
    """A film of a square that moves before noise."""
    chance = np.random.default_rng(seed)
    ground = chance.integers(0, 256, (24, 32, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    speed = chance.uniform(1, 6, 2)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(int(seconds * RATE)):
            picture = ground.copy()
            top, left = (int(place) % room for place, room in zip(speed * number, (200, 280), strict=True))
            picture[top : top + 40, left : left + 40] = 255 - picture[top : top + 40, left : left + 40]
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())


def resized(frames: np.ndarray[Any, Any]) -> Mapping[str, Array]:
    """What a tower takes: uint8 [16, 224, 224, 3]."""
    small = [np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for frame in frames]
    return {"frames": np.stack(small)}


def looking() -> Make:
    """A frozen tower of random weights: fp16 [16, 196, 256] of a film's frames."""
    torch.manual_seed(0)
    shape = CLIPVisionConfig(
        **{"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS},
        **{"num_attention_heads": 4, "image_size": SIDE, "patch_size": 16},
    )
    tower = CLIPVisionModel(shape).eval().requires_grad_(False)

    def look(frames: np.ndarray[Any, Any]) -> Mapping[str, Array]:
        pixels = torch.from_numpy(resized(frames)["frames"]).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            features = tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        return {"features": storable(features.half())}

    return look


def plain(paths: list[Path], epochs: int, make: Make) -> tuple[list[float], float]:
    """Seconds of each epoch, and a sum over what came out of the last one."""
    seconds = []
    for _ in range(epochs):
        start, total = time.perf_counter(), 0.0
        for path in paths:
            arrays = make(decode(path, sample_16(probe(path))))
            total += sum(float(np.asarray(array).sum(dtype=np.float64)) for array in arrays.values())
        seconds.append(time.perf_counter() - start)
    return seconds, total


def cached(paths: list[Path], epochs: int, make: Make, what: str, cache: MediaCache) -> tuple[list[float], float]:
    """The same with the cache and the decoder's own process; hashing the films counts in the first epoch."""
    seconds, sums = [], dict[Path, str]()
    with Decoder() as decoder:
        for _ in range(epochs):
            start, total = time.perf_counter(), 0.0
            for path in paths:
                content = sums.get(path) or sums.setdefault(path, file_sha256(path))
                entry = cache.get(Key(content, "sample_16", what), lambda: make(decoder.frames(path, sample_16)[2]))  # noqa: B023
                total += _read(entry)
            seconds.append(time.perf_counter() - start)
    return seconds, total


def _read(entry: Entry) -> float:
    return sum(float(array.sum(dtype=np.float64)) for array in entry.arrays.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a film")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    given = parser.parse_args()
    look = looking()
    look(np.zeros((FRAMES, 240, 320, 3), dtype=np.uint8))  # the first call of a library is slower than the others
    found: dict[str, Any] = {"clips": given.clips, "epochs": given.epochs, "seconds": given.seconds}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.mp4" for number in range(given.clips)]
        for number, path in enumerate(paths):
            render(path, number, given.seconds)
        cases: tuple[tuple[str, Make, tuple[int, ...], str], ...] = (
            ("frames", resized, (FRAMES, SIDE, SIDE, 3), "uint8"),
            ("features", look, (FRAMES, PATCHES, WIDTH), "float16"),
        )
        for what, make, shape, dtype in cases:
            cache = MediaCache(Path(folder) / what)
            with_cache, second = cached(paths, given.epochs, make, what, cache)
            without, first = plain(paths, given.epochs, make)
            if first != second:
                raise SystemExit(f"{what}: the cache gives other values than the plain loop")
            ratio = sum(with_cache) / sum(without)
            later = sum(with_cache[1:]) / max(1, len(with_cache) - 1)
            print(
                f"{what}: {given.epochs} epochs over {given.clips} films of {given.seconds:g} s: plain "
                f"{sum(without):.2f} s, cached {sum(with_cache):.2f} s (first {with_cache[0]:.2f}, then {later:.3f}), "
                f"ratio {ratio:.3f}; disk {cache.used() / 1e6:.1f} MB, said before "
                f"{needs(given.clips, shape, dtype) / 1e6:.1f} MB; {cache.counts}",
                flush=True,
            )
            found[what] = {"plain": without, "cached": with_cache, "ratio": ratio, "bytes": cache.used()}
    reached = "reached" if found["features"]["ratio"] <= GOAL else "falls short"
    print(f"frozen tower with the cache: {found['features']['ratio']:.3f} of the plain loop, goal {GOAL}: {reached}")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
