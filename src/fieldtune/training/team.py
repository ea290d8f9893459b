"""How devices share an optimizer step. Whatever the team, its loss and gradient are those of one device: sums of sums.

A team of processes takes a share of each window's rows (see `data.batches.Windows`), a team of replicas in one process
one micro-batch a device. Both divide by the supervised tokens of the whole window and add up, so that nothing is a mean
of means, however unequal the shares are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from fieldtune.data.batches import MicroBatch, idle_batch, moved
from fieldtune.models.loss import LanguageModelLoss, unwrapped
from fieldtune.models.tree_attention import Trunk
from fieldtune.ranks import Rank
from fieldtune.training.data_parallel import summed_over_replicas

CLIP_EPSILON = 1e-6  # that torch adds to a norm before it divides by it
BUCKET = 25_000_000  # numbers that are sent in one piece: 100 MB in fp32


class Team:
    """One device."""

    keeps_trunk = True  # micro-batches can continue a pass of before, which is backpropagated after them
    shares_samples = False  # all ranks must answer a sample together, as each holds but a part of the weights

    def __init__(self, rank: Rank | None = None, device: torch.device | None = None) -> None:
        self.rank = rank or Rank()
        self.device = device or torch.device("cpu")
        self.gradient_factor = 1.0  # what undoes an average that the strategy takes over ranks

    def groups(self, micro_batches: Sequence[MicroBatch]) -> Iterable[Sequence[MicroBatch]]:
        """The micro-batches that one forward pass of the team takes together."""
        return [[batch] for batch in micro_batches]

    def loss_sum(self, network: nn.Module, group: Sequence[MicroBatch], trunk: Trunk | None) -> Tensor:
        """The summed loss of a group (nats)."""
        (batch,) = group
        loss_sum: Tensor = network(**batch, trunk=trunk)[0]
        return loss_sum

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the gradients of all ranks, in place, before they are unscaled."""

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> float:
        """The norm of the whole gradient, which is then clipped to `limit`."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        size = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if not size + CLIP_EPSILON <= limit:  # torch's own would write all gradients once more, times 1
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return size

    def norm_after_step(self, norm: float) -> float:
        """The gradient's norm, for strategies that tell it after the step only."""
        return norm

    def sum(self, value: Tensor) -> float:
        """A number summed over all ranks."""
        return float(value)

    def of_every_rank(self, value: Any) -> list[Any]:
        """The value of each rank, by its number; every rank must ask."""
        return [value]

    def gather_losses(self, losses: list[tuple[float, int]]) -> list[tuple[float, int]]:
        """What each rank found for its `share` of some rows, put together."""
        return losses

    def share(self, rows: Sequence[Any]) -> list[Any]:
        """The rows that this rank looks at; every rank gets equally many, so that it takes equally many steps."""
        return list(rows)

    def shard(self, network: nn.Module) -> None:
        """Share the weights out, before the optimizer is made."""

    def trained_state(self, network: nn.Module) -> dict[str, Tensor]:
        """Whole copies of the weights that are trained, on the CPU; every rank must ask."""
        return {
            name: self._whole(parameter).detach().clone().cpu()
            for name, parameter in network.named_parameters()
            if parameter.requires_grad
        }

    def _whole(self, parameter: nn.Parameter) -> Tensor:
        return parameter

    @contextmanager
    def answering(self, network: nn.Module) -> Iterator[None]:
        """While the model answers by itself, outside the network's forward."""
        yield


class ReplicaTeam(Team):
    """One process with a copy of the model on each device (torch.nn.DataParallel's way)."""

    keeps_trunk = False  # it would be on one device only

    def __init__(self, devices: Sequence[torch.device]) -> None:
        super().__init__(device=devices[0])
        self.devices = devices

    def groups(self, micro_batches: Sequence[MicroBatch]) -> Iterable[Sequence[MicroBatch]]:
        size = len(self.devices)
        return [micro_batches[first : first + size] for first in range(0, len(micro_batches), size)]

    def loss_sum(self, network: nn.Module, group: Sequence[MicroBatch], trunk: Trunk | None) -> Tensor:
        return summed_over_replicas(network, group, self.devices)


