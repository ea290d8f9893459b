"""The prepare stage on people's own files: the same rows in every form, mixtures, faults, planted near-duplicates."""

from __future__ import annotations

import csv
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fieldtune.errors import UserError

from ..stages import lines_of, question_rows, run_here, succeed, write_rows

PAIRS = [
    (str(row["messages"][0]["content"]), str(row["messages"][1]["content"]) + '\nwith "quotes", commas — and ünïcode')
    for row in question_rows(30)
]
SPLITS = ("train", "val", "test")


def prepare(folder: Path, *words: str) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The data set's manifest, and its rows by split."""
    facts = run_here(folder, "prepare", "data=jsonl", "tracking=off", *words).manifest()["data"]
    dataset = Path(facts["folder"])
    manifest: dict[str, Any] = json.loads((dataset / "manifest.json").read_text())
    return manifest, {split: lines_of(dataset / f"{split}.jsonl") for split in SPLITS}


def texts(rows: list[dict[str, Any]]) -> list[list[tuple[str, str]]]:
    return [[(turn["role"], turn["content"]) for turn in row["messages"]] for row in rows]


def test_chat_alpaca_and_csv_give_the_same_rows(tmp_path: Path) -> None:
    chat = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in PAIRS]
    write_rows(tmp_path / "rows.jsonl", chat)
    (tmp_path / "rows.json").write_text(json.dumps([{"instruction": q, "input": "", "output": a} for q, a in PAIRS]))
    with (tmp_path / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("instruction", "output"), *PAIRS])
    made = [prepare(tmp_path, f"data.path={tmp_path / name}") for name in ("rows.jsonl", "rows.json", "rows.csv")]
    for manifest, rows in made:
        assert manifest["rows"] == {"train": 26, "val": 3, "test": 1} and manifest["quarantined"] == 0
        assert {split: texts(rows[split]) for split in SPLITS} == {split: texts(made[0][1][split]) for split in SPLITS}
    assert len({manifest["fingerprint"] for manifest, _ in made}) == 1


def test_a_corrupt_line_is_named_and_kept_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(tmp_path / "rows.jsonl", question_rows(12))
    lines = path.read_text().splitlines()
    lines[4] = '{"messages": [oops'
    lines[7] = '{"messages": [{"role": "user", "content": "no answer"}]}'
    path.write_text("\n".join(lines))
    manifest, rows = prepare(tmp_path, f"data.path={path}")
    assert sum(map(len, rows.values())) == 10 and manifest["quarantined"] == 2
    assert f"{path}:5 is left out: not JSON" in capsys.readouterr().out
    quarantined = lines_of(tmp_path / "datasets" / "jsonl" / manifest["fingerprint"] / "quarantine.jsonl")
    assert [(row["line"], row["text"][:20]) for row in quarantined] == [(5, lines[4][:20]), (8, lines[7][:20])]


def test_a_mixture_has_the_weights_that_were_asked_for(tmp_path: Path) -> None:
    rows = question_rows(100)
    write_rows(tmp_path / "one.jsonl", rows[:60])
    write_rows(tmp_path / "two.jsonl", rows[60:])
    part = f"data.mixture=[{{name: two, path: {tmp_path / 'two.jsonl'}, weight: 1}}]"
    words = [f"data.path={tmp_path / 'one.jsonl'}", "data.weight=3", part, "data.split=[0.8,0.1,0.1]"]
    _, made = prepare(tmp_path, *words)
    counts = [[row["source"] for row in made["train"]].count(name) for name in ("one", "two")]
    assert counts[1] == pytest.approx(counts[0] / 3, abs=1) and counts[0] >= 40
    assert {row["source"] for split in ("val", "test") for row in made[split]} == {"one", "two"}
    ids = [row["id"] for split in SPLITS for row in made[split]]
    assert len(set(ids)) == len(ids) and all(("two/" in row["id"]) == (row["source"] == "two") for row in made["train"])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "rows.jsonl: the file is empty"),
        ("\n  \n", "rows.jsonl: the file is empty"),
        ("{\n[]\n", "no usable row was found; 2 pieces are broken or refused"),
        (
            "".join(json.dumps({"prompt": f"What is {n} plus 3?", "response": "A sum."}) + "\n" for n in range(30)),
            "group",
        ),
    ],
    ids=["empty", "blank", "broken", "alike"],
)
def test_a_file_without_usable_rows_is_one_line(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        run_here(tmp_path, "prepare", "data=jsonl", "tracking=off", f"data.path={path}")
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "datasets").rglob("*.jsonl"))  # nothing half-made stays


