"""The schema: every key that a configuration may have, its type, its unit and its default. No torch here.

YAML chooses, these dataclasses define, plain functions build. Hydra composes the files of `conf/` onto them, so an
unknown key or a wrong type fails at composition; `fieldtune.checks.check` holds the rules across sections.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from omegaconf import MISSING, OmegaConf


class Family(Enum):
    """The architecture's family: it says how a model is built and what its limits are."""

    gpt2 = "gpt2"
    causal_lm = "causal_lm"
    vision_language = "vision_language"


class TokenizerKind(Enum):
    """gpt2_bpe: tiktoken's GPT-2 BPE. from_weights: the tokenizer beside the weights."""

    gpt2_bpe = "gpt2_bpe"
    from_weights = "from_weights"


class TemplateKind(Enum):
    """alpaca: instruction / input / response headings. chat: the tokenizer's own chat template."""

    alpaca = "alpaca"
    chat = "chat"


class AdapterKind(Enum):
    """none: every weight is trained. lora: low-rank adapters on frozen weights (arXiv 2106.09685). qlora: the same on
    weights that are held in 4 bits (NF4, arXiv 2305.14314)."""

    none = "none"
    lora = "lora"
    qlora = "qlora"


class VisionPart(Enum):
    """How a part of a model that sees is trained. frozen: not at all. lora: by adapters on it. full: every weight."""

    frozen = "frozen"
    lora = "lora"
    full = "full"


class OptimizerKind(Enum):
    """adamw: two fp32 moments a trained weight. paged_adamw_8bit: both in 8 bits, and moved out of a GPU's memory when
    that is full (bitsandbytes; arXiv 2110.02861)."""

    adamw = "adamw"
    paged_adamw_8bit = "paged_adamw_8bit"


