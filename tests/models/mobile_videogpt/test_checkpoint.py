"""The released layout: written from a tiny model, read back bit for bit, and refused key by key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel

from fieldtune.errors import UserError
from fieldtune.models.mobile_videogpt.checkpoint import IMAGE_TOWER, read_checkpoint, released_state, write_checkpoint
from fieldtune.models.mobile_videogpt.network import MobileVideoGPT, image_settings
from fieldtune.models.mobile_videogpt.shapes import TINY
from tests.malicious import Malicious
from tests.models.mobile_videogpt.tiny import film, tiny_model

MIXER = "model.vision_tower.vision_encoder.layers.1.mixer."
Change = Callable[[dict[str, Tensor]], None]


@pytest.fixture(scope="module")
def model() -> MobileVideoGPT:
    return tiny_model().eval()


@pytest.fixture
def folder(model: MobileVideoGPT, tmp_path: Path) -> Path:
    write_checkpoint(model, tmp_path / "model")
    return tmp_path / "model"


def change(folder: Path, by: Change) -> None:
    state = load_file(folder / "model.safetensors")
    by(state)
    save_file(state, folder / "model.safetensors")


def set_up(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refusal(folder: Path, clip_folder: Path | None = None) -> str:
    with pytest.raises(UserError) as raised:
        read_checkpoint(folder, clip_folder)
    text = str(raised.value)
    assert "\n" not in text
    return text


def assert_same(model: MobileVideoGPT, other: MobileVideoGPT) -> None:
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    with torch.inference_mode():
        assert torch.equal(model.features(*film()), other.eval().features(*film()))
        ids = torch.arange(9)[None]
        assert torch.equal(model(ids).logits, other(ids).logits)


def test_written_and_read_back_bit_for_bit(model: MobileVideoGPT, folder: Path) -> None:
    read = read_checkpoint(folder)
    assert_same(model, read)
    assert read.shape.towers() == TINY.towers()
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model"]
    write_checkpoint(read, folder.parent / "again")
    for name in ("config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (folder.parent / "again" / name).read_bytes()


def test_the_keys_are_those_of_the_release(folder: Path) -> None:
    names = set(load_file(folder / "model.safetensors"))
    projector = {f"{layer}.{kind}" for layer in ("mlp.mlp.0", "mlp.mlp.2", "peg.peg.0") for kind in ("weight", "bias")}
    for prefix in ("model.mm_projector.", "model.image_mm_projector."):
        assert {name.removeprefix(prefix) for name in names if name.startswith(prefix)} == projector
    mixer = {"A_log", "A_b_log", "D", "D_b", "in_proj.weight", "out_proj.weight"}
    for ending in ("", "_b"):
        mixer |= {f"conv1d{ending}.weight", f"conv1d{ending}.bias", f"x_proj{ending}.weight"}
        mixer |= {f"dt_proj{ending}.weight", f"dt_proj{ending}.bias"}
    assert {name.removeprefix(MIXER) for name in names if name.startswith(MIXER)} == mixer
    tower = "model.vision_tower.vision_encoder."
    outside = {name.removeprefix(tower) for name in names if name.startswith(tower) and ".layers." not in name}
    assert outside == {
        "patch_embed.proj.weight", "patch_embed.proj.bias", "cls_token", "pos_embed", "temporal_pos_embedding",
        "norm.weight", "clip_decoder.0.head.weight", "clip_decoder.0.head.bias", "clip_decoder.0.norm.weight",
        "clip_decoder.0.norm.bias",
    }  # fmt: skip
    assert IMAGE_TOWER + "encoder.layers.0.self_attn.q_proj.weight" in names
    assert IMAGE_TOWER + "pre_layrnorm.weight" in names
    language = {name for name in names if not re.search("mm_projector|vision_tower", name)}
    assert {name.split(".")[1] for name in language} == {"embed_tokens", "layers", "norm"}  # the head is tied


def test_settings_are_those_of_the_release(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    wanted = {
        "model_type": "MobileVideoGPT_qwen", "mm_projector_type": "etp", "image_mm_projector_type": "etp",
        "mm_hidden_size": 32, "image_mm_hidden_size": 32, "mm_vision_select_layer": -2, "rope_scaling": None,
        "rope_theta": 1e6, "hidden_size": 32, "tie_word_embeddings": True,
    }  # fmt: skip
    assert {key: settings[key] for key in wanted} == wanted
    assert "VideoMamba" in settings["mm_vision_tower"] and settings["image_mm_vision_tower"].startswith("openai/clip")


def drop(*names: str) -> Change:
    def by(state: dict[str, Tensor]) -> None:
        for name in names:
            del state[name]

    return by


def drop_backward(state: dict[str, Tensor]) -> None:
    """What a writer without the backward direction leaves out."""
    for name in list(state):
        if ".mixer." in name and ("_b." in name or name.endswith(("_b", "A_b_log"))):
            del state[name]


def add(state: dict[str, Tensor]) -> None:
    state["model.mm_projector.mlp.mlp.4.weight"] = torch.zeros(2)


def reshape(state: dict[str, Tensor]) -> None:
    state["model.norm.weight"] = torch.zeros(31)


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (drop("model.mm_projector.mlp.mlp.0.bias"), ["missing: model.mm_projector.mlp.mlp.0.bias)"]),
        (drop(IMAGE_TOWER + "pre_layrnorm.weight"), [f"missing: {IMAGE_TOWER}pre_layrnorm.weight)"]),
        (drop("model.embed_tokens.weight"), ["missing: model.embed_tokens.weight)"]),
        (add, ["unexpected: model.mm_projector.mlp.mlp.4.weight)"]),
        (reshape, ["other shapes: model.norm.weight [31] (wanted [32])"]),
        (drop_backward, ["layers.0.mixer.A_b_log", "and 9 more", "cannot read from the end"]),
        (drop(MIXER + "D_b"), [MIXER + "D_b", "cannot read from the end"]),
    ],
)
def test_each_key_that_does_not_fit_is_named(folder: Path, by: Change, said: list[str]) -> None:
    change(folder, by)
    text = refusal(folder)
    assert all(part in text for part in said), text


def test_all_misfits_are_named_together(folder: Path) -> None:
    change(folder, drop("model.mm_projector.mlp.mlp.0.bias"))
    change(folder, add)
    change(folder, reshape)
    text = refusal(folder)
    assert text.count("missing: ") == text.count("unexpected: ") == text.count("other shapes: ") == 1


def test_weights_of_both_directions_are_used(model: MobileVideoGPT, folder: Path) -> None:
    def by(state: dict[str, Tensor]) -> None:
        state[MIXER + "A_b_log"] += 1.0

    change(folder, by)
    read = read_checkpoint(folder).eval()
    with torch.inference_mode():
        assert not torch.allclose(read.features(*film()), model.features(*film()))


def test_positions_that_older_files_hold_are_no_weights(model: MobileVideoGPT, folder: Path) -> None:
    def by(state: dict[str, Tensor]) -> None:
        state[IMAGE_TOWER + "embeddings.position_ids"] = torch.arange(10)[None]

    change(folder, by)
    assert_same(model, read_checkpoint(folder))


def test_in_parts_with_an_index(model: MobileVideoGPT, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_checkpoint(model, folder, shard_size="100KB")
    parts = sorted(folder.glob("model-*.safetensors"))
    assert len(parts) > 2
    assert_same(model, read_checkpoint(folder))
    parts[1].unlink()
    assert f"names files that are not beside it: {parts[1].name}" in refusal(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    assert "names files that are not beside it: ../other.safetensors" in refusal(folder)
    index.write_text("{}")
    assert "is no index of weights" in refusal(folder)


def test_a_bin_file_is_read_without_running_it(model: MobileVideoGPT, folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    assert "holds no weights" in refusal(folder)
    torch.save(state, folder / "pytorch_model.bin")
    assert_same(model, read_checkpoint(folder))
    torch.save({"model.norm.weight": Malicious(folder / "ran")}, folder / "pytorch_model.bin")
    assert "give safetensors" in refusal(folder) and not (folder / "ran").exists()


def test_damaged_files(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:1000])
    assert "cannot be loaded" in refusal(folder)
    (folder / "config.json").write_text("{")
    assert "config.json cannot be read" in refusal(folder)
    (folder / "config.json").write_text("[]")
    assert "holds no settings" in refusal(folder)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": "qwen2"}, "is of a qwen2"),
        ({"mm_projector_type": "mlp2x_gelu"}, "mm_projector_type=mlp2x_gelu; only etp"),
        ({"fieldtune": {"chunk": 5}}, "frames=16 is no multiple of chunk=5"),
        ({"fieldtune": {"size": 5}}, "a size that cannot be"),
        ({"hidden_size": "wide"}, "a size that cannot be"),
    ],
)
def test_settings_of_something_else(folder: Path, fields: dict[str, object], said: str) -> None:
    set_up(folder, **fields)
    assert said in refusal(folder)


def test_settings_without_a_size(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    del settings["hidden_size"]
    (folder / "config.json").write_text(json.dumps(settings))
    assert "does not say hidden_size" in refusal(folder)


def test_a_tied_head_may_be_written_twice(model: MobileVideoGPT, folder: Path) -> None:
    def twice(state: dict[str, Tensor]) -> None:
        state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()

    def otherwise(state: dict[str, Tensor]) -> None:
        state["lm_head.weight"] += 1.0

    change(folder, twice)
    read = read_checkpoint(folder)
    assert_same(model, read)
    assert read.get_output_embeddings().weight is read.get_input_embeddings().weight
    change(folder, otherwise)
    assert "set tie_word_embeddings to false" in refusal(folder)
    set_up(folder, tie_word_embeddings=False)
    untied = read_checkpoint(folder)
    difference = untied.get_output_embeddings().weight - untied.get_input_embeddings().weight
    torch.testing.assert_close(difference, torch.ones_like(difference))


def test_a_head_of_its_own(tmp_path: Path) -> None:
    model = tiny_model(shape=replace(TINY, language={**TINY.language, "tie_word_embeddings": False})).eval()
    write_checkpoint(model, tmp_path / "model")
    assert_same(model, read_checkpoint(tmp_path / "model"))
    change(tmp_path / "model", drop("lm_head.weight"))
    assert "missing: lm_head.weight)" in refusal(tmp_path / "model")


@pytest.fixture
def without_tower(model: MobileVideoGPT, tmp_path: Path) -> Path:
    write_checkpoint(model, tmp_path / "bare", with_image_tower=False)
    return tmp_path / "bare"


def whole_clip(tower: CLIPVisionModel, folder: Path, **different: object) -> None:
    """A CLIP with a text tower, as openai/clip-vit-base-patch16 is stored, with this image tower."""
    vision = image_settings(TINY).to_dict() | different
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision))
    clip.vision_model.load_state_dict(tower.state_dict())
    clip.save_pretrained(folder)


def test_the_image_tower_may_come_from_clip(model: MobileVideoGPT, without_tower: Path, tmp_path: Path) -> None:
    assert "give the folder of openai/clip-vit-base-patch16" in refusal(without_tower)
    whole_clip(model.image_tower, tmp_path / "clip")
    assert_same(model, read_checkpoint(without_tower, tmp_path / "clip"))
    model.image_tower.save_pretrained(tmp_path / "tower")
    assert_same(model, read_checkpoint(without_tower, tmp_path / "tower"))


def test_another_clip_is_refused(model: MobileVideoGPT, without_tower: Path, tmp_path: Path) -> None:
    whole_clip(model.image_tower, tmp_path / "heads", num_attention_heads=2)
    assert "has num_attention_heads=2; wanted 4" in refusal(without_tower, tmp_path / "heads")
    whole_clip(model.image_tower, tmp_path / "clip")
    change(tmp_path / "clip", drop("vision_model.pre_layrnorm.weight"))
    assert f"missing: {IMAGE_TOWER}pre_layrnorm.weight)" in refusal(without_tower, tmp_path / "clip")


def test_the_checkpoints_own_tower_comes_first(model: MobileVideoGPT, folder: Path, tmp_path: Path) -> None:
    whole_clip(tiny_model(seed=1).image_tower, tmp_path / "clip")
    assert_same(model, read_checkpoint(folder, tmp_path / "clip"))


def test_read_in_half_precision(model: MobileVideoGPT, folder: Path) -> None:
    read = read_checkpoint(folder, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in read.state_dict().values()} == {torch.bfloat16}
    with torch.inference_mode():
        found, exact = read.features(*film()).float(), model.features(*film())
    assert found.isfinite().all() and found.shape == exact.shape


def test_nothing_is_written_over(model: MobileVideoGPT, folder: Path) -> None:
    with pytest.raises(UserError, match="is there already"):
        write_checkpoint(model, folder)


def test_the_state_is_the_models_own(model: MobileVideoGPT) -> None:
    state = released_state(model)
    weight = state["model.image_mm_projector.mlp.mlp.0.weight"]
    assert weight.data_ptr() == model.image_projector.mlp["mlp"][0].weight.data_ptr()