def changed(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A golf row as an Alpaca row in which one word or one figure is another."""
    (instruction, facts), output = (
        (part["text"] for part in row["messages"][0]["content"]),
        row["messages"][1]["content"],
    )
    chance = random.Random(number)
    if number % 2:
        places = list(re.finditer(r"\b[a-z]{4,}\b", output))
        place = chance.choice(places)
        output = output[: place.start()] + "gently" + output[place.end() :]
    else:
        place = chance.choice(list(re.finditer(r"0\.\d\d", facts)))
        facts = f"{facts[: place.start()]}0.{chance.randrange(20, 95)}{facts[place.end() :]}"
    return {"id": row["id"], "instruction": instruction, "input": facts, "output": output}


@pytest.mark.parametrize("form", ["golf", "golf_short"])
def test_planted_near_duplicates_stay_with_their_originals(tmp_path: Path, form: str) -> None:
    words = [f"data={form}", "tracking=off", "data.count=200", "data.split=[0.6,0.2,0.2]"]
    dataset = Path(run_here(tmp_path, "prepare", *words).manifest()["data"]["folder"])
    originals = [row for split in SPLITS for row in lines_of(dataset / f"{split}.jsonl")]
    planted = write_rows(tmp_path / "planted.jsonl", (changed(row, n) for n, row in enumerate(originals)))
    part = f"data.mixture=[{{name: planted, path: {planted}}}]"
    facts = run_here(tmp_path, "prepare", *words, part).manifest()["data"]
    assert facts["near_duplicates"]["straddling"] == 0
    held_out = {
        row["id"]: split for split in ("val", "test") for row in lines_of(Path(facts["folder"]) / f"{split}.jsonl")
    }
    together = [held_out.get(row["id"], "train") == held_out.get(f"planted/{row['id']}", "train") for row in originals]
    assert sum(split in ("val", "test") for split in held_out.values()) >= 100
    assert sum(together) >= 0.95 * len(together)


@pytest.mark.slow
def test_a_hundred_thousand_rows_in_bounded_memory(tmp_path: Path) -> None:
    # VmHWM is of this program alone; getrusage's peak would be that of the test process it was forked from, too.
    code = (
        "import sys; from fieldtune import worker; status = worker.main(sys.argv[1:]); "
        "print('peak', open('/proc/self/status').read().split('VmHWM:')[1].split()[0]); sys.exit(status)"
    )
    succeed(tmp_path, "prepare", "data=golf", "tracking=off", "data.count=12", "run_dir=small")
    folder = tmp_path / "large"
    folder.mkdir()
    for name in ("config.yaml", "run.json"):
        text = (tmp_path / "small" / name).read_text()
        (folder / name).write_text(text.replace("count: 12", "count: 100000"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=tmp_path, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    kilobytes = int(done.stdout.split("peak ")[1].split()[0])
    assert kilobytes < 1.2e6
    facts = json.loads((folder / "manifest.json").read_text())["data"]
    assert sum(facts["rows"].values()) == 100_000 and facts["rows"]["train"] == 85_000
    with (tmp_path / facts["folder"] / "train.jsonl").open() as file:
        assert sum(1 for _ in file) == facts["rows"]["train"]
