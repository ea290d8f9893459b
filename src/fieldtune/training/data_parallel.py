"""The arithmetic of torch.nn.DataParallel for a network that returns (loss sum, count): exact, on GPUs or CPU threads.

torch's own module gathers outputs and leaves the mean to its caller; its threads forget the type of autocast, and it
needs GPUs. Here a whole micro-batch goes to each replica, and the sums are added on the first device, so the backward
pass of the sum adds the replicas' gradients up in the one set of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from copy import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fieldtune.data.batches import MicroBatch, moved


def summed_over_replicas(network: nn.Module, batches: Sequence[MicroBatch], devices: Sequence[torch.device]) -> Tensor:
    """The loss summed over micro-batches, one a device at most; a tensor on the first device."""
    if len(batches) > len(devices):
        raise ValueError(f"{len(batches)} micro-batches for {len(devices)} devices")
    used, kind = devices[: len(batches)], devices[0].type
    autocast = torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), False)
    replicas = [replica(network, device) for device in used]
    with ThreadPoolExecutor(len(used)) as threads:
        sums = threads.map(partial(_forward, autocast, torch.is_grad_enabled()), replicas, batches, used)
        return torch.stack([loss_sum.to(devices[0]) for loss_sum in sums]).sum()


def _forward(
    autocast: torch.autocast, gradients: bool, network: nn.Module, batch: MicroBatch, device: torch.device
) -> Tensor:
    """One replica's loss sum, in a thread of its own: what torch keeps per thread is set again."""
    on_device = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with on_device, torch.set_grad_enabled(gradients), copy(autocast):
        loss_sum: Tensor = network(**moved(batch, device))[0]
    return loss_sum


def replica(network: nn.Module, device: torch.device) -> Any:
    """A copy of a network on a device whose weights are made from the network's, so that gradients reach those.

    As in torch.nn.parallel.replicate, weights of a replica are plain tensors, not parameters.
    """
    copies: dict[nn.Module, Any] = {
        module: module._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        for module in network.modules()
    }
    tensors: dict[Tensor, Tensor] = {}
    for module, twin in copies.items():
        for name, child in module._modules.items():
            twin._modules[name] = None if child is None else copies[child]
        for name, parameter in module._parameters.items():
            if parameter is None:
                twin._parameters[name] = None
                continue
            if parameter not in tensors:  # a view where it is already: no parameter, but the same memory
                tensors[parameter] = parameter.view_as(parameter).to(device)
            setattr(twin, name, tensors[parameter])
        for name, buffer in module._buffers.items():
            twin._buffers[name] = None if buffer is None else buffer.to(device)
    return copies[network]
