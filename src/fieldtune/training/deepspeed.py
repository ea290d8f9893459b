"""DeepSpeed's ZeRO stages 2 and 3 in Lightning, on GPUs and, so that they can be tested anywhere, on the CPU.

ZeRO: arXiv 1910.02054; moving shares to main memory: arXiv 2104.07857.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from pytorch_lightning.strategies import DDPStrategy, DeepSpeedStrategy, ParallelStrategy

from fieldtune.config import Accelerator, Config, Strategy
from fieldtune.training.team import DeepSpeedTeam


class CpuDeepSpeed(DeepSpeedStrategy):
    """Lightning refuses DeepSpeed on the CPU, DeepSpeed itself does not."""

    def setup_environment(self) -> None:
        ParallelStrategy.setup_environment(self)
        self.setup_distributed()

    def setup_distributed(self) -> None:
        from deepspeed import ops

        # Nothing is compiled: a sum through shared memory, which only inference uses, would take a minute of it.
        ops.__compatible_ops__ = {}
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu", 0)


def make_strategy(config: Config, team: DeepSpeedTeam) -> DDPStrategy:
    """The strategy; the team learns where its engine will be."""
    # DeepSpeed compiles with ninja, which lies beside this Python; without it, it would compile anew each time.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    on_gpu = config.hardware.accelerator is Accelerator.gpu
    kind = DeepSpeedStrategy if on_gpu else CpuDeepSpeed
    offload = config.hardware.strategy is Strategy.zero3_offload
    strategy = kind(
        stage=2 if config.hardware.strategy is Strategy.zero2 else 3,
        offload_parameters=offload,
        offload_optimizer=offload,
        process_group_backend="nccl" if on_gpu else "gloo",
        zero_allow_untested_optimizer=True,
        overlap_comm=False,
        exclude_frozen_parameters=True,
    )
    if not on_gpu:  # small models stand for large ones there: nothing of them is kept whole
        strategy.config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    strategy.config["gradient_clipping"] = config.trainer.clip_norm or 0.0
    # torch's fused AdamW steps in main memory as well as DeepSpeed's own, which would have to be compiled.
    strategy.config["zero_force_ds_cpu_optimizer"] = False
    # Backward passes add up and the step reduces. Counted by DeepSpeed, each backward pass would begin a new sum.
    strategy.config["managed_gradient_accumulation"] = False
    team.engine = lambda: strategy.model
    return strategy
