"""A model that sees, from a file of rows to answers: prepared, trained, cut off and gone on with, evaluated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fieldtune import runs
from fieldtune.config import Strategy
from fieldtune.data.batches import collate, idle_batch
from fieldtune.data.media import idle_media
from fieldtune.errors import UserError
from fieldtune.loading import load
from fieldtune.models.generate import Sampling, generate
from fieldtune.models.loss import LanguageModelLoss, unwrapped
from fieldtune.models.run_model import RunModel, start_model
from fieldtune.models.vision_parts import parameters_in
from fieldtune.records import Media, Message, write_jsonl
from fieldtune.serving.predictor import Predictor
from fieldtune.tracking import NullTracker
from fieldtune.training.strategies import must_gather
from tests.models.pictures import write_picture
from tests.stages import compose, curve, lines_of, run_command, run_here, told, work_here

COMMON = ("data=jsonl", "data.split=[0.6,0.2,0.2]", "tracking=off", "hardware.threads=1")
TRAINED = (
    *COMMON,
    "adapter=lora",
    "trainer=fit",
    "trainer.micro_batch_size=4",
    "trainer.max_epochs=3",
    "trainer.max_steps=null",
    "trainer.learning_rate=0.01",
    "trainer.eval_every=2",
    "trainer.sample_tokens=4",
    "adapter.projector_learning_rate=0.003",
)


def write_rows(folder: Path) -> Path:
    """Two questions about each of ten pictures, which stand from the file's own folder."""
    (folder / "pictures").mkdir(parents=True)
    lines: list[dict[str, Any]] = []
    for number in range(10):
        write_picture(folder / "pictures" / f"{number}.png", (60 + number, 60), number)
        for question in ("How tall is it?", "Which number is it?"):
            asked = [{"type": "image", "path": f"pictures/{number}.png"}, {"type": "text", "text": question}]
            answer = f"It is {60 + number if 'tall' in question else number}."
            lines.append({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]})
    write_jsonl(folder / "rows.jsonl", lines)
    return folder / "rows.jsonl"


