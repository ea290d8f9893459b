"""The gradient of one optimizer step: that of the mean loss over the supervised tokens of its whole window."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fieldtune.data.batches import Window
from fieldtune.models.tree_attention import Trunk
from fieldtune.training.team import Team


def backward_window(
    network: nn.Module, window: Window, backward: Callable[[Tensor], object], team: Team | None = None
) -> Tensor:
    """Run `backward` on the parts of a window's mean loss; returns its loss sum on this process (nats, fp64).

    The trunk's pass comes first; its backward, with the gradients that the micro-batches sent to it, comes last.
    """
    team = team or Team()
    share = team.gradient_factor / max(1, window["supervised"])  # 0: no row of this step can be read any more
    total = torch.zeros((), dtype=torch.float64)
    trunk, of_trunk = None, None
    if window["trunk"] is not None:
        trunk = Trunk()
        of_trunk, _ = network(**window["trunk"], keep=trunk)
        total += of_trunk.detach().double().cpu()
    for group in team.groups(window["micro_batches"]):
        loss_sum = team.loss_sum(network, group, trunk)
        backward(loss_sum * share)
        total += loss_sum.detach().double().cpu()
    if trunk is not None and of_trunk is not None:
        backward(trunk.graft(of_trunk) * share)
    return total
