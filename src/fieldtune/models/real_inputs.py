"""In a trace on fake tensors: what is computed of real tensors alone is really computed.

A vision tower asks its inputs for numbers: which tiles are empty, how many patches a picture has. Fake tensors have
none. Pixels and grids are there, small beside a step's activations; where they meet a weight, which is fake, the result
is fake too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RealStaysReal(TorchDispatchMode):
    """To be entered within a `FakeTensorMode` that allows inputs that are not fake."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if any(isinstance(leaf, FakeTensor) for leaf in tree_leaves((args, given))):
            return func(*args, **given)
        with unset_fake_temporarily():
            return func(*args, **given)


@contextmanager
def looking_really(inner: Any) -> Iterator[None]:
    """In here a model that sees looks at real pixels by fake weights."""
    owners = {
        "get_image_features": inner,
        "get_video_features": inner,
        "pack_image_features": getattr(inner, "model", None),  # of kept looks
    }
    names = [name for name, owner in owners.items() if hasattr(owner, name)]

    def really(look: Any) -> Any:
        def looked(*args: Any, **kwargs: Any) -> Any:
            with RealStaysReal():
                return look(*args, **kwargs)

        return looked

    for name in names:
        setattr(owners[name], name, really(getattr(owners[name], name)))
    try:
        yield
    finally:
        for name in names:
            delattr(owners[name], name)  # the class's own is there again


def pixels(batches: Any) -> list[Tensor]:
    """The real inputs of the pictures of some micro-batches, None among them."""
    return [one for batch in batches if batch and batch["media"] for one in batch["media"]["inputs"].values()]
