from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fieldtune.errors import UserError
from fieldtune.records import Example, Message, Rejected
from fieldtune.sources.tabular import read_rows

CHAT = {"messages": [{"role": "user", "content": "Why slice?"}, {"role": "assistant", "content": "Open face."}]}
ALPACA = {"instruction": "Explain.", "input": "A slice", "output": "Open face."}


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def examples(path: Path) -> list[Example]:
    rows = list(read_rows(path, "club"))
    assert all(isinstance(row, Example) for row in rows), rows
    return [row for row in rows if isinstance(row, Example)]


def rejected(path: Path) -> list[Rejected]:
    return [row for row in read_rows(path, "club") if isinstance(row, Rejected)]


def test_chat_lines(tmp_path: Path) -> None:
    own = CHAT | {"id": "x", "group": 7, "meta": {"area": "face"}}
    first, second = examples(write(tmp_path, "a.jsonl", lines(CHAT, own)))
    assert first == Example(
        "club-000001", (Message("user", ("Why slice?",)), Message("assistant", ("Open face.",))), "club", "club-000001"
    )
    assert (second.id, second.group, second.meta) == ("x", "7", {"area": "face"})


def test_sharegpt_lines(tmp_path: Path) -> None:
    turns = [("system", "Be brief."), ("human", "Hi"), ("gpt", "Hello"), ("human", "Why?"), ("gpt", "So.")]
    row = {"conversations": [{"from": speaker, "value": value} for speaker, value in turns]}
    (example,) = examples(write(tmp_path, "a.ndjson", lines(row)))
    assert [message.role for message in example.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert example.answer == "So."


@pytest.mark.parametrize(("name", "form"), [("a.jsonl", lines), ("a.json", lambda *rows: json.dumps(rows))])
def test_alpaca(tmp_path: Path, name: str, form: Any) -> None:
    bare = {"instruction": "Explain.", "input": "", "output": "Yes.", "system": "Be brief."}
    full, short = examples(write(tmp_path, name, form(ALPACA, bare)))
    assert full.messages == (Message("user", ("Explain.", "A slice")), Message("assistant", ("Open face.",)))
    assert short.messages[:2] == (Message("system", ("Be brief.",)), Message("user", ("Explain.",)))


@pytest.mark.parametrize("header", ["Instruction,INPUT,output", "prompt,input,Response", "question,input,answer"])
def test_csv(tmp_path: Path, header: str) -> None:
    path = write(
        tmp_path, "a.CSV", f'\ufeff{header},group,system\r\n"Say, ""now""",x,"two\r\nlines",g1,Be brief.\r\nb,,c,,\r\n'
    )
    first, second = examples(path)
    assert first.messages[1] == Message("user", ('Say, "now"', "x"))
    assert (first.answer, first.group, first.messages[0].text) == ("two\r\nlines", "g1", "Be brief.")
    assert (second.id, second.group, len(second.messages)) == ("club-000002", "club-000002", 2)


def test_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    assert len(examples(write(tmp_path, "a.jsonl", "\ufeff" + lines(CHAT) + "\n  \n" + lines(CHAT)))) == 2
    assert len(examples(write(tmp_path, "a.json", "\ufeff" + json.dumps([ALPACA])))) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"{broken", "not JSON (Expecting property name enclosed in double quotes, column 2)"),
        (b"[" * 100_000, "not JSON (nested too deeply)"),
        (b'{"instruction": "caf\xe9", "output": "x"}', "not UTF-8 (byte 21 of the line)"),
        (b"[1]", "a row must be a JSON object, got list"),
        (b"{}", "unknown form (keys: no keys)"),
        (b'{"instruction": "a", "output": 3}', "'output' must be a text, got int"),
        (b'{"instruction": "a", "output": " "}', "'output' is empty"),
        (b'{"instruction": "", "input": "b", "output": "c"}', "'instruction' is empty"),
        (b'{"messages": []}', "'messages' must be a non-empty list"),
        (b'{"messages": [{"role": "user", "content": "a"}]}', "the last message must be of role 'assistant'"),
        (b'{"conversations": [{"from": "bot", "value": "a"}]}', "turn 1 is from 'bot'; allowed: system, user"),
        (b'{"conversations": [{"from": "human"}]}', "turn 1 must be an object"),
        (b'{"instruction": "a", "output": "b", "meta": 1}', "'meta' must be an object"),
        (b'{"instruction": "a", "output": "b", "id": true}', "'id' must be a text or a whole number"),
        (b'{"instruction": "a", "output": "b", "id": "club-000001"}', "'club-000001' is used by an earlier row"),
        (b'{"instruction": "a", "output": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_corrupt_lines_are_left_out_and_the_rest_is_kept(tmp_path: Path, row: bytes, reason: str) -> None:
    good = lines(CHAT).encode()
    path = write(tmp_path, "a.jsonl", good + b"\n" + row + b"\n" + good)
    first, bad, last = read_rows(path, "club")
    assert isinstance(bad, Rejected) and reason in bad.reason and "\n" not in bad.reason
    assert (bad.path, bad.line, bad.text) == (str(path), 3, row.decode("utf-8", "replace")[:500])
    assert isinstance(first, Example) and isinstance(last, Example) and last.id == "club-000003"


def test_system_key_beside_a_system_message(tmp_path: Path) -> None:
    row = CHAT | {"system": "a", "messages": [{"role": "system", "content": "b"}, *CHAT["messages"]]}
    assert "both 'system'" in rejected(write(tmp_path, "a.jsonl", lines(row)))[0].reason


def test_corrupt_items_of_a_list_are_said_by_number(tmp_path: Path) -> None:
    (bad,) = rejected(write(tmp_path, "a.json", json.dumps([ALPACA, {"instruction": "a", "output": None}])))
    assert (bad.line, bad.reason) == (2, "item 2: 'output' is empty: there is nothing to learn")


def test_corrupt_csv_rows(tmp_path: Path) -> None:
    body = b'question,answer\nq1,"two\nlines"\nq2\nq3,caf\xe9\n\nq4,\n"q"5,a\nq6,a6\nq7,"open\n'
    rows = list(read_rows(write(tmp_path, "a.csv", body), "club"))
    assert [row.id for row in rows if isinstance(row, Example)] == ["club-000001", "club-000006"]
    bad = [row for row in rows if isinstance(row, Rejected)]
    assert [row.line for row in bad] == [4, 5, 7, 8, 10]
    for row, reason in zip(bad, ("1 cells", "not UTF-8", "'answer' is empty", "not CSV", "not CSV"), strict=True):
        assert reason in row.reason
    assert [row.text for row in bad][:2] == ["q2", "q3,caf\ufffd"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "the file is empty"),
        ("a.csv", "\ufeff\n\n", "the file is empty"),
        ("a.txt", "x", r"the suffix '.txt' is unknown; allowed: .jsonl"),
        ("a.json", "{broken", "not JSON .line 1: "),
        ("a.json", lines(ALPACA, ALPACA), "rename a JSON Lines file to .jsonl"),
        ("a.json", "{}", "holds JSON of type dict"),
        ("a.json", "[]", "holds an empty list"),
        ("a.json", b'["\xff"]', "not UTF-8 .byte 3"),
        ("a.csv", "a;b\n1;2\n", "the header is 'a;b'; allowed: instruction"),
        ("a.csv", "question,answer,answer\n", "answer twice"),
        ("a.csv", '"question\n', "the header is not CSV"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        list(read_rows(write(tmp_path, name, content), "club"))
    assert "\n" not in str(error.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        read_rows(tmp_path / "a.csv", "club")
    (tmp_path / "b.json").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        read_rows(tmp_path / "b.json", "club")
