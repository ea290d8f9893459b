"""The coach's addresses: over a scripted model, and through `fieldtune serve` with a run of one step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from fieldtune import fitness_commands
from fieldtune.errors import UserError
from fieldtune.records import Message
from fieldtune.runs import Run, find_run
from fieldtune.serving.app import make_app
from fieldtune.serving.engine import QueueFull
from fieldtune.serving.fitness_api import fitness_router, fitness_routes
from fieldtune.serving.predictor import PromptTooLong
from fieldtune.store.database import Database, open_database
from fieldtune.tasks.fitness.hybrid.coach import HybridCoach
from tests.end_to_end.conftest import made_once
from tests.hybrid.athletes import MESSAGE, RIGHT_WEEK, TODAY, Scripted, add, coach, plan_of, shorter
from tests.serving.conftest import make_noise_run, serving

WISH = {"request": "I have only 45 minutes tomorrow.", "today": str(TODAY)}
A = "/fitness/athletes"


def client(database: Database, *answers: Any, key: str = "") -> TestClient:
    return of(database, coach(database, *answers), key)


def of(database: Database, asked: HybridCoach, key: str = "") -> TestClient:
    return TestClient(make_app([fitness_router(database, asked)], key=key), base_url="http://localhost")


def test_a_change_over_the_api(database: Database) -> None:
    number = add(database)
    api = client(database, shorter(), shorter())
    assert api.get(A).json() == {
        "athletes": [{"id": number, "name": "Mara", "primary_sport": "running", "plan_version": 1}]
    }
    day = {"today": str(TODAY)}
    context = api.get(f"{A}/{number}/context", params=day).json()["context"]
    assert [item["id"] for item in context["upcoming_workouts"]] == ["w1", "w2", "w3"]
    week = api.get(f"{A}/{number}/context", params={**day, "kind": "weekly_plan"}).json()["context"]
    assert week["week_start"] == "2026-03-09"
    plan = api.get(f"{A}/{number}/plan", params=day).json()["workouts"]
    tried = api.post(f"{A}/{number}/modifications", json={**WISH, "dry_run": True}).json()
    assert tried["verdict"] == "dry_run" and tried["before"] == plan and tried["after"][0]["minutes"] == 45
    assert api.get(f"{A}/{number}/plan", params=day).json()["workouts"] == plan
    done = api.post(f"{A}/{number}/modifications", json=WISH).json()
    assert done["verdict"] == "applied" and done["answer"]["athlete_message"] == MESSAGE and done["reasons"] == []
    assert api.get(f"{A}/{number}/plan", params=day).json()["workouts"] == done["after"] != plan
    back = api.post(f"/fitness/changes/{done['id']}/undo").json()
    assert back["verdict"] == "applied" and back["after"] == plan and back["answer"] is None
    audit = api.get(f"{A}/{number}/audit").json()["changes"]
    assert [(row["kind"], row["verdict"]) for row in audit] == [
        ("undo", "applied"),
        ("plan_modification", "applied"),
        ("plan_modification", "dry_run"),
    ]
    assert audit[1]["answers"] == [json.dumps(shorter())] and audit[1]["at"].endswith("+00:00")
    assert len(api.get(f"{A}/{number}/audit", params={"most": 1}).json()["changes"]) == 1


def test_a_week_and_a_refusal_over_the_api(memory: Database) -> None:
    number = add(memory)
    api = client(memory, RIGHT_WEEK, "no", "no")
    goals = {"goals": "Get fit.", "constraints": "Not on Sunday.", "today": str(TODAY)}
    assert api.post(f"{A}/{number}/weekly_plans", json=goals).json()["verdict"] == "applied"
    before = plan_of(memory, number)
    refused = api.post(f"{A}/{number}/modifications", json=WISH)
    assert refused.status_code == 200 and refused.json()["verdict"] == "refused" and len(refused.json()["reasons"]) == 2
    assert refused.json()["answer"]["decision"] == "no_change" and plan_of(memory, number) == before


def test_what_the_api_refuses(memory: Database) -> None:
    number = add(memory)
    api = client(memory)
    wrong: list[tuple[str, str, Any, int, str]] = [
        ("POST", f"{A}/9/modifications", WISH, 404, "there is no athlete 9"),
        ("GET", f"{A}/9/audit", None, 404, "there is no athlete 9"),
        ("GET", f"{A}/0/plan", None, 400, "greater than or equal to 1"),
        ("GET", f"{A}/{10**30}/plan", None, 400, "less than or equal to"),
        ("GET", f"{A}/{number}/context?kind=x", None, 400, "kind: Input should be 'coaching'"),
        ("GET", f"{A}/{number}/context?today=1999-01-01", None, 400, "today=1999-01-01 is before the log"),
        ("GET", f"{A}/{number}/context?today=x", None, 400, "today: Input should be a valid date"),
        ("POST", f"{A}/{number}/modifications", {**WISH, "request": " "}, 400, "feedback is empty"),
        ("POST", f"{A}/{number}/modifications", {**WISH, "wish": "x"}, 400, "wish is not supported"),
        ("POST", f"{A}/{number}/weekly_plans", WISH, 400, "goals: Field required"),
        ("POST", "/fitness/changes/77/undo", None, 404, "there is no change 77"),
    ]
    for method, address, body, status, said in wrong:
        answer = api.request(method, address, json=body)
        error = answer.json()["error"]
        assert answer.status_code == status and said in error["message"], error
        assert error["type"] == "invalid_request_error" and "\n" not in error["message"]
    locked = client(memory, shorter(), key="k")
    assert locked.get(A).status_code == 401
    assert locked.get(A, headers={"authorization": "Bearer k"}).status_code == 200


def test_what_goes_wrong_on_the_way(memory: Database, tmp_path: Path) -> None:
    number = add(memory)

    def failing(error: Exception) -> TestClient:
        def ask(turns: Sequence[Message], kind: str) -> str:
            raise error

        return of(memory, HybridCoach(memory, ask))

    for error, status, code in (
        (QueueFull(), 429, "queue_full"),
        (PromptTooLong("9,000 tokens"), 400, "context_length_exceeded"),
        (UserError("a special token"), 400, None),
    ):
        answer = failing(error).post(f"{A}/{number}/modifications", json=WISH)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    inner = Scripted(shorter())

    def meanwhile(turns: Sequence[Message], kind: str) -> str:
        coach(memory, shorter(to=50, tss=66)).modify(number, "Less.", today=TODAY)
        return inner(turns, kind)

    api = of(memory, HybridCoach(memory, meanwhile))
    conflict = api.post(f"{A}/{number}/modifications", json=WISH)
    assert conflict.status_code == 409 and conflict.json()["error"]["code"] == "conflict"
    refused = api.post("/fitness/changes/1/undo")  # the first of those that failed above
    assert refused.status_code == 409 and "there is nothing to undo" in refused.json()["error"]["message"]
    gone = open_database("postgresql://me:secret@127.0.0.1:9/x")
    answer = of(gone, coach(gone)).get(A)
    assert answer.status_code == 503 and "secret" not in answer.text


def _make_run(folder: Path) -> None:
    few = ("data=fitness", "data.count=12", "data.rows_per_athlete=2", "trainer.micro_batch_size=1")
    make_noise_run(folder, 8192, *few, "model.context_length=8192", "evaluation.max_new_tokens=30")


@pytest.fixture(scope="module")
def fitness_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return find_run(made_once(tmp_path_factory, "fitness-run", _make_run) / "outputs", "latest")


@pytest.mark.parametrize("constrained", ["on", pytest.param("off", marks=pytest.mark.slow)])
def test_through_the_real_server(fitness_run: Run, tmp_path: Path, constrained: str) -> None:
    """Noise held to the schema begins as the schema wants, and is refused with a reason all the same."""
    path = tmp_path / "coach.db"
    database = open_database(str(path))
    database.migrate()
    number = add(database)
    before = plan_of(database, number)
    with serving(fitness_run, f"database={path}", f"constrained={constrained}", key="k") as served:
        bearer = {"authorization": "Bearer k"}
        assert httpx.get(f"{served.url}{A}").status_code == 401
        with httpx.Client(base_url=served.url, headers=bearer, timeout=600) as api:
            answer = api.post(f"{A}/{number}/modifications", json=WISH).json()
            assert answer["verdict"] == "refused" and len(answer["reasons"]) >= 2, answer
            said = api.get(f"{A}/{number}/audit").json()["changes"][0]
    assert said["model"] == "tiny" and len(said["answers"]) == 2 and plan_of(database, number) == before
    assert all(text.startswith("{") for text in said["answers"]) == (constrained == "on"), said["answers"]
    database.close()


def test_asked_in_the_terminal(fitness_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "coach.db"
    database = open_database(str(path))
    database.migrate()
    number = add(database)
    words = (f"database={path}", f"athlete={number}", f"run={fitness_run.folder}", f"today={TODAY}")
    fitness_commands.main(["ask", *words, f"request={WISH['request']}", "constrained=off"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "change 1: refused" and said[1].startswith("  answer 1: ")
    assert said[-1].startswith("I could not make a safe change")
    database.close()


def test_a_server_without_a_coach(chat_run: Run, fitness_run: Run, tmp_path: Path) -> None:
    for run, where, said in (
        (chat_run, "x.db", "database= is for a run of data=fitness; .* is one of data=jsonl"),
        (fitness_run, str(tmp_path / "x.db"), "is not a file; give: fieldtune fitness migrate"),
    ):
        with pytest.raises(UserError, match=said):
            fitness_routes(str(run.folder), where, True)
