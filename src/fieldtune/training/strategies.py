"""The Lightning Trainer of a run, and the team of devices that it trains with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy

from fieldtune import ranks
from fieldtune.config import Accelerator, Config, HardwareConfig, Precision, Strategy
from fieldtune.errors import UserError
from fieldtune.models.vision_parts import lone_parameters
from fieldtune.training.team import DeepSpeedTeam, Fsdp2Team, RankTeam, ReplicaTeam, Team

PRECISIONS = {Precision.fp32: "32-true", Precision.bf16: "bf16-mixed", Precision.fp16: "16-mixed"}

TEAMS: dict[Strategy, Callable[[ranks.Rank, torch.device], Team]] = {
    Strategy.single: Team,
    Strategy.ddp: RankTeam,
    Strategy.fsdp2: Fsdp2Team,
    Strategy.zero2: DeepSpeedTeam,
    Strategy.zero3: DeepSpeedTeam,
    Strategy.zero3_offload: DeepSpeedTeam,
}


def make_team(hardware: HardwareConfig) -> Team:
    """The team of this process, by the configuration and the environment."""
    rank = ranks.this_rank()
    on_gpu = hardware.accelerator is Accelerator.gpu
    if hardware.strategy is Strategy.dp:
        return ReplicaTeam([torch.device("cuda", number) for number in range(ranks.devices(hardware))])
    device = torch.device("cuda", rank.local) if on_gpu else torch.device("cpu")
    return TEAMS[hardware.strategy](rank, device)


def replicas(hardware: HardwareConfig, team: Team) -> int:
    """Copies of the model that each take a micro-batch at a time, over all processes."""
    return ranks.devices(hardware) if hardware.strategy is Strategy.dp else team.rank.world_size


def must_gather(inner: Any, strategy: Strategy) -> None:
    """`UserError` for a model of transformers that stage 3 would leave a weight away from: it puts a layer's weights
    together when the layer is called, and pictures do not go through the model's own call."""
    lone = lone_parameters(inner)
    if lone and strategy in (Strategy.zero3, Strategy.zero3_offload):
        raise UserError(
            f"hardware.strategy={strategy.name} does not put {lone[0]} of a {inner.config.model_type} together; "
            "give hardware=deepspeed_zero2 or fsdp2"
        )


class SummedDDP(DDPStrategy):
    """Lightning's DDP without torch's wrapper: our module sums the gradients itself, once an optimizer step.

    The wrapper averages over ranks in every backward pass and waits for a gradient of each weight, which a rank whose
    share of a short window is empty has not.
    """

    def configure_ddp(self) -> None:
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            torch.distributed.broadcast(tensor.detach(), src=0)


def make_trainer(
    config: Config, team: Team, callback: pl.Callback, files: CheckpointIO, *earlier: pl.Callback
) -> pl.Trainer:
    """A Trainer that makes one pass over all optimizer steps; our epochs are inside (see `Schedule`).

    files: how a state becomes a file; where weights are shared out, the strategy has its own way. earlier: callbacks
    that are called before the other.
    """
    for noisy in ("lightning.pytorch", "pytorch_lightning"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    hardware = config.hardware
    several = hardware.strategy in ranks.PROCESS_A_DEVICE
    return pl.Trainer(
        accelerator="gpu" if hardware.accelerator is Accelerator.gpu else "cpu",
        strategy=_strategy(config, team),
        devices=ranks.devices(hardware) if several else 1,
        num_nodes=hardware.nodes,
        plugins=[*([TorchElasticEnvironment()] if several else []), *([] if team.shares_samples else [files])],
        precision=PRECISIONS[hardware.precision],
        max_epochs=1,
        callbacks=[*earlier, callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _strategy(config: Config, team: Team) -> Any:
    strategy = config.hardware.strategy
    if strategy is Strategy.ddp:
        return SummedDDP()
    if strategy is Strategy.fsdp2:
        return ModelParallelStrategy(
            data_parallel_size=team.rank.world_size, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    if strategy in ranks.DEEPSPEED:
        from fieldtune.training.deepspeed import make_strategy

        assert isinstance(team, DeepSpeedTeam)
        return make_strategy(config, team)
    return SingleDeviceStrategy(team.device)
