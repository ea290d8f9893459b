from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fieldtune import tasks
from fieldtune.errors import UserError
from fieldtune.records import Example, Message, Rejected, write_jsonl
from fieldtune.tasks.golf.config import Data, Form
from fieldtune.tasks.golf.scoring import METRICS
from fieldtune.tasks.golf.swing import AREAS, SWING_TYPES
from fieldtune.tasks.golf.task import TASK


def test_it_is_the_task_of_its_name() -> None:
    assert tasks.get("golf") is TASK
    assert tasks.data_schema("golf") is Data
    assert [metric.name for metric in TASK.metrics] == [metric.name for metric in METRICS]
    assert TASK.result_name() == "golf-feedback"


def test_the_export_is_the_alpaca_form(tmp_path: Path) -> None:
    rows = [row for row in TASK.examples(Data(count=5), 1) if not isinstance(row, Rejected)]
    talk = tuple(Message(role, (role,)) for role in ("user", "assistant", "user", "assistant"))
    extra = Example("web-1", talk, "web", "web-1")
    splits = {"train": [*rows[:3], extra], "val": rows[3:], "test": []}
    paths = {split: tmp_path / f"{split}.jsonl" for split in splits}
    for split, items in splits.items():
        write_jsonl(paths[split], (item.to_json() for item in items))
    written = TASK.export(tmp_path, paths)
    assert [path.name for path in written] == [f"golf_feedback_{split}.json" for split in splits]
    train, val, test = (json.loads(path.read_text()) for path in written)
    assert [len(split) for split in (train, val, test)] == [4, 2, 0]
    wanted = dict(zip(("instruction", "input"), rows[0].prompt[0].parts, strict=True), output=rows[0].answer)
    assert train[0] == wanted
    assert train[3] == {"instruction": "user\nassistant\nuser", "input": "", "output": "assistant"}
    assert written[1].read_text() == json.dumps(val, indent=2) + "\n"
    assert not list(tmp_path.glob(".*"))


def test_prompts_of_requests() -> None:
    swing = {
        "area": "balance",
        "score": 0.4,
        "target": 0.6,
        "scores": dict.fromkeys(AREAS, 0.4),
        "swing_type": SWING_TYPES[0],
    }
    (message,) = TASK.prompt(swing, Data(form=Form.short))
    assert message.parts[1].startswith("Area: balance\nCurrent Score: 0.40")
    assert TASK.prompt({"prompt": "Help me."}, Data()) == (Message("user", ("Help me.",)),)
    with pytest.raises(UserError, match="the swing has no area"):
        TASK.prompt({"score": 0.4}, Data())


def test_no_torch_is_imported(root: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'src')\nfrom fieldtune.tasks.golf.task import TASK\n"
        "from fieldtune.tasks.golf.config import Data\nrow = next(TASK.examples(Data(), 1))\n"
        "TASK.score(row, row.answer)\nassert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
