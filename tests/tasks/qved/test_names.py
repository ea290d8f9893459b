"""Exercise names out of labels and paths, and their finding in answers."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from fieldtune.tasks.qved.names import from_path, key, named_in, normal, parts_of


@pytest.mark.parametrize(
    ("path", "exercise"),
    [
        ("squat/0001.mp4", "squat"),
        ("QEVD/Jumping_Jacks/0001.mp4", "jumping jacks"),
        ("cat-cow/00012.mp4", "cat-cow"),
        ("videos/00012_cat-cow_003.mp4", "cat-cow"),
        ("./00012_cat-cow_003.mp4", "cat-cow"),
        ("00012_cat_cow_003.mp4", "cat cow"),
        ("push-up-003.mp4", "push-up"),
        ("clips/high_knees_take2.mp4", "high knees"),
        ("train/squat.v1.mp4", "squat"),
        ("./00000000.mp4", ""),
        ("videos/00000000.mp4", ""),
        ("2024/00000000.mp4", ""),
    ],
)
def test_the_exercise_of_a_path(path: str, exercise: str) -> None:
    assert from_path(PurePath(path)) == exercise


@pytest.mark.parametrize(
    ("label", "parts"),
    [
        ("squat - shallow depth", ("squat", "shallow depth")),
        ("cat-cow - back stays flat", ("cat-cow", "back stays flat")),
        (
            "cat-cow pose - User's back - the upper part - is flat",
            ("cat-cow pose", "User's back - the upper part - is flat"),
        ),
        ("Push-ups- hips sag", ("push-ups", "hips sag")),
        ("cat-cow", ("", "cat-cow")),
        ("armcrosschest - left", ("deltoid stretch", "left")),
    ],
)
def test_a_label_is_cut_at_its_dash_and_never_at_a_hyphen(label: str, parts: tuple[str, str]) -> None:
    assert parts_of(label) == parts


def test_spellings_of_one_name() -> None:
    assert normal(" Jumping_Jacks ") == "jumping jacks"
    assert len({key(name) for name in ("Push-Up", "push_up", "pushup", "push up")}) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("That was a squat.", {"squat"}),
        ("Three SQUATS in a row", {"squat"}),
        ("squatting is hard", set()),
        ("a jump squat, well done", {"jump squat"}),
        ("pushups and push-ups", {"push-up"}),
        ("cat cow, cat-cow", {"cat-cow"}),
        ("a squat and a jump squat", {"squat", "jump squat"}),
        ("arm circle to the front", {"arm circles"}),
        ("", set()),
    ],
)
def test_names_in_an_answer(text: str, found: set[str]) -> None:
    assert named_in(text, ["squat", "jump squat", "push-up", "cat-cow", "arm circles"]) == found
