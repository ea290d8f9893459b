"""The least that any engine has to compute for a step: every distinct prefix once, and the products that takes.

What is counted, forward and backward: the linear layers at each distinct prefix (a node of the trie of the step's
rows), attention's products from each node to itself and what stands before it, the output head only where a label is.
Not counted: norms, activations, the softmax, the optimizer, and any product that is computed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fieldtune.data.encode import Encoded


@dataclass(frozen=True, slots=True)
class Least:
    """tokens: distinct prefixes of the rows. attended: keys that their queries see, added up. labeled: distinct
    prefixes after which some row has a supervised token."""

    tokens: int
    attended: int
    labeled: int


def least(rows: Sequence[Encoded]) -> Least:
    """What a step of these rows has to compute at least."""
    nodes: dict[tuple[int, int], int] = {}  # (parent node, token) -> node; the root is 0
    attended = 0
    labeled: set[int] = set()
    for row in rows:
        node = 0
        for depth, token in enumerate(row.ids.tolist()):
            if depth > 0 and row.trained[depth]:
                labeled.add(node)
            key = (node, token)
            if key not in nodes:
                nodes[key] = len(nodes) + 1
                attended += depth + 1
            node = nodes[key]
    return Least(len(nodes), attended, len(labeled))


@dataclass(frozen=True, slots=True)
class Work:
    """What one token costs in a model: weights of its matrices, in numbers."""

    trained: int  # weights of the linear layers that are trained, output head left out
    frozen: int  # those that are not
    head: int  # weights of the output head
    head_trained: bool
    attention: int  # layers x query heads x head width

    def flops(self, least: Least) -> int:
        """Floating-point operations of a step's matrix products, forward and backward.

        A weight takes part in three products a token (forward, the input's gradient, its own gradient), in two if it
        is frozen; each is a multiplication and an addition. Attention has two products forward and four backward.
        """
        linear = 2 * least.tokens * (3 * self.trained + 2 * self.frozen)
        attention = 2 * 6 * self.attention * least.attended
        head = 2 * least.labeled * self.head * (3 if self.head_trained else 2)
        return linear + attention + head

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def work_of(model: Any) -> Work:
    """The `Work` of a causal language model of transformers, adapters of PEFT included."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    weights = [part.weight for part in model.modules() if isinstance(part, nn.Linear | Conv1D) and part is not head]
    settings = model.config
    head_width = getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads
    return Work(
        trained=_numbers(weight for weight in weights if weight.requires_grad),
        frozen=_numbers(weight for weight in weights if not weight.requires_grad),
        head=head.weight.numel(),
        head_trained=head.weight.requires_grad,
        attention=settings.num_hidden_layers * settings.num_attention_heads * head_width,
    )


def _numbers(weights: Iterable[Any]) -> int:
    return sum(weight.numel() for weight in weights)