class RankTeam(Team):
    """A process a device, each with the whole model; gradients are summed once an optimizer step."""

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        # A rank without rows has no gradient at all, and a weight without one anywhere must stay so: AdamW leaves it.
        there = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=self.device)
        distributed.all_reduce(there, distributed.ReduceOp.MAX)
        bucket: list[Tensor] = []
        for parameter, used in zip(parameters, there.tolist(), strict=True):
            if not used:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            if sum(gradient.numel() for gradient in bucket) >= BUCKET:
                _all_reduce(bucket)
                bucket = []
        if bucket:
            _all_reduce(bucket)

    def sum(self, value: Tensor) -> float:
        everywhere = value.to(self.device)
        distributed.all_reduce(everywhere)
        return float(everywhere)

    def of_every_rank(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.rank.world_size
        distributed.all_gather_object(values, value)
        return values

    def gather_losses(self, losses: list[tuple[float, int]]) -> list[tuple[float, int]]:
        shares = self.of_every_rank(losses)
        return [shares[number % len(shares)][number // len(shares)] for number in range(self._shared)]

    def share(self, rows: Sequence[Any]) -> list[Any]:
        self._shared = len(rows)
        count = -(-len(rows) // self.rank.world_size)
        mine = list(rows[self.rank.number :: self.rank.world_size])
        return mine + list(rows[: count - len(mine)])


def _all_reduce(gradients: Sequence[Tensor]) -> None:
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, summed in zip(gradients, parts, strict=True):
        gradient.copy_(summed.view_as(gradient))


class ShardTeam(RankTeam):
    """Ranks that hold a part of the weights each: every forward and backward pass is one of all ranks together.

    The strategy reduces gradients itself, to a mean over ranks.
    """

    shares_samples = True
    keeps_trunk = False  # ranks would have to have equally many of them

    def __init__(self, rank: Rank, device: torch.device) -> None:
        super().__init__(rank, device)
        self.gradient_factor = float(rank.world_size)

    def groups(self, micro_batches: Sequence[MicroBatch]) -> Iterable[Sequence[MicroBatch]]:
        most = torch.tensor(len(micro_batches), device=self.device)
        distributed.all_reduce(most, distributed.ReduceOp.MAX)
        idle = moved(idle_batch(), self.device)
        return [[batch] for batch in [*micro_batches, *[idle] * (int(most) - len(micro_batches))]]

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """The strategy has done it in the backward passes."""


class Fsdp2Team(ShardTeam):
    """PyTorch's FSDP2 (`fully_shard`): weights, gradients and optimizer state are shared out by blocks of the model."""

    def shard(self, network: nn.Module) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

        assert isinstance(network, LanguageModelLoss)
        if isinstance(network, FSDPModule):
            return
        mesh = init_device_mesh(self.device.type, (self.rank.world_size,))
        blocks = set(unwrapped(network.model)._no_split_modules or ())
        for module in network.modules():
            if type(module).__name__ in blocks:
                fully_shard(module, mesh=mesh)
        fully_shard(network, mesh=mesh)
        register_fsdp_forward_method(network, "token_losses")

    def trained_state(self, network: nn.Module) -> dict[str, Tensor]:
        network.reshard()  # type: ignore[operator]  # a forward pass leaves the root's weights whole
        return super().trained_state(network)

    def _whole(self, parameter: nn.Parameter) -> Tensor:
        whole: Tensor = parameter.full_tensor()  # type: ignore[attr-defined]
        return whole

    @contextmanager
    def answering(self, network: nn.Module) -> Iterator[None]:
        network.unshard()  # type: ignore[operator]  # what is not in a block: embeddings, last norm, head
        try:
            yield
        finally:
            network.reshard()  # type: ignore[operator]


class DeepSpeedTeam(ShardTeam):
    """DeepSpeed's ZeRO: optimizer state and gradients are shared out, with stage 3 weights too."""

    engine: Callable[[], Any]  # gives the engine, once the strategy has made it

    def loss_sum(self, network: nn.Module, group: Sequence[MicroBatch], trunk: Trunk | None) -> Tensor:
        # DeepSpeed does this where its engine is called, for us once a step; without it stage 3 would keep the gradient
        # of the last micro-batch only.
        self.engine().optimizer.clear_backward_seen_flag()
        return super().loss_sum(network, group, trunk)

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> float:
        return 0.0  # DeepSpeed does it in its step; `norm_after_step` tells

    def norm_after_step(self, norm: float) -> float:
        return float(self.engine().get_global_grad_norm())

    def _whole(self, parameter: nn.Parameter) -> Tensor:
        from deepspeed.utils import safe_get_full_fp32_param

        whole: Tensor = safe_get_full_fp32_param(parameter)
        return whole.view(getattr(parameter, "ds_shape", parameter.shape))
