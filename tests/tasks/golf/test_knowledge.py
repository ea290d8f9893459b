from __future__ import annotations

from pathlib import Path

import pytest

from fieldtune.errors import UserError
from fieldtune.records import Example
from fieldtune.tasks.golf.config import Data
from fieldtune.tasks.golf.knowledge import knowledge_at, load_knowledge
from fieldtune.tasks.golf.task import TASK
from tests.tasks.golf.folders import write_knowledge


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_folder_of_ones_own_is_read(tmp_path: Path) -> None:
    knowledge = load_knowledge(write_knowledge(tmp_path / "mine"))
    area = knowledge.areas["balance"]
    assert list(knowledge.areas) == ["balance"]
    assert [drill.name for drill in area.faults[1].drills] == ["Stork Stand Drill", "Narrow Plank Drill"]
    assert area.links["consistency"] == ("Weak consistency shakes the base.", "Strong consistency steadies it.")


def test_rows_from_a_folder_of_ones_own_are_scored_by_it(tmp_path: Path) -> None:
    folder = write_knowledge(tmp_path / "mine")
    data = Data(count=6, knowledge=str(folder))
    rows = [row for row in TASK.examples(data, 1) if isinstance(row, Example)]
    assert len(rows) == 6
    assert {row.meta["area"] for row in rows} == {"balance"}
    assert all(set(TASK.score(row, row.answer).values.values()) == {1.0} for row in rows)


def test_every_broken_file_is_named_in_one_error(tmp_path: Path) -> None:
    folder = write_knowledge(tmp_path / "mine")
    (folder / "balance" / "overview.md").write_text("")
    edit(folder / "balance" / "faults.md", "drills: [stork]", "drills: [flamingo]")
    edit(folder / "balance" / "cues.md", "feels: [Feel", "feels: {Feel")
    with pytest.raises(UserError) as caught:
        load_knowledge(folder)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "overview.md: empty" in lines[0]
    assert "cues.md: YAML error in line 4" in lines[1]
    assert "faults.md: fault toes: drill flamingo is not in drills.md; it has stork, plank" in lines[2]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("cues", "---\nkind", "kind", "no front matter"),
        ("cues", "kind: cues", "kind: hints", "kind is hints; a cues.md has kind: cues"),
        ("drills", "area: balance", "area: putting", "area is putting; allowed: setup_quality"),
        ("faults", "area: balance", "area: consistency", "area is consistency, but overview.md beside it says balance"),
        ("overview", "why:", "reasons:", "why is missing"),
        ("cues", "progress: [Count held finishes.]", "progress: []", "progress has 0 entries; at least 1"),
        ("overview", "  minor: [", "  small: [", "bands: small is not allowed; allowed: major, moderate, minor"),
        ("overview", "  consistency: [", "  rhythm: [", "links: rhythm is not allowed"),
        ("drills", "    dose: 2 sets of 10 swings, 3 days a week\n", "", "drill plank: dose is missing"),
        ("drills", "id: plank", "id: stork", "drill stork is there twice"),
        ("drills", "Narrow Plank Drill", "Narrow Plank", "must end with 'Drill'"),
        ("faults", "shows: [The heels lift early.]", "shows: [{a: b}]", "fault toes: shows has an entry that is not"),
        ("faults", "drills: [stork]", "drills: []", "fault toes: drills must be a list of drill ids"),
        ("cues", "Stay tall.", "Your score is 45%.", "scores are said by the program"),
        ("cues", "Stay tall.", "Sway is a major issue.", "severities and scores are said by the program"),
        ("cues", "Stay tall.", "Stay tall", "does not end with a full stop"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    folder = write_knowledge(tmp_path / "mine")
    edit(folder / "balance" / f"{file}.md", old, new)
    with pytest.raises(UserError) as caught:
        load_knowledge(folder)
    assert f"{file}.md: " in str(caught.value)
    assert message in str(caught.value)


def test_too_few_drills(tmp_path: Path) -> None:
    folder = write_knowledge(tmp_path / "mine")
    drills = folder / "balance" / "drills.md"
    text = drills.read_text()
    drills.write_text(text[: text.index("  - id: plank")] + "---\n")
    with pytest.raises(UserError, match=r"drills\.md: drills has 1 entries; at least 2"):
        load_knowledge(folder)


def test_a_missing_file_and_text_in_another_encoding(tmp_path: Path) -> None:
    folder = write_knowledge(tmp_path / "mine")
    (folder / "balance" / "cues.md").unlink()
    (folder / "balance" / "drills.md").write_bytes(b"---\nkind: drills \xff\n---\n")
    with pytest.raises(UserError, match=r"drills\.md: cannot be read as UTF-8(.|\n)*cues\.md: missing"):
        load_knowledge(folder)


def test_one_area_twice_and_one_drill_name_in_two_areas(tmp_path: Path) -> None:
    folder = write_knowledge(tmp_path / "mine")
    write_knowledge(tmp_path / "more")
    (tmp_path / "more" / "balance").rename(folder / "steadiness")
    with pytest.raises(UserError, match="a second folder for the area balance"):
        load_knowledge(folder)
    for path in (folder / "steadiness").iterdir():
        edit(path, "area: balance", "area: consistency")
    edit(folder / "steadiness" / "overview.md", "  consistency: [", "  balance: [")
    with pytest.raises(UserError, match="the name Stork Stand Drill is taken by balance"):
        load_knowledge(folder)


def test_no_area_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no area found"):
        load_knowledge(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        load_knowledge(tmp_path / "nowhere")


def test_the_shipped_one_is_read_once() -> None:
    assert knowledge_at(None) is knowledge_at(None)
    assert len(knowledge_at(None).areas) == 8
