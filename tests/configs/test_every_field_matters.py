"""Every key of the schema changes what a stage does: a table of key -> what is changed -> where it shows.

The stages really run, on a Llama of a few thousand weights whose tokens are bytes.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fieldtune.checks import check
from fieldtune.config import SECTIONS, Config, MixturePart
from fieldtune.errors import ConfigError, UserError
from fieldtune.evaluated_run import adopt_run
from fieldtune.keys import schema_keys
from fieldtune.records import write_jsonl
from fieldtune.resources import resource
from fieldtune.runs import Run
from tests.commands import offline_records
from tests.models.byte_model import save_byte_model
from tests.sources.films import write_film
from tests.stages import compose, lines_of, question_rows, run_command, run_here, told
from tests.tasks.judo.pictures import write_folder

Words = tuple[str, ...]

ROWS: Words = ("data=jsonl", "data.path={mine}", "data.split=[0.6,0.2,0.2]", "tracking=off", "hardware.threads=1")
NEAR: Words = ("data=jsonl", "data.path={near}", "tracking=off")
GOLF: Words = ("data=golf", "data.count=40", "tracking=off")
COACHED: Words = ("data=fitness", "data.count=40", "tracking=off")
FILMED: Words = ("data=qved", "data.labels={labels}", "data.videos={videos}", "tracking=off")
RENDERED: Words = ("data=qved_films", "data.count=24", "data.films={films}", "tracking=off")
LABELED: Words = ("data=jsonl", "data.path={labeled}", "tracking=off")
JUDO: Words = ("data=judo", "data.frames={frames}", "tracking=off")
STILLS: Words = ("data=judo_stills", "data.count=24", "data.stills={stills}", "tracking=off")
MIXED: Words = (*ROWS, "data.mixture=[{{name: club, path: {other}, weight: 1}}]")
GONE = "data.mixture=[{{name: club, path: gone.jsonl}}]"
BYTES: Words = ("model=smollm2_135m", "model.weights=folder:{first}", "model.context_length=256", "adapter=none")
TRAINED: Words = (
    *ROWS,
    *BYTES,
    "trainer=fit",
    "trainer.micro_batch_size=4",
    "trainer.max_steps=4",
    "trainer.learning_rate=0.01",
    "trainer.sample_tokens=8",
)
EXPLODING: Words = (
    *TRAINED,
    "trainer.learning_rate=10",
    "trainer.weight_decay=10",
    "trainer.max_steps=null",
    "trainer.max_epochs=30",
    "trainer.eval_every=1000",
    "trainer.sample_rows=0",
)
SEEING: Words = (*ROWS, "model=llava_tiny", "adapter=lora", "cache_dir={cache1}")
SEEING_FILMS: Words = (
    *RENDERED,
    "model=mobile_videogpt_tiny",
    "adapter=lora",
    "cache_dir={cache1}",
    "hardware.threads=1",
    "trainer=fit",
    "trainer.max_steps=1",
    "trainer.sample_rows=0",
)
PACKAGED: Words = ("model.weights=package:bytes_package",)
EVALUATED: Words = (
    *("tracking=off", "run={run}", "evaluation.max_new_tokens=6", "evaluation.bootstrap=100", "hardware.threads=1"),
    *("evaluation.rows=null", "evaluation.batch_size=4"),
)
OFFLINE: Words = (*ROWS, "tracking=offline")
OFFLINE_CHANGED: Words = (
    *OFFLINE,
    "tracking.project=another",
    "tracking.entity=team",
    "tracking.group=another",
    "tracking.tags=[first]",
)
SMALL_GPT2: Words = (*ROWS, "model=gpt2_tiny", "model.layers=1", "model.width=8", "adapter=none")


@dataclass
class Work:
    """A folder in which stages run, and what they left, by stage and words: equal words run once."""

    folder: Path
    places: dict[str, str]
    done: dict[tuple[str, Words], Run] = field(default_factory=dict)
    scripts: dict[Words, set[str]] = field(default_factory=dict)
    tracked: dict[Words, Path] = field(default_factory=dict)

    def words(self, words: Words) -> Words:
        return tuple(word.format(**self.places) for word in words)

    def config(self, stage: str, words: Words) -> Config:
        return compose(self.folder, stage, *self.words(words))

    def run(self, stage: str, words: Words) -> Run:
        if (stage, words) not in self.done:
            if stage == "train":
                self.run("prepare", words)
            self.done[stage, words] = run_here(self.folder, stage, *self.words(words))
        return self.done[stage, words]


# --- where a change shows -------------------------------------------------------------------------------------


def refusals(work: Work, words: Words) -> tuple[str, ...]:
    """What the check before training says."""
    work.run("prepare", tuple(word for word in words if not word.startswith(("model", "adapter", "hardware"))))
    try:
        check(work.config("train", words), "train")
    except ConfigError as error:
        return tuple(error.problems)
    return ()


def left_by_script(work: Work, words: Words) -> set[str]:
    """Folders that a prepare script makes in an empty folder, but for those named by the time or a hash."""
    if words not in work.scripts:
        folder = work.folder / f"empty-{len(work.scripts)}"
        folder.mkdir()
        done = run_command(folder, "prepare", *work.words(words))
        assert done.returncode == 0, done.stderr
        folders = [path.relative_to(folder) for path in folder.rglob("*") if path.is_dir()]
        work.scripts[words] = {str(path) for path in folders if len(path.name) < 20}
    return work.scripts[words]


def run_name(work: Work, words: Words) -> str:
    """What the run folder is called, but for its time."""
    return re.sub(r"^\d\d-\d\d-\d\d-|-\d+$", "", work.run("prepare", words).folder.name)


def adopted(work: Work, words: Words) -> str:
    """The run that evaluate looks at."""
    work.places["run"] = str(work.run("train", TRAINED).folder)
    work.run("train", (*TRAINED, "seed=3"))
    return str(adopt_run(work.config("evaluate", words), list(work.words(words)))[1].folder)


def weights_folder(work: Work, words: Words) -> Path | None:
    """Where the files of the weights are."""
    from fieldtune.models.weights import resolve

    config = work.config("train", words)
    return resolve(config.model, config).folder


def rows(work: Work, words: Words) -> list[str]:
    """The prepared splits."""
    folder = Path(work.run("prepare", words).manifest()["data"]["folder"])
    return [(folder / f"{split}.jsonl").read_text(encoding="utf-8") for split in ("train", "val", "test")]


def preparing_refused(work: Work, words: Words) -> tuple[str, ...]:
    """What the check before preparing says."""
    try:
        check(work.config("prepare", words), "prepare")
    except ConfigError as error:
        return tuple(error.problems)
    return ()


def near_duplicate_groups(work: Work, words: Words) -> int:
    return int(work.run("prepare", words).manifest()["data"]["near_duplicates"]["groups"])


def preview(work: Work, words: Words) -> str:
    run = work.run("prepare", words)
    return (Path(run.manifest()["data"]["folder"]) / "preview.html").read_text(encoding="utf-8")


def model(work: Work, words: Words) -> Any:
    """The model that training starts from: its settings and its weights."""
    from fieldtune.models.run_model import start_model

    built, _ = start_model(work.config("train", words))
    settings = {name: value for name, value in built.config.to_dict().items() if name != "_name_or_path"}
    return settings, {name: (tuple(value.shape), float(value.sum())) for name, value in built.state_dict().items()}


def adapters(work: Work, words: Words) -> Any:
    """The adapter layers by name: rank, scaling, dropout."""
    from fieldtune.models.run_model import start_model

    built, _ = start_model(work.config("train", words))
    return {
        name: (layer.r["default"], layer.scaling["default"], getattr(layer.lora_dropout["default"], "p", 0.0))
        for name, layer in built.named_modules()
        if hasattr(layer, "lora_dropout")
    }


def parts_trained(work: Work, words: Words) -> Any:
    """The trained weights of a model that sees, and their learning rates."""
    from fieldtune.models.adapters import learning_rates
    from fieldtune.models.loss import LanguageModelLoss
    from fieldtune.models.run_model import start_model

    config = work.config("train", words)
    model, _ = start_model(config)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    rates = learning_rates(LanguageModelLoss(model), config.trainer, config.adapter)
    return trained, {rate: sum(one.numel() for one in those) for rate, those in rates.items()}


def frames_shown(work: Work, words: Words) -> list[int]:
    """Numbers of the frames that a model is shown of a film of eight seconds."""
    from fieldtune.models.run_model import start_model
    from fieldtune.models.vision_reader import Reader
    from fieldtune.sources.video import Film

    _, encoder = start_model(work.config("train", words))
    assert isinstance(encoder.reader, Reader) and encoder.reader.films is not None
    return encoder.reader.films.chosen(Film(64, 8.0, 8.0, 64, 64))


def media_kept(work: Work, words: Words) -> Any:
    """What a training on films says of its cache."""
    facts = work.run("train", words).manifest().get("media_cache")
    return facts and facts["kept"]


def scales(work: Work, words: Words) -> Any:
    """How the scales of 4-bit blocks are held."""
    from bitsandbytes.nn import Linear4bit

    from fieldtune.models.run_model import start_model

    built, _ = start_model(work.config("train", words))
    return [part.weight.quant_state.absmax.dtype for part in built.modules() if isinstance(part, Linear4bit)]


def layers_computed(work: Work, words: Words) -> int:
    """Forward passes of decoder layers in a training."""
    from fieldtune.models import fused

    calls, attention = [0], fused.attention

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return attention(*args, **kwargs)

    work.done.pop(("train", words), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "attention", counted)
        work.run("train", words)
    return calls[0]


def prompt_ids(work: Work, words: Words) -> list[int]:
    from fieldtune.models.run_model import start_model
    from fieldtune.records import Message

    config = work.config("train", words)
    return start_model(config)[1].prompt([Message("user", ("Why?",))])


def figures(work: Work, words: Words) -> list[dict[str, float]]:
    """metrics.jsonl, but for what depends on the clock."""
    return told(work.run("train", words).folder)


def computed_tokens(work: Work, words: Words) -> int:
    return int(work.run("train", words).manifest()["steps"]["computed_tokens"])


def steps_timed(work: Work, words: Words) -> Any:
    """Optimizer steps that were done with packing and without, to compare."""
    return work.run("train", words).manifest()["packing"].get("timed_steps")


def steps_logged(work: Work, words: Words) -> list[float]:
    return [line["step"] for line in figures(work, words) if "train/loss" in line]


def steps_evaluated(work: Work, words: Words) -> list[float]:
    return [line["step"] for line in figures(work, words) if "val/loss" in line]


def checkpoints(work: Work, words: Words) -> list[str]:
    """Names of the checkpoints that stayed."""
    return sorted(path.name for path in work.run("train", words).folder.glob("checkpoints/step-*"))


def learning_rates(work: Work, words: Words) -> list[float]:
    return [line["train/learning_rate"] for line in figures(work, words) if "train/loss" in line]


def first_losses(work: Work, words: Words) -> list[float]:
    """Before and in the first optimizer step: nothing is trained yet."""
    return [value for line in figures(work, words)[:2] for name, value in line.items() if name.endswith("/loss")]


def samples(work: Work, words: Words) -> list[str]:
    return [line["answer"] for line in lines_of(work.run("train", words).folder / "samples.jsonl")]


def results(work: Work, words: Words) -> list[str]:
    """Names of the result files."""
    return sorted(work.run("train", words).manifest()["files"])


def model_facts(work: Work, words: Words) -> Any:
    return work.run("train", words).manifest()["model"]


def rows_left_out(work: Work, words: Words) -> Any:
    return work.run("train", words).manifest()["left_out"]


def threads(work: Work, words: Words) -> int:
    import torch

    before = torch.get_num_threads()
    work.done.pop(("train", words), None)
    try:
        work.run("train", words)
        return torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def device(work: Work, words: Words) -> Any:
    """Where the trained weights were, or why they cannot be there."""
    refused = refusals(work, words)
    if refused:
        return refused
    import torch

    work.run("train", words)
    return torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0


def stopped(work: Work, words: Words) -> str:
    """Why a run whose gradients are not finite stopped."""
    with pytest.raises(UserError) as raised:
        work.run("train", words)
    return str(raised.value)


def predictions(work: Work, words: Words) -> list[Any]:
    lines = lines_of(evaluation(work, words) / "predictions.jsonl")
    return [(line["id"], line["answers"]) for line in lines]


def evaluation_refused(work: Work, words: Words) -> str:
    """Why rows of plain text cannot be evaluated so."""
    try:
        evaluation(work, words)
    except UserError as error:
        return str(error)
    return ""


def intervals(work: Work, words: Words) -> Any:
    return json.loads((evaluation(work, words) / "metrics.json").read_text(encoding="utf-8"))["metrics"]


def evaluation(work: Work, words: Words) -> Path:
    work.places["run"] = str(work.run("train", TRAINED).folder)
    return work.run("evaluate", words).folder


def batch_rows(work: Work, words: Words) -> list[int]:
    """Rows of each forward pass of the model."""
    from torch.nn import Embedding
    from torch.nn.modules.module import register_module_forward_pre_hook

    seen: list[int] = []

    def look(module: Any, inputs: Any) -> None:
        if isinstance(module, Embedding):
            seen.append(len(inputs[0]))

    work.done.pop(("evaluate", words), None)
    handle = register_module_forward_pre_hook(look)
    try:
        evaluation(work, words)
    finally:
        handle.remove()
    return seen


def tracked(work: Work, words: Words) -> Path:
    """The run folder of a prepare script: W&B leaves its marks in a process's environment, so it has its own."""
    if words not in work.tracked:
        folder = work.folder / f"tracked-{len(work.tracked)}"
        done = run_command(work.folder, "prepare", *work.words(words), f"run_dir={folder}")
        assert done.returncode == 0, done.stderr
        work.tracked[words] = folder
    return work.tracked[words]


