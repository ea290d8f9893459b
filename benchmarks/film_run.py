"""What the media cache saves of a whole run: train.py over films with it, and decoding and looking in every epoch.

    python benchmarks/film_run.py [--model smolvlm] [--films 8] [--epochs 8] [--seconds 4] [--tiny] [--json FILE]

Two runs of `train.py` on the same films (those of `media_cache.py`) that differ in `trainer.media_cache_gb` alone. The
model is a Mobile-VideoGPT of random weights with all 2,402 places of a film: the released one of 0.5B at about a
quarter of each width and a third of the layers, so that towers and language model take about the shares of the work
that they take there. --model smolvlm: a SmolVLM2, that of 256M at half of each width, layers and side of a frame, which
is shown 8 frames; there the tower has most of the work. LoRA, frozen towers, fp32; about once an epoch an evaluation on
a quarter of the films, which is held out. --tiny: the family's smallest model, to see that it works.

Both runs must have the same losses. Goal: with the cache, a data wait of at most 5 % of step time after the first
epoch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from media_cache import render

from fieldtune.models import tiny_film, tiny_vision
from fieldtune.models.mobile_videogpt.shapes import Shape
from fieldtune.records import write_jsonl
from fieldtune.runs import Run, list_runs

GOAL = 0.05  # data wait, of step time
ROOT = Path(__file__).resolve().parents[1]
STAMP = len("2026-01-01 00:00:00,000")

NARROW = Shape(
    **{"image_layers": 4, "image_width": 192, "image_heads": 3, "image_inner": 768},
    **{"video_layers": 10, "video_width": 144, "video_aligned": 128},
    language={
        **{"hidden_size": 224, "intermediate_size": 1216, "num_hidden_layers": 8, "num_attention_heads": 14},
        **{"num_key_value_heads": 2, "max_position_embeddings": 4096, "vocab_size": 1},
        **{"tie_word_embeddings": True, "rope_theta": 1e6, "rms_norm_eps": 1e-6},
    },
)


@dataclass(frozen=True, slots=True)
class Timed:
    """A finished training. whole: seconds of the command. films: those from its first film on, start-up left out."""

    run: Run
    whole: float
    films: float

    @property
    def facts(self) -> dict[str, Any]:
        steps = self.run.manifest()["steps"]
        return {"whole": self.whole, "films": self.films, "steps": steps["seconds"], "data_wait": steps["data_wait"]}


def mobile_videogpt(folder: Path, tiny: bool) -> None:
    tiny_film.make(folder, *([] if tiny else [NARROW]))


def smolvlm(folder: Path, tiny: bool) -> None:
    tiny_vision.make("smolvlm", folder)
    if tiny:
        return
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText

    settings = AutoConfig.from_pretrained(folder)
    settings.scale_factor = 4
    settings.vision_config.update({**_layers(6, 384, 1536, 6), "image_size": 256, "patch_size": 16})
    settings.text_config.update({**_layers(15, 288, 768, 9), "num_key_value_heads": 3, "head_dim": 32})
    AutoModelForImageTextToText.from_config(settings).save_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    processor.size, processor.max_image_size = {"longest_edge": 512}, {"longest_edge": 256}
    processor.save_pretrained(folder)


def _layers(count: int, width: int, inner: int, heads: int) -> dict[str, int]:
    return {
        **{"num_hidden_layers": count, "hidden_size": width},
        **{"intermediate_size": inner, "num_attention_heads": heads},
    }


MODELS = {"mobile_videogpt": mobile_videogpt, "smolvlm": smolvlm}


def write_films(folder: Path, count: int, seconds: float) -> Path:
    """Films in a new folder, and a file with a question about each."""
    folder.mkdir()
    lines = []
    for number in range(count):
        render(folder / f"{number}.mp4", number, seconds)
        asked = [{"type": "video", "path": f"{number}.mp4"}, {"type": "text", "text": "What does the square do?"}]
        answer = f"It moves before the ground number {number}, from the upper left to the lower right, and never stops."
        lines.append({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]})
    write_jsonl(folder / "rows.jsonl", lines)
    return folder / "rows.jsonl"


def command(work: Path, stage: str, *words: str) -> float:
    """Run a stage in a folder; returns its seconds."""
    places = [f"output_dir={work / 'outputs'}", f"dataset_dir={work / 'datasets'}", f"cache_dir={work / 'cache'}"]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(ROOT / f"{stage}.py"), *places, *words], cwd=work, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{stage}.py ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - start


def trained(work: Path, *words: str) -> Timed:
    whole = command(work, "train", *words)
    run = list_runs(work / "outputs")[-1]
    # Films are first read when the model is there: before the steps are counted with the cache, after that without.
    begun = next(line for line in log_of(run) if " media cache " in line or " optimizer steps of " in line)
    ended = next(line for line in log_of(run) if " kept the weights of step " in line)
    first, last = (datetime.fromisoformat(line[:STAMP].replace(",", ".")) for line in (begun, ended))
    return Timed(run, whole, (last - first).total_seconds())


def log_of(run: Run) -> list[str]:
    return (run.folder / "log.txt").read_text(encoding="utf-8").splitlines()


def losses(run: Run) -> list[float]:
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line[name] for line in map(json.loads, lines) for name in ("train/loss", "val/loss") if name in line]


def told(what: str, timed: Timed) -> None:
    facts = timed.facts
    waits = ", ".join(f"{share:.2%} in {name.replace('_', ' ')}" for name, share in facts["data_wait"].items())
    print(
        f"{what}: whole command {facts['whole']:.1f} s; from the first film on {facts['films']:.1f} s, "
        f"{facts['steps']:.1f} s of it in optimizer steps; data wait {waits}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="mobile_videogpt")
    parser.add_argument("--films", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a film")
    parser.add_argument("--tiny", action="store_true", help="a model of a test's size: the figures mean nothing")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    given = parser.parse_args()
    if given.epochs < 2:
        parser.error("give two epochs or more: the data wait counts after the first")
    with tempfile.TemporaryDirectory() as folder:
        report = compared(Path(folder), given)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(report, indent=2) + "\n")


def compared(work: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Both runs in a folder; prints their figures, and returns them."""
    rows, weights = write_films(work / "films", given.films, given.seconds), work / "weights"
    weights.mkdir()
    MODELS[given.model](weights, given.tiny)
    data = ("data=jsonl", f"data.path={rows}", "data.split=[0.75,0.25,0.0]", "tracking=off")
    command(work, "prepare", *data)
    an_epoch = max(1, given.films * 3 // 8)  # steps
    words = (
        *(*data, f"model={given.model}_tiny", f"model.weights=folder:{weights}", "model.context_length=4096"),
        *("adapter=lora", "trainer=fit", "trainer.micro_batch_size=2", f"trainer.max_epochs={given.epochs}"),
        *(f"trainer.eval_every={an_epoch}", "trainer.sample_rows=0"),
    )
    print(f"{given.films} films of {given.seconds:g} s, a quarter of them held out, {given.epochs} epochs", flush=True)
    words += ("model.frames=8",) if given.model == "smolvlm" else ()
    cached = trained(work, *words)
    told("with the cache", cached)
    plain = trained(work, *words, "trainer.media_cache_gb=0")
    told("without", plain)
    apart = max(abs(one / other - 1) for one, other in zip(losses(cached.run), losses(plain.run), strict=True))
    if apart > 1e-5:
        raise SystemExit(f"the losses with the cache and without differ by {apart:.1e}")
    kept = cached.run.manifest()["media_cache"]
    said = next(line for line in log_of(cached.run) if " media cache " in line).partition(" media cache ")[2]
    print(f"disk, said before: {said.partition(': ')[2]}; used {kept['bytes'] / 1e6:.1f} MB", flush=True)
    whole, films = cached.whole / plain.whole, cached.films / plain.films
    print(f"with the cache / without: whole command {whole:.3f}, from the first film on {films:.3f}")
    wait = cached.facts["data_wait"]["later_epochs"]
    reached = "reached" if wait <= GOAL else "falls short"
    print(f"data wait after the first epoch, with the cache: {wait:.2%}, goal {GOAL:.0%}: {reached}")
    return {"cached": cached.facts, "plain": plain.facts, "said": said, "kept": kept, "losses_apart": apart}


if __name__ == "__main__":
    main()