def words(work: Path, *more: str, name: str = "llava") -> tuple[str, ...]:
    return (
        *TRAINED,
        f"data.path={work / 'rows' / 'rows.jsonl'}",
        f"cache_dir={work / 'cache'}",
        f"model={name}_tiny",
        *more,
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("seeing")
    rows = write_rows(work / "rows")
    run_here(work, "prepare", *COMMON, f"data.path={rows}")
    return work


@pytest.fixture(scope="module")
def run(work: Path) -> runs.Run:
    return run_here(work, "train", *words(work))


def test_rows_of_a_picture_stay_in_one_split_and_know_their_files(work: Path) -> None:
    (folder,) = (path.parent for path in (work / "datasets" / "jsonl").glob("*/manifest.json"))
    found: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        for line in lines_of(folder / f"{split}.jsonl"):
            media = line["messages"][0]["content"][0]
            assert Path(media["path"]).is_absolute() and len(media["sha256"]) == 64
            found.setdefault(media["path"], set()).add(split)
    assert len(found) == 10 and all(len(splits) == 1 for splits in found.values())


def test_the_loss_falls_towers_stay_and_the_projector_moves(work: Path, run: runs.Run) -> None:
    losses = list(curve(run, "train/loss").values())
    assert losses[-1] < losses[0]
    config = load(run.config())
    start, _ = start_model(config)
    state = load_file(run.folder / "adapter" / "projector.safetensors")
    assert len(state) == 4 and all(name.startswith("model.multi_modal_projector.") for name in state)
    assert all((start.get_base_model().get_parameter(name) != value).any() for name, value in state.items())
    best = load_file(run.folder / "checkpoints" / "best.safetensors")
    assert not any("vision_tower" in name for name in best)  # what is not trained is not there
    models = RunModel(run, config)
    with models.system("tuned") as tuned, torch.no_grad():
        for name, parameter in start.get_base_model().named_parameters():
            if "vision_tower" in name or "base_layer" in name:
                assert torch.equal(tuned.get_base_model().get_parameter(name), parameter), name


def test_a_saved_run_answers_as_the_one_in_memory(work: Path, run: runs.Run) -> None:
    config = load(run.config())
    models, (start, encoder) = RunModel(run, config), start_model(config)
    rows = lines_of(run.folder / "samples.jsonl")
    assert rows and rows[-1]["answer"] is not None
    network = load_file(run.folder / "checkpoints" / "best.safetensors")
    missing, unexpected = start.load_state_dict(
        {
            name.removeprefix(
                "model.",
            ): value
            for name, value in network.items()
        },
        strict=False,
    )
    assert not unexpected and not any("lora_" in name or "projector" in name for name in missing)
    media = json.loads((work / "rows" / "rows.jsonl").read_text().splitlines()[0])["messages"][0]["content"][0]
    path = work / "rows" / media["path"]
    asked = encoder.prompt((Message("user", (Media("image", str(path)), "How tall is it?")),))
    wanted = generate(start, encoder.tokenizer, [asked], Sampling(8))
    base_model, _ = start_model(config)
    base = generate(base_model, encoder.tokenizer, [asked], Sampling(8))
    with models.system("tuned") as tuned:
        assert generate(tuned, encoder.tokenizer, [asked], Sampling(8)) == wanted
    with models.system("base") as plain:
        assert generate(plain, encoder.tokenizer, [asked], Sampling(8)) == base
    with models.system("tuned") as tuned:
        assert generate(tuned, encoder.tokenizer, [asked], Sampling(8)) == wanted


def test_a_projector_that_does_not_fit_is_refused(work: Path, run: runs.Run, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    path = folder / "adapter" / "projector.safetensors"
    state = load_file(path)
    state.pop(sorted(state)[0])
    save_file(state, path)
    with (
        pytest.raises(UserError, match=r"does not fit the model's projector \(model.multi_modal"),
        RunModel(runs.open_run(folder), load(run.config())).system("tuned"),
    ):
        pass


class Failing(NullTracker):
    def log(self, metrics: Any, step: int) -> None:
        if step == 5:
            raise ConnectionError("gone")


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(work: Path, run: runs.Run, tmp_path: Path) -> None:
    from fieldtune.training.stage import train

    for name in (runs.CONFIG, runs.STARTED):
        shutil.copy(run.folder / name, tmp_path / name)
    with pytest.raises(ConnectionError):
        train(load(run.config()), tmp_path, Failing())
    assert list((tmp_path / "checkpoints").glob("step-*"))
    work_here(tmp_path)
    assert told(tmp_path) == told(run.folder)
    for name in ("adapter_model.safetensors", "projector.safetensors"):
        one, other = (load_file(folder / "adapter" / name) for folder in (tmp_path, run.folder))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_it_is_evaluated(work: Path, run: runs.Run) -> None:
    found = run_here(
        work, "evaluate", "tracking=off", f"run={run.folder}", "evaluation.max_new_tokens=4", "evaluation.bootstrap=100"
    )
    lines = lines_of(found.folder / "predictions.jsonl")
    assert lines and all(set(line["answers"]) == {"base", "tuned"} for line in lines)
    assert found.manifest()["metrics"]["tuned/loss"] < found.manifest()["metrics"]["base/loss"]
    html = (found.folder / "report.html").read_text(encoding="utf-8")
    assert html.count("data:image/jpeg;base64,") == len(lines)  # all are shown
    picture = Path(lines[0]["media"][0]["path"])
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])  # its head says its size as before
    try:
        found = run_here(work, "evaluate", "tracking=off", f"run={run.folder}", "evaluation.base=false")
    finally:
        picture.write_bytes(whole)
    left_out = found.manifest()["left_out"]
    assert len(left_out) == 2 and all(str(picture) in reason for _, reason in left_out)
    assert found.manifest()["data"]["evaluated"] == len(lines) - 2