def offline_files(work: Work, words: Words) -> int:
    return len(list(tracked(work, words).glob("wandb/offline-run-*/*.wandb")))


def wandb_mode(work: Work, words: Words) -> str:
    from fieldtune.tracking import _mode

    return _mode(work.config("train", words).tracking.mode)


# --- the table ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """`changed` added to `words` shows in `probe`. base: the value before, where the default would not do.

    instead: `changed` comes in place of `base`, where the two cannot stand together.
    """

    probe: Callable[[Work, Words], Any]
    words: Words
    changed: str
    base: Words = ()
    instead: bool = False


def golf(probe: Callable[[Work, Words], Any], changed: str) -> Case:
    return Case(probe, GOLF, changed)


def trained(probe: Callable[[Work, Words], Any], changed: str, *base: str) -> Case:
    return Case(probe, TRAINED, changed, base)


def evaluated(probe: Callable[[Work, Words], Any], changed: str, *base: str) -> Case:
    return Case(probe, EVALUATED, changed, base)


def small_gpt2(probe: Callable[[Work, Words], Any], changed: str) -> Case:
    return Case(probe, SMALL_GPT2, changed)


def offline(name: str, changed: str) -> Case:
    """In what W&B calls `name` of a run. All four keys are changed in one run: starting W&B takes its time."""

    def probe(work: Work, words: Words) -> Any:
        records = offline_records(tracked(work, OFFLINE_CHANGED if changed in words else words))
        return next(record["run"].get(name) for record in records if record["type"] == "run")

    return Case(probe, OFFLINE, changed)


def lora(changed: str) -> Case:
    return Case(adapters, (*ROWS, *BYTES), changed, ("adapter=lora",))


def seeing(changed: str, *base: str) -> Case:
    return Case(parts_trained, SEEING, changed, base)


def qlora(probe: Callable[[Work, Words], Any], changed: str) -> Case:
    return Case(probe, TRAINED, changed, ("adapter=qlora",))


CASES: dict[str, Case] = {
    "name": Case(run_name, ROWS, "name=another"),
    "seed": Case(rows, ROWS, "seed=2"),
    "run_dir": Case(left_by_script, ROWS, "run_dir=here"),
    "run": Case(adopted, ("tracking=off",), "run={run}", ("run=latest",)),
    "output_dir": Case(left_by_script, ROWS, "output_dir=results"),
    "dataset_dir": Case(left_by_script, (*ROWS, "run_dir=here"), "dataset_dir=prepared"),
    "cache_dir": Case(weights_folder, PACKAGED, "cache_dir={cache2}", ("cache_dir={cache1}",)),
    "data.task": Case(rows, ("tracking=off",), "data=golf", ("data=jsonl", "data.path={mine}"), instead=True),
    "data.path": Case(rows, ROWS, "data.path={other}"),
    "data.split": Case(rows, ROWS, "data.split=[0.4,0.4,0.2]"),
    "data.near_duplicate": Case(near_duplicate_groups, NEAR, "data.near_duplicate=0.5", ("data.near_duplicate=1",)),
    "data.weight": Case(rows, MIXED, "data.weight=5"),
    "data.mixture": Case(rows, ROWS, MIXED[-1]),
    "data.mixture[].name": Case(rows, MIXED, "data.mixture=[{{name: team, path: {other}}}]"),
    "data.mixture[].path": Case(rows, MIXED, "data.mixture=[{{name: club, path: {third}}}]"),
    "data.mixture[].weight": Case(rows, MIXED, "data.mixture=[{{name: club, path: {other}, weight: 5}}]"),
    "data.mixture[].optional": Case(preparing_refused, ROWS, GONE[:-3] + ", optional: true}}]", (GONE,), instead=True),
    "data.preview_rows": Case(preview, ROWS, "data.preview_rows=2"),
    "data.train_on_prompt": trained(first_losses, "data.train_on_prompt=true"),
    "data.count": golf(rows, "data.count=41"),
    "data.form": golf(rows, "data.form=short"),
    "data.knowledge": golf(rows, "data.knowledge={knowledge}"),
    "data.feedback": golf(rows, "data.feedback={feedback}"),
    "data.rows_per_athlete": Case(rows, COACHED, "data.rows_per_athlete=2"),
    "data.shares": Case(rows, COACHED, "data.shares=[0.6,0.2,0.2]"),
    "data.hard": Case(rows, COACHED, "data.hard=0.9"),
    "data.logs": Case(rows, COACHED, "data.logs={log}"),
    "data.classes": Case(rows, LABELED, "data.classes=[yes,no]", ("data.classes=[yes,no,unsure]",)),
    "data.frames": Case(rows, JUDO, "data.frames={more_frames}"),
    "data.techniques": Case(rows, JUDO, "data.techniques=[hiza-tori]"),
    "data.conversations": Case(rows, COACHED, "data.conversations={mine}"),
    "data.labels": Case(rows, FILMED, "data.labels={labels2}"),
    "data.videos": Case(rows, FILMED, "data.videos={videos2}"),
    "data.workers": Case(rows, FILMED, "data.workers={workers}"),
    "data.videos_per_class": Case(rows, FILMED, "data.videos_per_class=4"),
    "data.exercises": Case(rows, FILMED, "data.exercises=[squat]"),
    "data.system_prompt": Case(rows, FILMED, "data.system_prompt=Coach."),
    "data.user_prompt": Case(rows, FILMED, "data.user_prompt=Look."),
    "data.films": Case(rows, RENDERED, "data.films={films2}"),
    "data.stills": Case(rows, STILLS, "data.stills={stills2}"),
    "model.name": trained(model_facts, "model.name=another"),
    "model.family": small_gpt2(refusals, "model.family=causal_lm"),
    "model.weights": Case(model, (*ROWS, *BYTES), "model.weights=folder:{second}"),
    "model.revision": small_gpt2(refusals, "model.revision=main"),
    "model.image_tower": small_gpt2(refusals, "model.image_tower=hub:owner/name"),
    "model.tokenizer": Case(refusals, (*ROWS, *BYTES), "model.tokenizer=gpt2_bpe"),
    "model.template": Case(prompt_ids, (*ROWS, *BYTES), "model.template=alpaca"),
    "model.size": trained(results, "model.size=9B"),
    "model.context_length": trained(rows_left_out, "model.context_length=100"),
    "model.layers": small_gpt2(model, "model.layers=2"),
    "model.heads": small_gpt2(model, "model.heads=4"),
    "model.width": small_gpt2(model, "model.width=16"),
    "model.dropout": small_gpt2(model, "model.dropout=0.3"),
    "model.projector": Case(refusals, SEEING, "model.projector=gone.safetensors"),
    "model.frames": Case(frames_shown, (*SEEING, "model=qwen2vl_tiny"), "model.frames=2"),
    "adapter.kind": Case(model_facts, TRAINED, "adapter.kind=lora"),
    "adapter.rank": lora("adapter.rank=3"),
    "adapter.alpha": lora("adapter.alpha=3"),
    "adapter.dropout": lora("adapter.dropout=0.3"),
    "adapter.targets": lora("adapter.targets=[q_proj]"),
    "adapter.bits": qlora(refusals, "adapter.bits=null"),
    "adapter.double_quantization": qlora(scales, "adapter.double_quantization=false"),
    "adapter.compute": qlora(first_losses, "adapter.compute=fp32"),
    "adapter.projector": seeing("adapter.projector=lora"),
    "adapter.projector_learning_rate": seeing("adapter.projector_learning_rate=0.5"),
    "adapter.vision": seeing("adapter.vision=full"),
    "adapter.vision_learning_rate": seeing("adapter.vision_learning_rate=0.5", "adapter.vision=lora"),
    "trainer.max_epochs": trained(steps_logged, "trainer.max_epochs=3", "trainer.max_steps=null"),
    "trainer.max_steps": trained(steps_logged, "trainer.max_steps=3"),
    "trainer.micro_batch_size": trained(first_losses, "trainer.micro_batch_size=3"),
    "trainer.packing": trained(computed_tokens, "trainer.packing=rows"),
    "trainer.activation_checkpointing": trained(layers_computed, "trainer.activation_checkpointing=true"),
    "trainer.optimizer": trained(figures, "trainer.optimizer=paged_adamw_8bit"),
    "trainer.accumulation": trained(first_losses, "trainer.accumulation=2"),
    "trainer.learning_rate": trained(learning_rates, "trainer.learning_rate=0.02"),
    "trainer.weight_decay": trained(figures, "trainer.weight_decay=1"),
    "trainer.betas": trained(figures, "trainer.betas=[0.5,0.9]"),
    "trainer.scheduler": trained(learning_rates, "trainer.scheduler=cosine"),
    "trainer.warmup_steps": trained(learning_rates, "trainer.warmup_steps=2"),
    "trainer.stop_after_bad_steps": Case(stopped, EXPLODING, "trainer.stop_after_bad_steps=2"),
    "trainer.clip_norm": trained(figures, "trainer.clip_norm=1e-9"),
    "trainer.log_every": trained(steps_logged, "trainer.log_every=2"),
    "trainer.eval_every": trained(steps_evaluated, "trainer.eval_every=1"),
    "trainer.eval_rows": trained(first_losses, "trainer.eval_rows=1"),
    "trainer.patience": trained(steps_logged, "trainer.patience=1", "trainer.learning_rate=9", "trainer.eval_every=1"),
    "trainer.checkpoint_every": trained(checkpoints, "trainer.checkpoint_every=3"),
    "trainer.keep_checkpoints": trained(checkpoints, "trainer.keep_checkpoints=1", "trainer.eval_every=2"),
    "trainer.sample_rows": trained(samples, "trainer.sample_rows=2"),
    "trainer.sample_tokens": trained(samples, "trainer.sample_tokens=3"),
    "trainer.temperature": trained(samples, "trainer.temperature=100"),
    "trainer.top_k": trained(samples, "trainer.top_k=1"),
    "trainer.media_cache_gb": Case(media_kept, SEEING_FILMS, "trainer.media_cache_gb=0"),
    "trainer.packing_trial": trained(steps_timed, "trainer.packing_trial=2"),
    "hardware.accelerator": trained(device, "hardware.accelerator=gpu"),
    "hardware.precision": trained(figures, "hardware.precision=bf16"),
    "hardware.strategy": Case(refusals, TRAINED, "hardware.strategy=dp"),
    "hardware.devices": Case(refusals, TRAINED, "hardware.devices=2"),
    "hardware.nodes": Case(refusals, TRAINED, "hardware.nodes=2"),
    "hardware.threads": trained(threads, "hardware.threads=2", "seed=4"),
    "tracking.kind": Case(offline_files, OFFLINE, "tracking=off"),
    "tracking.mode": Case(wandb_mode, (*ROWS, "tracking=wandb"), "tracking.mode=online"),
    "tracking.project": offline("project", "tracking.project=another"),
    "tracking.entity": offline("entity", "tracking.entity=team"),
    "tracking.group": offline("run_group", "tracking.group=another"),
    "tracking.tags": offline("tags", "tracking.tags=[first]"),
    "evaluation.split": evaluated(predictions, "evaluation.split=val"),
    "evaluation.rows": evaluated(predictions, "evaluation.rows=2"),
    "evaluation.base": evaluated(predictions, "evaluation.base=false"),
    "evaluation.base_rows": evaluated(predictions, "evaluation.base_rows=1"),
    "evaluation.decoding": Case(evaluation_refused, EVALUATED, "evaluation.decoding=both"),
    "evaluation.ablation": Case(evaluation_refused, EVALUATED, "evaluation.ablation=blank"),
    "evaluation.batch_size": evaluated(batch_rows, "evaluation.batch_size=3"),
    "evaluation.max_new_tokens": evaluated(predictions, "evaluation.max_new_tokens=2"),
    "evaluation.temperature": evaluated(predictions, "evaluation.temperature=2"),
    "evaluation.top_k": evaluated(predictions, "evaluation.top_k=1", "evaluation.temperature=2"),
    "evaluation.bootstrap": evaluated(intervals, "evaluation.bootstrap=150"),
}  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    folder = tmp_path_factory.mktemp("fields")
    questions = question_rows(60)
    files = {"mine": questions[:20], "other": questions[20:40], "third": questions[40:]}
    for name, lines in files.items():
        write_jsonl(folder / f"{name}.jsonl", lines)
    places = {name: str(folder / f"{name}.jsonl") for name in files}
    for seed, name in enumerate(("first", "second")):
        places[name] = str(save_byte_model(folder / name, seed=seed))
    places |= {"knowledge": str(other_knowledge(folder)), "feedback": str(users_feedback(folder))}
    places["log"] = str(training_log(folder))
    places |= label_files(folder)
    answers = [{**row["messages"][1], "content": ("yes", "no", "unsure")[n % 3]} for n, row in enumerate(questions)]
    labeled = [{"messages": [row["messages"][0], said]} for row, said in zip(questions, answers, strict=True)]
    write_jsonl(folder / "labeled.jsonl", labeled)
    places["labeled"] = str(folder / "labeled.jsonl")
    places["frames"] = str(write_folder(folder / "frames", ("seoi-nage", "o-goshi", "hiza-tori")))
    places["more_frames"] = str(write_folder(folder / "more_frames", ("seoi-nage", "uchi-mata"), first=100))
    near = [row for row in questions[:20] for row in (row, without_last_word(row))]
    write_jsonl(folder / "near.jsonl", near)
    places["near"] = str(folder / "near.jsonl")
    places |= {name: str(folder / name) for name in ("cache1", "cache2", "stills", "stills2")}
    package = folder / "packages" / "bytes_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model.gguf").write_bytes(b"GGUF")
    key = sha256(b"GGUF4").hexdigest()[:12]  # as `convert_packaged_gguf` names what it has converted
    for name in ("cache1", "cache2"):
        save_byte_model(folder / name / "converted" / f"bytes_package-{key}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(package.parent)
        yield Work(folder, places)


def without_last_word(row: dict[str, Any]) -> dict[str, Any]:
    """A near-duplicate of a row."""
    question, answer = row["messages"]
    return {"messages": [question, {**answer, "content": answer["content"].rpartition(" ")[0]}]}


def other_knowledge(folder: Path) -> Path:
    """The golf knowledge base in other words."""
    copy = Path(shutil.copytree(resource("knowledge/golf_instruction"), folder / "knowledge"))
    for path in copy.rglob("*.md"):
        path.write_text(path.read_text(encoding="utf-8").replace(" your ", " the "), encoding="utf-8")
    return copy


def users_feedback(folder: Path) -> Path:
    from fieldtune.tasks.golf.feedback import append_feedback
    from fieldtune.tasks.golf.swing import AREAS, Swing

    area = next(iter(AREAS))
    swing = Swing(area, 0.4, 0.6, dict.fromkeys(AREAS, 0.4), "power_swing")
    append_feedback(folder / "feedback.jsonl", swing, "Slow the takeaway and hold the finish.", rating=5)
    return folder / "feedback.jsonl"


def training_log(folder: Path) -> Path:
    path = folder / "log.csv"
    lines = [f"2026-03-{day:02d},running,{40 + day}" for day in range(1, 29)]
    path.write_text("\n".join(["date,sport,minutes", *lines]) + "\n", encoding="utf-8")
    return path


def label_files(folder: Path) -> dict[str, str]:
    """Two label files, two folders of films, and who is in them: two persons in turn."""
    places = {name: str(folder / name) for name in ("videos", "videos2", "films", "films2")}
    places |= {name: str(folder / f"{name}.json") for name in ("labels", "labels2", "workers")}
    films = [f"{number:08d}.mp4" for number in range(12)]
    for more, name in enumerate(("videos", "videos2")):
        (folder / name).mkdir()
        for number, film in enumerate(films):
            write_film(folder / name / film, (more, number), height=16, width=32)
    for name, fault in (("labels", "fast"), ("labels2", "shallow")):
        entries = [
            {"video_path": film, "labels": [f"{('squat', 'lunge')[film < films[6]]} - {fault}"]} for film in films
        ]
        Path(places[name]).write_text(json.dumps(entries))
    known = [{"video_path": film, "worker_id": number % 4} for number, film in enumerate(films)]
    Path(places["workers"]).write_text(json.dumps(known))
    return places


def leaves() -> set[str]:
    parts = {f"data.mixture[].{item.name}" for item in fields(MixturePart)}
    return ({*schema_keys()} - SECTIONS.keys() - {"data"}) | parts


def test_every_key_has_its_case() -> None:
    assert CASES.keys() == leaves()


@pytest.mark.parametrize("key", CASES)
def test_a_changed_value_shows(work: Work, key: str) -> None:
    case = CASES[key]
    before = case.probe(work, (*case.words, *case.base))
    after = case.probe(work, (*case.words, *(() if case.instead else case.base), case.changed))
    assert before != after


def test_an_unchanged_value_shows_nothing(work: Work) -> None:
    """Else the test above would say nothing: a second run of the same words leaves the same."""
    probes = {figures: TRAINED, samples: TRAINED, rows: GOLF, predictions: EVALUATED, intervals: EVALUATED}
    before = {probe: probe(work, words) for probe, words in probes.items()}
    work.done.clear()
    assert all(probe(work, words) == before[probe] for probe, words in probes.items())
