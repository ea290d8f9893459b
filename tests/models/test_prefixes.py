"""What is kept of earlier prompts: logits as without it, the longest beginning, no more than there is room for."""

from __future__ import annotations

import pytest
import torch

from fieldtune.models.decode import Prompt
from fieldtune.models.prefixes import LEAST, Prefixes
from tests.models.tiny import tiny_gpt2, tiny_llama


def passed(model: torch.nn.Module, ids: list[int], prefixes: Prefixes) -> tuple[int, torch.Tensor]:
    """How many tokens were taken over, and the logits of the next one."""
    prompt = Prompt(ids)
    taken = prefixes.begin(prompt)
    logits = None
    while logits is None:
        logits = prompt.advance(model, 7)
    prefixes.keep(prompt)
    return taken, logits


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_logits_are_those_without(make: type) -> None:
    model = make().eval()
    head = list(range(1, 31))
    rows = [[*head, 40, 41], [*head, 42], head, [*head, 40, 41, 43, 44], [*head, 40, 41]]
    prefixes = Prefixes(1000)
    found = [passed(model, ids, prefixes) for ids in rows]
    # Of a prompt that is known in full the last token is passed, for the logits that follow it.
    assert [taken for taken, _ in found] == [0, 30, 29, 32, 31]
    for ids, (_, logits) in zip(rows, found, strict=True):
        torch.testing.assert_close(logits, passed(model, ids, Prefixes(0))[1], rtol=1e-5, atol=1e-5)


def test_room_is_kept_and_what_was_used_last_stays() -> None:
    model = tiny_gpt2().eval()
    first, second, third = (list(range(start, start + 30)) for start in (0, 30, 60))
    prefixes = Prefixes(70)
    for ids in (first, second, first, third):  # the third takes the place of the second
        passed(model, ids, prefixes)
        assert prefixes.tokens <= 70
    assert [passed(model, ids, prefixes)[0] for ids in (first, third)] == [29, 29]
    assert passed(model, second, prefixes)[0] == 0


def test_one_that_goes_on_takes_the_place_of_what_it_begins_with() -> None:
    model, prefixes = tiny_gpt2().eval(), Prefixes(1000)
    for length in (20, 40, 60, 30):
        passed(model, list(range(length)), prefixes)
    assert prefixes.tokens == 60


def test_a_long_prompt_is_kept_in_part_and_a_short_one_not_at_all() -> None:
    model, prefixes = tiny_gpt2().eval(), Prefixes(25)
    passed(model, list(range(LEAST - 1)), prefixes)
    assert prefixes.tokens == 0
    passed(model, list(range(60)), prefixes)
    assert prefixes.tokens == 25 and passed(model, list(range(60)), prefixes)[0] == 25
    off = Prefixes(0)
    assert [passed(model, list(range(60)), off)[0] for _ in range(2)] == [0, 0]
