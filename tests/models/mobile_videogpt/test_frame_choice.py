"""Which frames are kept: scores by the definition, and choices that can be seen without computing."""

from __future__ import annotations

import torch

from fieldtune.models.mobile_videogpt.frame_choice import choose_frames, frame_scores


def test_scores_are_the_attention_received() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    found = frame_scores(features)
    for chunk in range(2):
        x = features[chunk].reshape(12, 5)
        attention = torch.stack([torch.softmax(query @ x.T / 5**0.5, 0) for query in x])
        wanted = [attention[:, 4 * frame : 4 * frame + 4].sum() for frame in range(3)]
        torch.testing.assert_close(found[chunk], torch.stack(wanted))
    torch.testing.assert_close(found.sum(1), torch.full((2,), 12.0, dtype=torch.float64))


def test_frames_that_are_looked_at_are_kept_in_the_order_of_time() -> None:
    """Patches along one direction: the longer, the more attention they draw."""
    lengths = torch.tensor([[1.0, 4.0, 2.0, 3.0], [4.0, 3.0, 2.0, 1.0]])
    features = lengths[:, :, None, None] * torch.ones(2, 4, 3, 2)
    assert choose_frames(features, 2).tolist() == [[1, 3], [0, 1]]
    assert choose_frames(features, 2, most_attended=False).tolist() == [[0, 2], [2, 3]]


def test_of_equal_frames_the_earlier_ones_are_kept() -> None:
    assert choose_frames(torch.zeros(1, 8, 2, 4), 4).tolist() == [[0, 1, 2, 3]]


def test_half_precision_is_scored_in_single() -> None:
    features = torch.randn(1, 8, 9, 32).to(torch.bfloat16)
    assert frame_scores(features).dtype == torch.float32
    torch.testing.assert_close(frame_scores(features), frame_scores(features.float()))