def test_a_request_with_a_picture_is_answered(work: Path, run: runs.Run) -> None:
    asked = [{"type": "image", "path": str(work / "rows/pictures/3.png")}, {"type": "text", "text": "How tall is it?"}]
    (answer,) = Predictor(run.folder).predict([{"messages": [{"role": "user", "content": asked}]}])
    assert answer.tokens > 0


@pytest.mark.slow
def test_two_processes_train_as_one(work: Path, run: runs.Run) -> None:
    folder = work / "two-processes"
    places = (f"output_dir={work / 'outputs'}", f"dataset_dir={work / 'datasets'}", f"run_dir={folder}")
    shared = ("hardware=ddp_cpu", "hardware.devices=2", "trainer.micro_batch_size=2")
    done = run_command(work, "train", *words(work, *shared, *places))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for name in ("train/loss", "val/loss"):
        one, two = curve(run, name), curve(folder, name)
        assert one.keys() == two.keys()
        assert list(two.values()) == pytest.approx(list(one.values()), rel=1e-5)


@pytest.mark.parametrize("name", ["llava_next", "onevision", "qwen2vl", "smolvlm"])
def test_every_family_is_trained(work: Path, name: str) -> None:
    run = run_here(work, "train", *words(work, "trainer.max_epochs=1", name=name))
    assert (run.folder / "adapter" / "projector.safetensors").exists()


def test_the_language_model_alone_is_packed(work: Path) -> None:
    from bitsandbytes.nn import Linear4bit

    qlora = ("adapter=qlora", "hardware.precision=bf16", "trainer.max_epochs=1")
    run = run_here(work, "train", *words(work, *qlora))
    with RunModel(run, load(run.config())).system("tuned") as tuned:
        inner = tuned.get_base_model()
        packed = [name for name, module in inner.named_modules() if isinstance(module, Linear4bit)]
        assert packed and all("language_model" in name for name in packed)
        projector = load_file(run.folder / "adapter" / "projector.safetensors")
        assert all(torch.equal(inner.get_parameter(name), value) for name, value in projector.items())


def test_full_training_leaves_a_folder_that_loads(work: Path) -> None:
    run = run_here(work, "train", *words(work, "adapter=none", "adapter.vision=full", "trainer.max_epochs=1"))
    models = RunModel(run, load(run.config()))
    assert models.encoder.reader is not None
    with models.system("tuned") as tuned:
        assert tuned.config.model_type == "llava"
    more = run_here(work, "train", *words(work, f"model.weights=run:{run.folder}", "trainer.max_epochs=1"))
    assert more.manifest()["model"]["adapter"] == "lora"


def test_going_on_from_an_adapter_takes_its_projector(work: Path, run: runs.Run) -> None:
    config = compose(work, "train", *words(work, f"model.weights=run:{run.folder}"))
    model, _ = start_model(config)
    for name, value in load_file(run.folder / "adapter" / "projector.safetensors").items():
        assert torch.equal(model.get_base_model().get_parameter(name), value)


@pytest.mark.parametrize("how", ["frozen", "lora", "full"])
def test_a_projector_to_start_from(work: Path, run: runs.Run, how: str) -> None:
    """It is the one that is trained, the base that evaluation compares with has it, and the log names it."""
    given = run.folder / "adapter" / "projector.safetensors"
    start = words(work, f"model.projector={given}", f"adapter.projector={how}", "trainer.max_epochs=1")
    rate = "adapter.projector_learning_rate=" + ("null" if how == "frozen" else "1e-3")
    again = run_here(work, "train", *start, rate)
    assert f"projector weights: {given}" in (again.folder / runs.LOG).read_text(encoding="utf-8")
    state = load_file(given)
    with RunModel(again, load(again.config())).system("base") as base:
        there = dict(parameters_in(unwrapped(base), "projector"))
        plain = {name.replace(".base_layer", ""): one for name, one in there.items() if "lora_" not in name}
        assert plain.keys() == state.keys() and all(torch.equal(plain[name], state[name]) for name in state)
    told = "projector weights: from the base checkpoint, tiny:llava"
    assert told in (run.folder / runs.LOG).read_text(encoding="utf-8")


