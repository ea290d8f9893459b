"""The hybrid coach: a request to a model's answer, judged, retried once, applied in one transaction or refused.

Nothing is locked while the model thinks. The change is written only if the athlete's log and plan are still as the
model was told; else the request ends as a conflict and the plan stays as somebody else has left it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date as Date
from datetime import timedelta
from typing import Any

from fieldtune.errors import UserError
from fieldtune.records import Message
from fieldtune.store.database import Database
from fieldtune.store.fitness import Book, Change, Workout, reading, writing
from fieldtune.tasks.fitness import prompt, safety
from fieldtune.tasks.fitness.hybrid.context import Told, told
from fieldtune.tasks.fitness.hybrid.modifier import JOINERS, Judged, judge, unprintable
from fieldtune.tasks.fitness.rules import AHEAD_DAYS
from fieldtune.tasks.fitness.schema import Kind, PlanModification
from fieldtune.tasks.fitness.validation import LONGEST

# A conversation that ends with a user turn, and the kind of answer it wants, to the model's words.
Ask = Callable[[Sequence[Message], Kind], str]

ATTEMPTS = 2
LONGEST_REQUEST = 2000  # characters that an athlete may write
SHOWN_REASONS, SHOWN_ANSWER = 6, 4000  # reasons and characters of a refused answer that the model is shown
CONFLICT = "the athlete's plan or log was changed while the answer was made; ask again"
AGAIN = "Your answer was not accepted:\n{reasons}\nAnswer again with the whole JSON only."
_UNCHANGED = "I could not make a safe change, so your plan stays as it is. "


@dataclass(frozen=True, slots=True)
class Outcome:
    """change: the row of the audit, with verdict, reasons and the plan before and after.

    answer: the one that counts, as JSON: the model's if it passed, else the safe fallback; empty of an undo.
    """

    change: Change
    answer: str


@dataclass(slots=True)
class _Talk:
    """What the model said, and what was wrong with it."""

    answers: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


class HybridCoach:
    """Requests to a model about the athletes of a database. model: its name, for the audit."""

    def __init__(self, database: Database, ask: Ask, model: str = "") -> None:
        self._database, self._ask, self._model = database, ask, model

    def modify(self, athlete: int, feedback: str, *, today: Date, dry_run: bool = False) -> Outcome:
        """A change of the plan on what the athlete says. dry_run: show it, write nothing but the audit.

        `UserError` for an athlete, a day or a text that will not do, and for what the model cannot take.
        """
        return self._request("plan_modification", athlete, {"feedback": feedback}, today, dry_run)

    def plan_week(
        self, athlete: int, goals: str, constraints: str = "", *, today: Date, dry_run: bool = False
    ) -> Outcome:
        """The workouts of the next week, Monday to Sunday, in place of what is planned there. Else as `modify`."""
        asked = {"goals": goals} | ({"constraints": constraints} if constraints else {})
        return self._request("weekly_plan", athlete, asked, today, dry_run)

    def _request(self, kind: Kind, athlete: int, asked: Mapping[str, str], today: Date, dry_run: bool) -> Outcome:
        for name, text in asked.items():
            _must_be_readable(name, text)
        with reading(self._database) as book:
            seen = told(book, athlete, today, kind)
        request, talk = {**asked, "dry_run": dry_run}, _Talk()
        try:
            judged = self._answered(kind, seen, asked, talk)
            with writing(self._database) as book:
                change = self._settled(book, kind, seen, judged, dry_run)
                change = book.record(self._filled(change, request, talk))
        except Exception as error:
            failed = Change(athlete, kind, today, request, "failed", [f"{type(error).__name__}: {error}"[:500]])
            with writing(self._database) as book:
                book.record(self._filled(failed, request, talk))
            raise
        answer = judged.answer or fallback("\n".join(asked.values()), seen)
        return Outcome(change, prompt.context_json(answer))

    def _answered(self, kind: Kind, seen: Told, asked: Mapping[str, str], talk: _Talk) -> Judged:
        """The model's answer, judged; a wrong one is given back once with what is wrong."""
        headings = {"feedback": prompt.FEEDBACK, "goals": prompt.GOALS, "constraints": prompt.CONSTRAINTS}
        turns = prompt.prompt(seen.context, [(headings[name], text) for name, text in asked.items()])
        words = "\n".join(asked.values())
        judged = self._attempt(turns, kind, seen, words, talk)
        while judged.answer is None and len(talk.answers) < ATTEMPTS:
            reasons = "\n".join(f"- {problem}" for problem in judged.problems[:SHOWN_REASONS])
            said = talk.answers[-1].strip()[:SHOWN_ANSWER] or "{}"
            turns = (*turns, Message("assistant", (said,)), Message("user", (AGAIN.format(reasons=reasons),)))
            try:
                judged = self._attempt(turns, kind, seen, words, talk)
            except UserError as error:  # the longer conversation does not fit the model's context, or it cannot be read
                talk.reasons.append(f"it could not be asked again: {error}")
                break
        return judged

    def _attempt(self, turns: Sequence[Message], kind: Kind, seen: Told, words: str, talk: _Talk) -> Judged:
        talk.answers.append(self._ask(turns, kind))
        judged = judge(kind, talk.answers[-1], seen, words)
        name = f"answer {len(talk.answers)}"
        talk.reasons += [f"{name}: {problem.layer}: {problem}" for problem in judged.problems]
        talk.reasons += [f"{name}: mended: {mend}" for mend in judged.mends]
        return judged

    def _settled(self, book: Book, kind: Kind, seen: Told, judged: Judged, dry_run: bool) -> Change:
        """What becomes of a judged answer. The athlete is locked before the state is read again."""
        number, today = seen.athlete.id, seen.context.today
        now = told(book, number, today, kind, lock=True)
        before = now.plan

        def ended(verdict: str, *reasons: str, after: Sequence[Workout] = before) -> Change:
            return Change(number, kind, today, {}, verdict, reasons, before=before, after=after)

        if judged.answer is None:
            return ended("refused")
        if now != seen:
            return ended("conflict", CONFLICT)
        if judged.plan == before:
            return ended("no_change")
        if dry_run:
            return ended("dry_run", after=judged.plan)
        return ended("applied", after=book.put_plan(now.athlete, before, judged.plan))

    def _filled(self, change: Change, request: Mapping[str, Any], talk: _Talk) -> Change:
        kept, reasons = [answer[:LONGEST] for answer in talk.answers], [*talk.reasons, *change.reasons]
        return replace(change, request=request, answers=kept, reasons=reasons, model=self._model)


