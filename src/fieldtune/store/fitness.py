"""What the fitness coach keeps: athletes, their training log, their plan, and the audit. Plain rows in and out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from datetime import date as Date
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from fieldtune.errors import UserError
from fieldtune.store.database import Database
from fieldtune.store.tables import AthleteRow, ChangeRow, SessionRow, WorkoutRow

THRESHOLDS = ("lthr_bpm", "max_hr_bpm", "resting_hr_bpm", "ftp_watts", "rftp_watts", "critical_power_watts")


class NotThere(UserError):
    """No athlete or change of this number."""


@dataclass(frozen=True, slots=True)
class StoredAthlete:
    """first: the day from which the log is kept; start_ctl, start_atl: the load on its morning, TSS a day."""

    id: int
    name: str
    primary_sport: str
    thresholds: Mapping[str, int | None]
    first: Date
    start_ctl: float
    start_atl: float
    days_a_week: int
    version: int = 0


@dataclass(frozen=True, slots=True)
class Logged:
    """A session of the log."""

    date: Date
    sport: str
    minutes: int
    tss: float


@dataclass(frozen=True, slots=True)
class Workout:
    """A planned workout. id 0: not in the plan yet."""

    id: int
    date: Date
    name: str
    sport: str
    minutes: int
    intensity: str
    tss: int
    description: str | None = None
    notes: str | None = None
    steps: list[Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "date": str(self.date)}

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Workout:
        return Workout(**{**raw, "date": Date.fromisoformat(raw["date"])})


@dataclass(frozen=True, slots=True)
class Change:
    """A row of the audit.

    verdict: applied | dry_run | no_change | refused | conflict | failed. before, after: the plan of the fourteen days
    from `today`, the same unless it was applied (or would have been). undoes: the change that this one takes back.
    """

    athlete: int
    kind: str
    today: Date
    request: Mapping[str, Any]
    verdict: str
    reasons: Sequence[str] = ()
    answers: Sequence[str] = ()
    before: Sequence[Workout] = ()
    after: Sequence[Workout] = ()
    undoes: int | None = None
    model: str = ""
    id: int = 0
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def to_json(self) -> dict[str, Any]:
        whole = {item.name: getattr(self, item.name) for item in fields(self)}
        plans = {name: [item.to_json() for item in whole[name]] for name in ("before", "after")}
        at = self.at.isoformat(timespec="seconds")
        return {**whole, **plans, "today": str(self.today), "at": at, "reasons": list(self.reasons)}


class Book:
    """The coach's rows within one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def athletes(self) -> list[StoredAthlete]:
        """All athletes by number."""
        return [_athlete(row) for row in self._session.scalars(select(AthleteRow).order_by(AthleteRow.id))]

    def athlete(self, number: int, *, lock: bool = False) -> StoredAthlete:
        """An athlete; `NotThere` if there is none. lock: no other writer touches it until this transaction ends."""
        wanted = select(AthleteRow).where(AthleteRow.id == number)
        row = self._session.scalar(wanted.with_for_update() if lock else wanted)
        if row is None:
            raise NotThere(f"there is no athlete {number}; `fieldtune fitness athletes` lists them")
        return _athlete(row)

    def add_athlete(self, given: StoredAthlete) -> int:
        """A new athlete's number; the one given is not read."""
        values = {name: given.thresholds.get(name) for name in THRESHOLDS}
        row = AthleteRow(
            name=given.name,
            primary_sport=given.primary_sport,
            first=given.first,
            start_ctl=given.start_ctl,
            start_atl=given.start_atl,
            days_a_week=given.days_a_week,
            version=0,
            **values,
        )
        self._session.add(row)
        self._session.flush()
        return row.id

    def sessions(self, athlete: int, before: Date = Date.max) -> list[Logged]:
        """The training log up to the day before, oldest first."""
        columns = (SessionRow.date, SessionRow.sport, SessionRow.minutes, SessionRow.tss)
        wanted = select(*columns).where(SessionRow.athlete_id == athlete, SessionRow.date < before)
        found = self._session.execute(wanted.order_by(SessionRow.date, SessionRow.id))
        return [Logged(date, sport, minutes, tss) for date, sport, minutes, tss in found]

    def add_sessions(self, athlete: int, sessions: Sequence[Logged]) -> None:
        """Join the log; those of a day in the order given."""
        if sessions:
            self._session.execute(insert(SessionRow), [{"athlete_id": athlete, **asdict(item)} for item in sessions])

    def workouts(self, athlete: int, first: Date = Date.min, last: Date = Date.max) -> list[Workout]:
        """The plan from a day to another one, both included, next one first."""
        columns = (getattr(WorkoutRow, item.name) for item in fields(Workout))
        wanted = select(*columns).where(WorkoutRow.athlete_id == athlete, WorkoutRow.date.between(first, last))
        return [Workout(*row) for row in self._session.execute(wanted.order_by(WorkoutRow.date, WorkoutRow.id))]

    def put_plan(self, athlete: StoredAthlete, before: Sequence[Workout], after: Sequence[Workout]) -> list[Workout]:
        """Make `before`, which is in the plan, to `after`; returns it with the ids of new workouts.

        The athlete must be locked and as it was read: the version says so, and goes up.
        """
        counted = update(AthleteRow).where(AthleteRow.id == athlete.id, AthleteRow.version == athlete.version)
        done = self._session.execute(counted.values(version=athlete.version + 1).returning(AthleteRow.id))
        if done.scalar() is None:
            raise RuntimeError(f"the plan of athlete {athlete.id} was changed within this transaction")
        old, kept = {item.id: item for item in before}, {item.id for item in after}
        gone = [number for number in old if number not in kept]
        if gone:
            self._session.execute(delete(WorkoutRow).where(WorkoutRow.id.in_(gone)))
        found = [self._put(athlete.id, item, old.get(item.id)) for item in after]
        self._session.expire_all()  # the athlete's version
        return sorted(found, key=lambda item: (item.date, item.id))

    def _put(self, athlete: int, item: Workout, old: Workout | None) -> Workout:
        if item == old:
            return item
        values = {name: value for name, value in asdict(item).items() if name != "id"}
        if old is not None:
            self._session.execute(update(WorkoutRow).where(WorkoutRow.id == item.id).values(**values))
            return item
        named = {"id": item.id} if item.id else {}
        added = insert(WorkoutRow).values(athlete_id=athlete, **named, **values).returning(WorkoutRow.id)
        return replace(item, id=self._session.execute(added).scalar_one())

    def record(self, change: Change) -> Change:
        """Add a row to the audit; returns it with its number."""
        row = ChangeRow(
            athlete_id=change.athlete,
            at=change.at,
            kind=change.kind,
            today=change.today,
            model=change.model,
            request=dict(change.request),
            answers=list(change.answers),
            verdict=change.verdict,
            reasons=list(change.reasons),
            before=[item.to_json() for item in change.before],
            after=[item.to_json() for item in change.after],
            undoes=change.undoes,
        )
        self._session.add(row)
        self._session.flush()
        return replace(change, id=row.id)

    def change(self, number: int) -> Change:
        """A row of the audit; `NotThere` if there is none."""
        row = self._session.get(ChangeRow, number)
        if row is None:
            raise NotThere(f"there is no change {number}; `fieldtune fitness audit` lists an athlete's")
        return _change(row)

    def changes(self, athlete: int, *, most: int | None = None, after: int = 0) -> list[Change]:
        """An athlete's audit rows of a number beyond `after`, the newest first."""
        wanted = select(ChangeRow).where(ChangeRow.athlete_id == athlete, ChangeRow.id > after)
        return [_change(row) for row in self._session.scalars(wanted.order_by(ChangeRow.id.desc()).limit(most))]


@contextmanager
def reading(database: Database) -> Iterator[Book]:
    """The rows as they stand."""
    with database.reading() as session:
        yield Book(session)


@contextmanager
def writing(database: Database) -> Iterator[Book]:
    """The rows to be changed; kept only if nothing is raised."""
    with database.writing() as session:
        yield Book(session)


def _athlete(row: AthleteRow) -> StoredAthlete:
    limits = {name: getattr(row, name) for name in THRESHOLDS}
    named = (row.id, row.name, row.primary_sport, limits)
    return StoredAthlete(*named, row.first, row.start_ctl, row.start_atl, row.days_a_week, row.version)


def _change(row: ChangeRow) -> Change:
    return Change(
        row.athlete_id,
        row.kind,
        row.today,
        row.request,
        row.verdict,
        row.reasons,
        row.answers,
        [Workout.from_json(item) for item in row.before],
        [Workout.from_json(item) for item in row.after],
        row.undoes,
        row.model,
        row.id,
        row.at if row.at.tzinfo else row.at.replace(tzinfo=UTC),  # SQLite forgets the zone
    )
