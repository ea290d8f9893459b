"""`/fitness/...`: the hybrid coach over the server's own model and a database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date as Date
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from fieldtune.errors import UserError
from fieldtune.loading import load
from fieldtune.records import Message
from fieldtune.runs import find_run
from fieldtune.serving.app import ApiError
from fieldtune.serving.chat_api import Service
from fieldtune.serving.chat_forms import Form
from fieldtune.serving.engine import QueueFull, Request
from fieldtune.serving.predictor import PromptTooLong
from fieldtune.store.database import Database, Unusable, open_database
from fieldtune.store.fitness import NotThere, reading
from fieldtune.tasks.fitness.hybrid.coach import Ask, HybridCoach, Outcome, undo
from fieldtune.tasks.fitness.hybrid.context import told
from fieldtune.tasks.fitness.schema import Kind, answer_schemas


class Modification(Form):
    """A wish of an athlete's. today: the server's date if it is not given."""

    request: str
    dry_run: bool = False
    today: Date | None = None


class Week(Form):
    """What the next week shall be about."""

    goals: str
    constraints: str = ""
    dry_run: bool = False
    today: Date | None = None


Today = Annotated[Date | None, Query()]
Most = Annotated[int, Query(ge=1, le=1000)]
LARGEST_ID = 2**31 - 1
Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]


def fitness_routes(run: str, where: str, constrained: bool) -> Callable[[Service], Sequence[APIRouter]]:
    """What `server.serve` takes as `more`. `UserError` if the run or the database will not do; no model is loaded."""
    task = load(find_run(Path("outputs"), run).config()).data.task
    if task != "fitness":
        raise UserError(f"database= is for a run of data=fitness; {run} is one of data={task}")
    database = open_database(where).must_be_current()
    return lambda service: [
        fitness_router(database, HybridCoach(database, served_model(service, constrained), service.name))
    ]


def served_model(service: Service, constrained: bool) -> Ask:
    """The server's engine as what answers. constrained: answers are held to the schema of their kind."""
    schemas = answer_schemas() if constrained else {}

    def ask(turns: Sequence[Message], kind: Kind) -> str:
        ids = service.predictor.encode(turns)
        return service.engine.answer(Request(ids, service.predictor.sampling(), (), schemas.get(kind))).text

    return ask


def fitness_router(database: Database, coach: HybridCoach) -> APIRouter:
    """The routes. Their functions wait for the model in threads of their own, not in the server's loop."""
    router = APIRouter(prefix="/fitness")

    @router.get("/athletes")
    def athletes() -> dict[str, Any]:
        with _said(), reading(database) as book:
            return {"athletes": [_athlete(item) for item in book.athletes()]}

    @router.get("/athletes/{athlete}/context")
    def context(athlete: Id, kind: Kind = "plan_modification", today: Today = None) -> dict[str, Any]:
        with _said(), reading(database) as book:
            seen = told(book, athlete, today or Date.today(), kind)
            return {"kind": kind, "context": json.loads(seen.context.model_dump_json(exclude_none=True))}

    @router.get("/athletes/{athlete}/plan")
    def plan(athlete: Id, today: Today = None) -> dict[str, Any]:
        with _said(), reading(database) as book:
            found = book.athlete(athlete)
            workouts = book.workouts(athlete, today or Date.today())
            return {"athlete": _athlete(found), "workouts": [item.to_json() for item in workouts]}

    @router.post("/athletes/{athlete}/modifications")
    def modify(athlete: Id, form: Modification) -> dict[str, Any]:
        with _said():
            day = form.today or Date.today()
            return _outcome(coach.modify(athlete, form.request, today=day, dry_run=form.dry_run))

    @router.post("/athletes/{athlete}/weekly_plans")
    def week(athlete: Id, form: Week) -> dict[str, Any]:
        with _said():
            day = form.today or Date.today()
            return _outcome(coach.plan_week(athlete, form.goals, form.constraints, today=day, dry_run=form.dry_run))

    @router.post("/changes/{change}/undo")
    def take_back(change: Id) -> dict[str, Any]:
        with _said():
            found = undo(database, change)
        if found.change.verdict != "applied":
            raise ApiError(409, found.change.reasons[0], code="not_undone")
        return _outcome(found)

    @router.get("/athletes/{athlete}/audit")
    def audit(athlete: Id, most: Most = 50) -> dict[str, Any]:
        with _said(), reading(database) as book:
            book.athlete(athlete)
            return {"changes": [item.to_json() for item in book.changes(athlete, most=most)]}

    return router


@contextmanager
def _said() -> Iterator[None]:
    """Errors as a caller of the API sees them."""
    try:
        yield
    except NotThere as error:
        raise ApiError(404, str(error), code="not_found") from None
    except QueueFull:
        message = "too many requests wait already; try again later"
        raise ApiError(429, message, kind="rate_limit_error", code="queue_full") from None
    except Unusable as error:
        raise ApiError(503, str(error), kind="server_error") from error
    except UserError as error:
        code = "context_length_exceeded" if isinstance(error, PromptTooLong) else ""
        raise ApiError(400, str(error), code=code) from None


def _athlete(item: Any) -> dict[str, Any]:
    return {"id": item.id, "name": item.name, "primary_sport": item.primary_sport, "plan_version": item.version}


def _outcome(found: Outcome) -> dict[str, Any]:
    if found.change.verdict == "conflict":
        raise ApiError(409, f"change {found.change.id}: {found.change.reasons[-1]}", code="conflict")
    whole = found.change.to_json()
    shown = {name: whole[name] for name in ("id", "kind", "verdict", "reasons", "before", "after")}
    return {**shown, "answer": json.loads(found.answer) if found.answer else None}