def undo(database: Database, number: int) -> Outcome:
    """Bring the plan back to what it was before a change; refused, with the reason, if it was changed since.

    The undo is a change of its own, and can be undone. `NotThere` for a change that is not there.
    """
    with writing(database) as book:
        change = book.change(number)
        athlete = book.athlete(change.athlete, lock=True)
        now = book.workouts(athlete.id, change.today, change.today + timedelta(AHEAD_DAYS - 1))
        reason = _why_not(book, change, now)
        after = now if reason else book.put_plan(athlete, now, change.before)
        verdict, reasons = ("refused", [reason]) if reason else ("applied", [])
        asked = {"change": number}
        ended = Change(
            athlete.id, "undo", change.today, asked, verdict, reasons, before=now, after=after, undoes=number
        )
        return Outcome(book.record(ended), "")


def _why_not(book: Book, change: Change, now: Sequence[Workout]) -> str:
    """Why a change cannot be undone; empty if it can."""
    if change.verdict != "applied":
        return f"change {change.id} left the plan as it was ({change.verdict}); there is nothing to undo"
    if now == change.after:
        return ""
    newest = next((item for item in book.changes(change.athlete, after=change.id) if item.verdict == "applied"), None)
    by = f"by change {newest.id} ({newest.kind}); undo the newest first" if newest else "not by a request"
    return f"the plan was changed since change {change.id}, {by}"


def fallback(words: str, told: Told) -> PlanModification:
    """The safe answer where no other one passed: it changes nothing, says so, and says what is safe meanwhile."""
    tsb = told.context.current_metrics.form_tsb
    if safety.warned(words):
        meanwhile = "Do not train with these signs: see a doctor first."
    elif safety.hurt(words):
        meanwhile = "Leave the next workout out until you are well."
    elif tsb is not None and tsb < safety.TIRED_BELOW:
        meanwhile = "You are very tired, so take the next workout short and easy, or rest."
    else:
        meanwhile = "Please ask again in other words."
    return PlanModification(
        decision="no_change", modifications=[], new_workouts=[], athlete_message=_UNCHANGED + meanwhile
    )


def _must_be_readable(name: str, text: str) -> None:
    if not text.strip():
        raise UserError(f"{name} is empty; say in a sentence what it is about")
    if len(text) > LONGEST_REQUEST:
        raise UserError(f"{name} has {len(text):,} characters; allowed: {LONGEST_REQUEST:,}")
    if bad := unprintable(text, JOINERS + "\n\r\t"):
        raise UserError(f"{name} holds the character U+{ord(bad):04X}; allowed: printable text")
