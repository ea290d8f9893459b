"""The tables, as SQLAlchemy maps them. A change here needs a migration; a test compares the two."""

from __future__ import annotations

from datetime import date as Date
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, DateTime, Double, ForeignKey, Index, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
# What the schema of answers allows, said once more where no program can go round it.
WORK = "(sport = 'rest' AND minutes = 0 AND tss = 0) OR (sport <> 'rest' AND minutes BETWEEN 5 AND 480 AND tss >= 1)"
RESTS = "(sport = 'rest') = (intensity = 'rest')"


class Base(DeclarativeBase):
    """All tables of the database."""

    metadata = MetaData(naming_convention=NAMES)


class AthleteRow(Base):
    """An athlete. version: goes up with every change of the plan."""

    __tablename__ = "fitness_athletes"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(60))
    primary_sport: Mapped[str] = mapped_column(String(20))
    lthr_bpm: Mapped[int | None]
    max_hr_bpm: Mapped[int | None]
    resting_hr_bpm: Mapped[int | None]
    ftp_watts: Mapped[int | None]
    rftp_watts: Mapped[int | None]
    critical_power_watts: Mapped[int | None]
    first: Mapped[Date]  # day from which the log is kept
    start_ctl: Mapped[float] = mapped_column(Double)  # load on the morning of that day, TSS a day
    start_atl: Mapped[float] = mapped_column(Double)
    days_a_week: Mapped[int]
    version: Mapped[int] = mapped_column(default=0)


class SessionRow(Base):
    """A session of the training log."""

    __tablename__ = "fitness_sessions"
    id: Mapped[int] = mapped_column(primary_key=True)
    athlete_id: Mapped[int] = mapped_column(ForeignKey("fitness_athletes.id", ondelete="CASCADE"))
    date: Mapped[Date]
    sport: Mapped[str] = mapped_column(String(20))
    minutes: Mapped[int]
    tss: Mapped[float] = mapped_column(Double)
    __table_args__ = (
        Index(None, "athlete_id", "date"),
        CheckConstraint("minutes BETWEEN 0 AND 480 AND tss BETWEEN 0 AND 500", "range"),
    )


class WorkoutRow(Base):
    """A planned workout. Ids are never given twice, so that an undo can bring a row back under its own."""

    __tablename__ = "fitness_workouts"
    id: Mapped[int] = mapped_column(primary_key=True)
    athlete_id: Mapped[int] = mapped_column(ForeignKey("fitness_athletes.id", ondelete="CASCADE"))
    date: Mapped[Date]
    name: Mapped[str] = mapped_column(String(60))
    sport: Mapped[str] = mapped_column(String(20))
    minutes: Mapped[int]
    intensity: Mapped[str] = mapped_column(String(20))
    tss: Mapped[int]
    description: Mapped[str | None] = mapped_column(String(200))
    notes: Mapped[str | None] = mapped_column(String(200))
    steps: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    __table_args__ = (
        Index(None, "athlete_id", "date"),
        CheckConstraint(WORK, "work"),
        CheckConstraint(RESTS, "rests"),
        CheckConstraint("tss <= 500", "tss"),
        {"sqlite_autoincrement": True},
    )


class ChangeRow(Base):
    """The audit: a row for each request, whatever came of it. before, after: the plan's fourteen days."""

    __tablename__ = "fitness_changes"
    id: Mapped[int] = mapped_column(primary_key=True)
    athlete_id: Mapped[int] = mapped_column(ForeignKey("fitness_athletes.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))  # UTC
    kind: Mapped[str] = mapped_column(String(20))
    today: Mapped[Date]
    model: Mapped[str] = mapped_column(String(200))
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    answers: Mapped[list[str]] = mapped_column(JSON)  # as the model gave them
    verdict: Mapped[str] = mapped_column(String(20))
    reasons: Mapped[list[str]] = mapped_column(JSON)
    before: Mapped[list[Any]] = mapped_column(JSON)
    after: Mapped[list[Any]] = mapped_column(JSON)
    undoes: Mapped[int | None] = mapped_column(ForeignKey("fitness_changes.id"))
    __table_args__ = (Index(None, "athlete_id", "id"), {"sqlite_autoincrement": True})
