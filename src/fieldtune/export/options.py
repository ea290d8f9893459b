"""What an export is asked for, and the bounds that it must keep. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fieldtune.errors import UserError
from fieldtune.keys import nearest

FORMS = ("adapter", "merged", "gguf", "ollama", "pth")
PRECISIONS = ("fp32", "bf16", "fp16")
CHECKS = ("template", "answers")  # what `skip=` may name


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a file may lose against the merged model in fp32, over the first tokens of the answers to some rows.

    kl: mean Kullback-Leibler divergence of the next token's distribution, nats. agreement: least share of places at
    which the likeliest token is the same.
    """

    kl: float
    agreement: float


# By what a weight is stored in. Set by judgment, with room for small models, which feel rounding most.
BOUNDS = {
    "f32": Bounds(1e-4, 0.99),
    "f16": Bounds(1e-3, 0.98),
    "bf16": Bounds(5e-3, 0.96),
    "q8_0": Bounds(1e-2, 0.95),
    "q6_K": Bounds(5e-2, 0.9),
    "q5_K_M": Bounds(0.1, 0.88),
    "q4_K_M": Bounds(0.3, 0.8),
}
QUANTIZATIONS = tuple(BOUNDS)

# Words of `fieldtune export`; None: must be given, empty: as `Options` has it.
WORDS: dict[str, str | None] = {
    "run": None,
    "to": None,
    "quantization": "",
    "precision": "",
    "out": "",
    "prompts": "",
    "tokens": "",
    "max_difference": "",
    "max_kl": "",
    "min_agreement": "",
    "skip": "",
}


@dataclass(frozen=True, slots=True)
class Options:
    """An export's words, read.

    prompts: held-out rows that the forms are compared on. tokens: of each answer. max_difference: of a logit, merged
    against adapter, both in fp32. bounds: of what is rounded. skip: checks that are left out.
    """

    run: str
    to: str
    quantization: str = "q8_0"
    precision: str = "fp32"
    out: Path | None = None
    prompts: int = 8
    tokens: int = 64
    max_difference: float = 1e-3
    bounds: Bounds = BOUNDS["q8_0"]
    skip: frozenset[str] = frozenset()

    @property
    def is_gguf(self) -> bool:
        return self.to in ("gguf", "ollama")


def options(words: Mapping[str, str]) -> Options:
    """`Options` of the command's words; `UserError` for one that is not allowed or does not go with another."""
    to = _one_of("to", words["to"], FORMS)
    for key, forms in (("quantization", ("gguf", "ollama")), ("precision", ("merged",))):
        if words[key] and to not in forms:
            raise UserError(f"{key}= does not go with to={to}; it is for to={'|'.join(forms)}")
    quantization = _one_of("quantization", words["quantization"] or "q8_0", QUANTIZATIONS)
    precision = _one_of("precision", words["precision"] or "fp32", PRECISIONS)
    usual = BOUNDS[quantization] if to in ("gguf", "ollama") else BOUNDS[{"fp32": "f32"}.get(precision, "bf16")]
    skip = [_one_of("skip", name, CHECKS) for name in words["skip"].split(",") if name]
    return Options(
        run=words["run"],
        to=to,
        quantization=quantization,
        precision=precision,
        out=Path(words["out"]) if words["out"] else None,
        prompts=int(_number(words, "prompts", 8, 1, 10_000, whole=True)),
        tokens=int(_number(words, "tokens", 64, 1, 100_000, whole=True)),
        max_difference=_number(words, "max_difference", 1e-3, 0, 1e3),
        bounds=Bounds(
            _number(words, "max_kl", usual.kl, 0, 1e3), _number(words, "min_agreement", usual.agreement, 0, 1)
        ),
        skip=frozenset(skip),
    )


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise UserError(f"{key}={value} is not allowed{nearest(value, list(allowed))}; give {'|'.join(allowed)}")
    return value


def _number(
    words: Mapping[str, str], key: str, usual: float, least: float, most: float, *, whole: bool = False
) -> float:
    text = words[key]
    if not text:
        return usual
    try:
        value = float(int(text)) if whole else float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        kind = "whole number" if whole else "number"
        raise UserError(f"{key}={text} is not allowed; give a {kind} from {least:,g} to {most:,g}")
    return value