class Scheduler(Enum):
    """Learning rate after the warm-up: kept, or brought to 0 along a line or half a cosine."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class Packing(Enum):
    """How rows become a forward pass: padded to the longest (none), end to end without seeing each other (rows), or so
    that what rows have in common at their beginning is computed once (shared_prefix). The gradients are the same."""

    none = "none"
    rows = "rows"
    shared_prefix = "shared_prefix"


class Decoding(Enum):
    """How answers are decoded. free: as the model likes. constrained: those that are JSON are held to their schema.
    both: one after the other, and measured apart."""

    free = "free"
    constrained = "constrained"
    both = "both"


class Ablation(Enum):
    """What of a row's pictures and films is kept from the model. none: nothing. text_only: they are left out. blank:
    each is gray all over, as large as it was. Of films alone: first_frame: nothing moves. shuffled: the order of the
    frames."""

    none = "none"
    text_only = "text_only"
    blank = "blank"
    first_frame = "first_frame"
    shuffled = "shuffled"


class Accelerator(Enum):
    """The kind of device that trains."""

    cpu = "cpu"
    gpu = "gpu"


class Strategy(Enum):
    """How several devices share the work. single: one device. dp: one process, a copy of the model on each GPU
    (torch.nn.DataParallel's way). The others run a process a device. ddp: whole copies, gradients summed. fsdp2, zero2
    and zero3: optimizer state and, but for zero2, weights are shared out (PyTorch's FSDP2; DeepSpeed's stages).
    zero3_offload: the same as zero3, with each share in main memory, where the optimizer's step is done too."""

    single = "single"
    dp = "dp"
    ddp = "ddp"
    fsdp2 = "fsdp2"
    zero2 = "zero2"
    zero3 = "zero3"
    zero3_offload = "zero3_offload"


class Precision(Enum):
    """Number format of training; fp16 scales the loss."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class TrackingKind(Enum):
    """wandb: every stage is a W&B run. off: nothing is imported or written."""

    wandb = "wandb"
    off = "off"


class TrackingMode(Enum):
    """auto: online if a W&B login is found, else offline."""

    auto = "auto"
    online = "online"
    offline = "offline"


@dataclass(kw_only=True, slots=True)
class MixturePart:
    """A further data file that joins the training rows."""

    name: str = MISSING  # begins the ids of its rows; unlike any other part's and the task's
    path: str = MISSING  # .jsonl, .json or .csv, or a data set folder's train.jsonl
    weight: float = 1.0  # share of the training rows, relative to `data.weight`; above 0
    optional: bool = False  # the part joins if its file is there; the log says so either way


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """What the examples are. A task's own schema (`fieldtune.tasks.<task>.config`) adds its keys."""

    task: str = MISSING  # the package in fieldtune.tasks that makes and scores the examples
    split: list[float] = field(default_factory=lambda: [0.85, 0.10, 0.05])  # train, val, test; they add up to 1
    near_duplicate: float = 0.8  # Jaccard similarity from which two rows must stay in one split
    weight: float = 1.0  # share of this data in the training rows, relative to the mixture's weights
    mixture: list[MixturePart] = field(default_factory=list)  # further files that join the rows
    preview_rows: int = 12  # rows shown in preview.html
    # The loss counts the tokens of the prompt too. Read by training: changing it does not ask for another data set
    train_on_prompt: bool = field(default=False, metadata={"stage": "train"})

    def problems(self) -> list[str]:
        """What is wrong with the keys of a task taken together, a line each; a task's own schema says it."""
        return []


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """Which model, and where its weights come from."""

    name: str = MISSING  # stands in the log, the manifest and the report
    family: Family = MISSING
    # random | tiny:FAMILY | hub:OWNER/NAME | folder:PATH | openai:124M | package:MODULE | run:FOLDER (an earlier run)
    weights: str = MISSING
    revision: str | None = None  # branch, tag or commit of a hub model
    # Of a Mobile-VideoGPT whose weights are without it: hub:OWNER/NAME or folder:PATH of the CLIP that it is taken from
    image_tower: str | None = None
    tokenizer: TokenizerKind = MISSING
    template: TemplateKind = MISSING
    size: str = MISSING  # names the result files: gpt2-{size}-golf-feedback.pth, loss_plot_{size}.pdf
    context_length: int = 1024  # tokens a row may have, prompt and answer; longer rows are listed and left out
    layers: int | None = None  # shape of a GPT-2; checked against weights that are loaded
    heads: int | None = None  # attention heads; `width` is a multiple of it
    width: int | None = None  # features of a token
    dropout: float = 0.0  # of embeddings, attention and residual branches (GPT-2)
    projector: str | None = None  # of a model that sees: a projector.safetensors to start from; null: the weights' own
    # Of a model that sees pictures and films: frames of a film, at most. Null: what its family takes, Qwen-VL 768 at
    # 2 a second, SmolVLM 64 at 1 a second, LLaVA-OneVision 32 at even distance
    frames: int | None = None


@dataclass(kw_only=True, slots=True)
class AdapterConfig:
    """What is trained."""

    kind: AdapterKind = MISSING
    rank: int = 16  # of the two low-rank matrices of each layer
    alpha: float = 32.0  # the update is scaled by alpha / rank
    dropout: float = 0.0  # on the adapter's input
    targets: list[str] = field(default_factory=list)  # names of linear layers; empty: all but the output head
    bits: int | None = None  # of a frozen weight of a linear layer: 4 with qlora; null: as hardware.precision holds it
    double_quantization: bool = True  # qlora: the scales of the 4-bit blocks are quantized too, 0.37 bits a weight less
    compute: Precision = Precision.bf16  # qlora: what 4-bit weights are multiplied in; fp16 on a GPU without bf16
    projector: VisionPart = VisionPart.full  # of a model that sees: what brings pictures to the language model's width
    projector_learning_rate: float | None = None  # null: trainer.learning_rate
    vision: VisionPart = VisionPart.frozen  # of a model that sees: its vision tower
    vision_learning_rate: float | None = None  # null: trainer.learning_rate


@dataclass(kw_only=True, slots=True)
class TrainerConfig:
    """How long, how fast and how it is watched."""

    max_epochs: int = 2  # passes over the training rows
    max_steps: int | None = None  # optimizer steps; null: as many as max_epochs gives
    micro_batch_size: int = 8  # samples per device per forward
    accumulation: int = 1  # micro-batches per optimizer step
    packing: Packing = Packing.shared_prefix  # none needs no special attention, and wastes time on padding
    activation_checkpointing: bool = False  # layers are computed again in the backward pass: less memory, more time
    optimizer: OptimizerKind = OptimizerKind.adamw
    learning_rate: float = 5e-5  # of AdamW, after the warm-up
    weight_decay: float = 0.1  # of AdamW
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # of AdamW
    scheduler: Scheduler = Scheduler.constant
    warmup_steps: int = 0  # optimizer steps of linear warm-up
    clip_norm: float | None = None  # largest gradient norm; null: no clipping
    stop_after_bad_steps: int = 10  # optimizer steps in a row that are skipped, as a gradient is not finite
    log_every: int = 1  # optimizer steps
    eval_every: int = 10  # optimizer steps
    eval_rows: int | None = None  # validation rows used; null: all
    patience: int | None = None  # evaluations without improvement before training stops; null: never
    checkpoint_every: int | None = None  # optimizer steps; null: at each evaluation
    keep_checkpoints: int = 2  # the newest ones; one more lies on the disk while it is written
    sample_rows: int = 1  # validation rows answered after each epoch
    sample_tokens: int = 200  # new tokens of such a sample at most
    temperature: float = 0.7  # of such a sample
    top_k: int = 50  # of such a sample
    # GB of disk, under cache_dir, that frames of films and what frozen towers see in them may take; 0: none are kept
    media_cache_gb: float = 50.0
    packing_trial: int = 0  # optimizer steps timed with and without packing before training starts, for the report


@dataclass(kw_only=True, slots=True)
class HardwareConfig:
    """The only home of devices and precision."""

    accelerator: Accelerator = MISSING
    precision: Precision = Precision.fp32
    strategy: Strategy = Strategy.single
    devices: int | None = None  # of a node; null: 1 with strategy=single and on the CPU, else all visible GPUs
    nodes: int = 1  # machines; more than 1: started by torchrun or srun on each of them
    threads: int | None = None  # CPU threads of a worker process; null: its share of the cores


@dataclass(kw_only=True, slots=True)
class TrackingConfig:
    """Where a run is recorded besides its own folder."""

    kind: TrackingKind = MISSING
    mode: TrackingMode = TrackingMode.auto
    project: str = "fieldtune"  # W&B project
    entity: str | None = None  # W&B team or user
    group: str | None = None  # null: the configuration's name
    tags: list[str] = field(default_factory=list)  # W&B tags


@dataclass(kw_only=True, slots=True)
class EvaluationConfig:
    """What evaluate.py measures."""

    split: str = "test"  # train, val or test
    rows: int | None = None  # rows evaluated, the first of the shuffled split; null: all
    base: bool = True  # the model before fine-tuning is measured beside the tuned one
    base_rows: int | None = None  # rows that the base model answers, the first of those evaluated; null: all
    decoding: Decoding = Decoding.free  # whether answers in JSON are held to their task's schema
    ablation: Ablation = Ablation.none  # what is kept from the model, to see what it knows without that
    batch_size: int = 8  # rows answered at a time
    max_new_tokens: int = 400  # of an answer at most
    temperature: float = 0.0  # 0: greedy
    top_k: int = 50  # used when temperature > 0
    bootstrap: int = 2000  # resamples of the rows for the 95 % intervals


@dataclass(kw_only=True, slots=True)
class Config:
    """One configuration for prepare, train and evaluate."""

    name: str = "run"  # of the experiment: ends the run folder's name, groups the runs
    seed: int = 1337  # of the generated rows, the splits, the order of training and the samples
    run_dir: str | None = None  # null: outputs/<date>/<time>-<name>; given: made, continued or done; latest: continued
    run: str | None = None  # evaluate: a run folder or `latest`; null: this experiment's newest finished run
    output_dir: str = "outputs"  # run folders
    dataset_dir: str = "datasets"  # prepared data sets
    cache_dir: str = "~/.cache/fieldtune"  # converted weights, downloads, and what is kept of media
    data: DataConfig = MISSING
    model: ModelConfig = MISSING
    adapter: AdapterConfig = MISSING
    trainer: TrainerConfig = MISSING
    evaluation: EvaluationConfig = MISSING
    hardware: HardwareConfig = MISSING
    tracking: TrackingConfig = MISSING


SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "adapter": AdapterConfig,
    "trainer": TrainerConfig,
    "evaluation": EvaluationConfig,
    "hardware": HardwareConfig,
    "tracking": TrackingConfig,
}


def to_mapping(config: Any) -> dict[str, Any]:
    """A configuration (or a section) as plain values: enum members by name, ready for YAML, JSON or W&B."""
    value = OmegaConf.to_container(OmegaConf.structured(config), resolve=True, enum_to_str=True)
    assert isinstance(value, dict)
    return {str(key): item for key, item in value.items()}


def to_yaml(config: Config) -> str:
    """The configuration as YAML text; `load` reads it back to an equal object."""
    return OmegaConf.to_yaml(OmegaConf.create(to_mapping(config)))


def data_key(config: Config) -> str:
    """Hash of everything that decides what prepare makes: the data section without train-time keys, and the seed."""
    mapping = to_mapping(config.data)
    for item in fields(config.data):
        if item.metadata.get("stage") == "train" or item.name == "preview_rows":
            mapping.pop(item.name)
    text = json.dumps([config.seed, mapping], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
