"""Two at once lose nothing: real connections in threads, and real processes, on both databases."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from fieldtune.records import Message
from fieldtune.store.database import Database
from fieldtune.store.fitness import reading, writing
from fieldtune.tasks.fitness.hybrid.coach import HybridCoach
from tests.hybrid.athletes import TODAY, add, plan_of, shorter, skip

Opened = Callable[[str], Database]
ROOT = Path(__file__).resolve().parents[2]

# Skips the next workout, or asks again after a conflict, until it did so `times` times.
WORKER = """
import json, sys
from tests.hybrid.athletes import TODAY
from fieldtune.store.database import open_database
from fieldtune.tasks.fitness.hybrid.coach import HybridCoach

where, number, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def rename(turns, kind):
    context = json.loads(turns[-1].parts[0].partition("\\n")[2])
    first = context["upcoming_workouts"][0]
    item = {"workout_id": "w1", "date": first["date"], "action": "modify", "changes": {"name": first["name"] + "+"}}
    return json.dumps({"decision": "change", "modifications": [item], "new_workouts": [], "athlete_message": "Yes."})

coach = HybridCoach(open_database(where), rename)
print("ready", flush=True)
sys.stdin.readline()
done = 0
while done < times:
    verdict = coach.modify(number, "A plus, please.", today=TODAY).change.verdict
    assert verdict in ("applied", "conflict"), verdict
    done += verdict == "applied"
"""


def test_two_answers_to_one_plan(url: str, opened: Opened) -> None:
    """Both models are told the same plan; the one who writes second must not undo what the first wrote."""
    database = opened(url)
    database.migrate()
    number = add(database)
    before, both_asked = plan_of(database, number), threading.Barrier(2, timeout=60)

    def ask(answer: dict[str, object]) -> str:
        def model(turns: Sequence[Message], kind: str) -> str:
            both_asked.wait()
            return json.dumps(answer)

        return HybridCoach(opened(url), model).modify(number, "Less, please.", today=TODAY).change.verdict

    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(ask, [shorter(), skip("w2", "2026-03-07")]))
    assert sorted(verdicts) == ["applied", "conflict"]
    shortened = [replace(before[0], minutes=45, tss=60), *before[1:]]
    skipped = [before[0], *before[2:]]
    assert plan_of(database, number) == (shortened if verdicts[0] == "applied" else skipped)


def test_a_writer_waits_for_the_one_before_and_sees_what_it_wrote(url: str, opened: Opened) -> None:
    database, other = opened(url), opened(url)
    database.migrate()
    number, locked = add(database), threading.Event()
    seen: list[int] = []

    def second() -> None:
        assert locked.wait(60)
        with writing(other) as book:
            seen.append(book.athlete(number, lock=True).version)

    thread = threading.Thread(target=second)
    thread.start()
    with writing(database) as book:
        athlete, plan = book.athlete(number, lock=True), book.workouts(number)
        locked.set()
        thread.join(0.5)
        assert seen == []  # it waits
        book.put_plan(athlete, plan, plan[:-1])
    thread.join(60)
    assert seen == [athlete.version + 1]


def test_processes_that_change_one_plan(url: str, opened: Opened) -> None:
    database, each = opened(url), 8
    database.migrate()
    number = add(database)
    command = [sys.executable, "-c", WORKER, url, str(number), str(each)]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n", worker.communicate()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        _, problem = worker.communicate(timeout=300)
        assert worker.returncode == 0, problem
    assert plan_of(database, number)[0].name == "Threshold run" + "+" * 2 * each
    with reading(database) as book:
        applied = [item for item in book.changes(number) if item.verdict == "applied"]
        assert len(applied) == 2 * each and book.athlete(number).version == 1 + 2 * each
