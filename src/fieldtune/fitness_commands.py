"""`fieldtune fitness ...`: athletes and their plans in a database. database= is a file (SQLite) or postgresql://...

fieldtune fitness migrate database=FILE|URL            make the tables, or bring them up to this version
fieldtune fitness add database=... simulate=3 [seed=1] [today=DATE]
                                                       simulated athletes with months of training and a plan
fieldtune fitness add database=... log=FILE|FOLDER [athlete=ID] [today=DATE]
                                                       the athletes of a training log (.csv) or of FIT files;
                                                       with athlete= only what that one's log lacks
fieldtune fitness athletes database=...
fieldtune fitness plan database=... athlete=ID [today=DATE]
fieldtune fitness ask database=... athlete=ID run=FOLDER|latest request="..." [dry_run=true] [today=DATE]
                                                       [constrained=on|off] [device=cpu|gpu]
fieldtune fitness ask ... goals="..." [constraints="..."]
                                                       the next week's plan instead of a change
fieldtune fitness undo database=... change=ID
fieldtune fitness audit database=... athlete=ID [most=20]
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import date as Date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldtune.command_words import options_of, whole_number
from fieldtune.errors import UserError
from fieldtune.keys import nearest

if TYPE_CHECKING:
    from fieldtune.store.database import Database
    from fieldtune.store.fitness import Workout
    from fieldtune.tasks.fitness.athletes import History
    from fieldtune.tasks.fitness.hybrid.coach import Ask, Outcome

Words = Mapping[str, str]
LARGEST_ID = 2**31 - 1
DATABASE: dict[str, str | None] = {"database": None}
ASK: dict[str, str | None] = {
    **DATABASE,
    "athlete": None,
    "run": None,
    "request": "",
    "goals": "",
    "constraints": "",
    "dry_run": "false",
    "today": "",
    "constrained": "on",
    "device": "cpu",
}


def main(arguments: Sequence[str]) -> None:
    """Do one of the commands; `UserError` says what is wrong with its words or the database."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(__doc__)
        return
    command, *words = arguments
    commands: dict[str, tuple[Callable[[Words], None], dict[str, str | None]]] = {
        "migrate": (_migrate, DATABASE),
        "add": (_add, {**DATABASE, "simulate": "", "seed": "1", "log": "", "athlete": "", "today": ""}),
        "athletes": (_athletes, DATABASE),
        "plan": (_plan, {**DATABASE, "athlete": None, "today": ""}),
        "ask": (_ask, ASK),
        "undo": (_undo, {**DATABASE, "change": None}),
        "audit": (_audit, {**DATABASE, "athlete": None, "most": "20"}),
    }
    if command not in commands:
        known = list(commands)
        raise UserError(f"fitness {command} is not a command{nearest(command, known)}; there are: {', '.join(known)}")
    work, known_words = commands[command]
    work(options_of(words, known_words))


def routes(run: str, database: str, constrained: str) -> Callable[[Any], Sequence[Any]]:
    """The coach's addresses for `fieldtune serve`."""
    held = _choice({"constrained": constrained}, "constrained", ("on", "off")) == "on"
    try:
        from fieldtune.serving.fitness_api import fitness_routes
    except ModuleNotFoundError as error:
        raise UserError(f"database= needs {error.name}: pip install 'fieldtune[serve,store]'") from None
    return fitness_routes(run, database, held)


def _open(words: Words) -> Database:
    try:
        from fieldtune.store.database import open_database
    except ModuleNotFoundError as error:
        raise UserError(f"fieldtune fitness needs {error.name}: pip install 'fieldtune[store]'") from None
    return open_database(words["database"])


def _choice(words: Words, key: str, allowed: Sequence[str]) -> str:
    if words[key] not in allowed:
        raise UserError(f"{key}={words[key]} is not allowed; give one of {', '.join(allowed)}")
    return words[key]


def _today(words: Words) -> Date:
    try:
        return Date.fromisoformat(words["today"]) if words["today"] else Date.today()
    except ValueError:
        raise UserError(f"today={words['today']} is not a date; give one as 2026-03-04") from None


def _id(words: Words, key: str) -> int:
    return whole_number(words, key, 1, LARGEST_ID)


def _migrate(words: Words) -> None:
    database = _open(words)
    database.migrate()
    print(f"{database.name} has tables of revision {database.revision()}")


def _add(words: Words) -> None:
    if bool(words["simulate"]) == bool(words["log"]):
        raise UserError("give either simulate=NUMBER or log=FILE|FOLDER")
    if words["athlete"] and words["simulate"]:
        raise UserError("athlete= goes with log=: it says whose log is continued")
    today = _today(words)
    database = _open(words).must_be_current()
    histories = _simulated(words, today) if words["simulate"] else _recorded(words)
    from fieldtune.store.fitness import writing
    from fieldtune.tasks.fitness.hybrid.context import add_history, extend_log, usual_plan

    with writing(database) as book:
        if words["athlete"]:
            if len(histories) > 1:
                raise UserError(f"log={words['log']} holds {len(histories)} athletes; athlete= takes the log of one")
            number = _id(words, "athlete")
            print(f"athlete {number}: {extend_log(book, number, histories[0])} sessions added")
            return
        for history in histories:
            plan = usual_plan(history, today)
            number = add_history(book, history, plan)
            print(f"athlete {number}: {history.athlete.name}, {len(history.done)} sessions, {len(plan)} planned")