def test_a_newline_is_refused_where_it_would_be_left_away(work: Path) -> None:
    model = start_model(compose(work, "train", *words(work, name="llava_next")))[0].get_base_model()
    must_gather(model, Strategy.zero2)
    with pytest.raises(UserError, match=r"zero3 does not put model.image_newline of a llava_next together; give"):
        must_gather(model, Strategy.zero3)


def test_a_pass_without_a_picture_looks_at_one_and_puts_it_nowhere(work: Path) -> None:
    """Where weights are shared out: the same loss, and gradients of zeros for the projector instead of none."""
    model, encoder = start_model(compose(work, "train", *words(work)))
    seen = Media("image", str(work / "rows" / "pictures" / "0.png"))
    turns = [(Message("user", (*media, "Why?")), Message("assistant", ("So.",))) for media in ([seen], [])]
    there, row = (encoder.row(each) for each in turns)
    batch, network = collate([row], 0), LanguageModelLoss(model, fused=False)
    wanted = network(**batch)[0]
    network.idle_media = idle_media(there.media)
    found = network(**batch)[0]
    found.backward()
    assert found.detach() == wanted.detach()
    gradients = [one.grad for _, one in parameters_in(unwrapped(model), "projector")]
    assert gradients and all(one is not None and not one.any() for one in gradients)
    calls: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda head, inputs, logits: calls.append(logits.shape[0]))
    nothing = network(**idle_batch())[0]
    nothing.backward()
    assert float(nothing.detach()) == 0.0 and calls == [0]  # the head too is called, as on the ranks with labels


def test_rows_that_are_too_long_are_named_with_what_they_need(work: Path) -> None:
    with pytest.raises(
        UserError, match=r"\d+ tokens, 49 of them of pictures, which are never cut; model.context_length is 40"
    ):
        run_here(work, "train", *words(work, "model.context_length=40"))


def test_prepare_counts_tokens_for_a_model_that_sees(work: Path) -> None:
    """Of the same data set, whatever the model: what would be too long for it is named at once."""
    plain = run_here(work, "prepare", *COMMON, f"data.path={work / 'rows' / 'rows.jsonl'}").manifest()["data"]
    assert "tokens" not in plain
    rows = {}
    for limit in (512, 40):
        run = run_here(work, "prepare", *words(work, f"model.context_length={limit}"))
        found = run.manifest()["data"]
        assert found["fingerprint"] == plain["fingerprint"] and found["tokens"]["context_length"] == limit
        rows[limit] = sum(found["tokens"][split]["left_out"] for split in ("train", "val", "test"))
        said = (run.folder / "log.txt").read_text(encoding="utf-8")
        assert ("49 of them of pictures, which are never cut" in said) == (rows[limit] > 0)
    assert rows == {512: 0, 40: 20}


def test_prepare_says_when_it_cannot_count(work: Path, tmp_path: Path) -> None:
    run = run_here(work, "prepare", *words(work, f"model.weights=folder:{tmp_path}"))
    assert "tokens" not in run.manifest()["data"]
    assert "tokens are not counted" in (run.folder / "log.txt").read_text(encoding="utf-8")


def test_a_model_that_does_not_see_says_so(work: Path) -> None:
    blind = (*COMMON, f"data.path={work / 'rows' / 'rows.jsonl'}", "model=gpt2_tiny", "adapter=none", "trainer=fit")
    with pytest.raises(UserError, match="this model does not see; give a model= that does"):
        run_here(work, "train", *blind)
