from __future__ import annotations

from typing import Any

import pytest

from fieldtune.errors import UserError
from fieldtune.tasks.golf.config import Form
from fieldtune.tasks.golf.swing import AREAS, INSTRUCTIONS, Swing, severity, swing_prompt


def a_swing(**changes: Any) -> dict[str, Any]:
    scores = {key: round(0.5 + 0.05 * number, 2) for number, key in enumerate(AREAS)}
    scores["tempo_rhythm"] = 0.31
    swing = {"area": "setup_quality", "score": 0.5, "target": 0.7, "scores": scores, "swing_type": "power_swing"}
    return {**swing, **changes}


def test_the_prompt() -> None:
    instruction, text = swing_prompt(Swing.from_mapping(a_swing()), Form.document, wording=len(INSTRUCTIONS))
    assert instruction == INSTRUCTIONS[0]
    assert text == (
        "Area: setup_quality\nCurrent Score: 0.50\nTarget Score: 0.70\n"
        "All Quality Scores: setup_quality 0.50, tempo_rhythm 0.31, weight_shift 0.60, body_rotation 0.65, "
        "impact_quality 0.70, followthrough 0.75, balance 0.80, consistency 0.85\nSwing Type: power_swing"
    )


def test_the_short_prompt_has_the_weakest_other_score() -> None:
    _, text = swing_prompt(Swing.from_mapping(a_swing()), Form.short)
    assert text.splitlines()[3] == "Other Scores: tempo_rhythm 0.31"


@pytest.mark.parametrize("form", [Form.document, Form.full])
def test_wordings_begin_alike_and_tell_the_forms_apart(form: Form) -> None:
    swing = Swing.from_mapping(a_swing())
    wordings = {swing_prompt(swing, form, number)[0] for number in range(12)}
    assert len(wordings) == 6
    assert all(wording.startswith("Provide personalized golf swing feedback") for wording in wordings)
    assert (wordings == set(INSTRUCTIONS)) == (form is Form.document)


def test_the_area_itself_may_be_left_out_of_the_scores() -> None:
    raw = a_swing()
    del raw["scores"]["setup_quality"]
    swing = Swing.from_mapping(raw)
    assert swing.scores["setup_quality"] == 0.5
    assert Swing.from_mapping(swing.to_json()) == swing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"area": "putting"}, "area is 'putting'; allowed: setup_quality, tempo_rhythm"),
        ({"area": ["balance"]}, "area is ['balance']; allowed"),
        ({"score": 45}, "score is 45; give a number from 0 to 1, as 0.45 for 45%"),
        ({"score": True}, "score is True; give a number"),
        ({"score": float("nan")}, "score is nan; give a number"),
        ({"target": "0.7"}, "target is '0.7'; give a number"),
        ({"target": 0.5}, "target 0.5 is not above score 0.5; give a target above it"),
        ({"target": 0.501}, "target 0.5 is not above score 0.5"),
        ({"scores": [0.5]}, "scores must be an object"),
        ({"scores": {"balance": 0.5}}, "scores has no tempo_rhythm, weight_shift"),
        ({"scores": {"putting": 0.5}}, "scores has unknown area putting; allowed"),
        ({"scores": {**dict.fromkeys(AREAS, 0.6)}}, "score is 0.5 but scores.setup_quality is 0.6"),
        ({"scores": {**dict.fromkeys(AREAS, 0.5), "balance": -1}}, "scores.balance is -1; give a number"),
        ({"swing_type": "hook"}, "swing_type is 'hook'; allowed: power_swing, precision_swing, balanced_swing"),
    ],
)
def test_a_wrong_swing_is_explained_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Swing.from_mapping(a_swing(**changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_keys_and_other_values() -> None:
    with pytest.raises(UserError, match="the swing has no score, swing_type; give all of area"):
        Swing.from_mapping({"area": "balance", "target": 0.5, "scores": {}})
    with pytest.raises(UserError, match="a swing is an object with area"):
        Swing.from_mapping([1])


def test_bands() -> None:
    assert [severity(score) for score in (0, 0.39, 0.40, 0.59, 0.60, 1)] == [
        "major", "major", "moderate", "moderate", "minor", "minor",
    ]  # fmt: skip