def _simulated(words: Words, today: Date) -> list[History]:
    """Those of the generator with this seed, their months moved to end yesterday."""
    from fieldtune.tasks.fitness.athletes import simulate
    from fieldtune.tasks.fitness.hybrid.context import shifted

    seed, count = whole_number(words, "seed", 0, LARGEST_ID), whole_number(words, "simulate", 1, 1000)
    seeds = (random.Random(f"fitness athlete {seed} {number}") for number in range(count))
    return [shifted(simulate(rng), today) for rng in seeds]


def _recorded(words: Words) -> list[History]:
    from fieldtune.records import Rejected
    from fieldtune.tasks.fitness.history import read_histories

    path, found = Path(words["log"]), []
    if not path.exists():
        raise UserError(f"log={path} does not exist; give a training log (.csv) or a folder of FIT files")
    for item in read_histories(path):
        if isinstance(item, Rejected):
            print(f"left out: {item.path}:{item.line}: {item.reason}")
        else:
            found.append(item)
    if not found:
        raise UserError(f"log={path} holds no athlete with a week of history")
    return found


def _athletes(words: Words) -> None:
    from fieldtune.store.fitness import reading

    with reading(_open(words).must_be_current()) as book:
        for item in book.athletes():
            print(f"{item.id:>4}  {item.name:<24} {item.primary_sport:<10} log from {item.first}")


def _plan(words: Words) -> None:
    number, today = _id(words, "athlete"), _today(words)
    database = _open(words).must_be_current()
    from fieldtune.store.fitness import reading

    with reading(database) as book:
        book.athlete(number)
        print("\n".join(map(_line, book.workouts(number, today))) or f"nothing is planned from {today} on")


def _line(item: Workout) -> str:
    work = f"{item.minutes:>4} min  TSS {item.tss:>3}  {item.intensity:<9}"
    return f"{item.date:%a} {item.date}  {work} {item.name} ({item.sport})"


def _ask(words: Words) -> None:
    if bool(words["request"]) == bool(words["goals"]) or (words["constraints"] and not words["goals"]):
        raise UserError("give either request=... (a change), or goals=... and perhaps constraints=... (a week)")
    number, today = _id(words, "athlete"), _today(words)
    dry_run = _choice(words, "dry_run", ("true", "false")) == "true"
    held = _choice(words, "constrained", ("on", "off")) == "on"
    _choice(words, "device", ("cpu", "gpu"))
    database = _open(words).must_be_current()
    from fieldtune.tasks.fitness.hybrid.coach import HybridCoach

    coach = HybridCoach(database, _model(words, held), words["run"])
    if words["request"]:
        _show(coach.modify(number, words["request"], today=today, dry_run=dry_run))
    else:
        _show(coach.plan_week(number, words["goals"], words["constraints"], today=today, dry_run=dry_run))


def _model(words: Words, constrained: bool) -> Ask:
    from fieldtune.serving.predictor import Predictor
    from fieldtune.tasks.fitness.schema import answer_schemas

    predictor = Predictor(words["run"], device=words["device"])

    def ask(turns: Any, kind: str) -> str:
        schema = answer_schemas()[kind] if constrained else None
        return predictor.answer([turns], schema=schema)[0].text

    return ask


def _show(outcome: Outcome) -> None:
    """The verdict, its reasons, what changes in the plan, and the message."""
    import json

    change = outcome.change
    print(f"change {change.id}: {change.verdict}")
    for reason in change.reasons:
        print(f"  {reason}")
    before, after = ([_line(item) for item in plan] for plan in (change.before, change.after))
    for line in sorted(set(before) ^ set(after), key=lambda line: (line[4:14], line in after)):
        print(f"{'+' if line in after else '-'} {line}")
    if outcome.answer:
        print(json.loads(outcome.answer)["athlete_message"])


def _undo(words: Words) -> None:
    number = _id(words, "change")
    database = _open(words).must_be_current()
    from fieldtune.tasks.fitness.hybrid.coach import undo

    outcome = undo(database, number)
    if outcome.change.verdict != "applied":
        raise UserError(f"change {number} is not undone: {outcome.change.reasons[0]}")
    _show(outcome)


def _audit(words: Words) -> None:
    number, most = _id(words, "athlete"), whole_number(words, "most", 1, 100_000)
    database = _open(words).must_be_current()
    from fieldtune.store.fitness import reading

    with reading(database) as book:
        book.athlete(number)
        for item in book.changes(number, most=most):
            asked = "; ".join(f"{name}: {value}" for name, value in item.request.items())
            print(f"{item.id:>5}  {item.at:%Y-%m-%d %H:%M}  {item.kind:<17} {item.verdict:<9} {asked}")
            for reason in item.reasons:
                print(f"       {reason}")
