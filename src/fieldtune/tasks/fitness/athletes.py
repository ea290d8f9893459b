"""Athletes: months of training by phases, with illness, races, camps and missed sessions; their state on a day.

A history is simulated from a seed or made of real logs (`history`). What a coach is told of it is one `Context`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date as Date
from datetime import timedelta
from functools import cached_property

from fieldtune.tasks.fitness.load import Load, load_history
from fieldtune.tasks.fitness.schema import (
    Activity,
    Athlete,
    Context,
    FormStatus,
    Metrics,
    PlannedWorkout,
    Sport,
    Thresholds,
    day_of,
    form_status,
)
from fieldtune.tasks.fitness.sessions import ENDURANCE, UNKNOWN_WEEK, session_of_tss

ENOUGH_DAYS = 28  # of history, from which the load model says something
PLANNED, RECENT = 3, 2  # upcoming workouts and recent sessions told to the coach at most
NAMES = (
    "Ana", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Liam",
    "Mara", "Nils", "Olga", "Paul", "Rosa", "Sven", "Tina", "Uwe", "Vera", "Will", "Yara", "Zoe",
    "Amir", "Bao", "Chidi", "Dana", "Elio", "Farah", "Goran", "Hana",
)  # fmt: skip
# Training days a week: (weekday from Monday, kind, share of the week's TSS). No hard day beside another.
WEEKS: dict[int, tuple[tuple[int, str, float], ...]] = {
    3: ((1, "threshold", 0.30), (3, "easy", 0.28), (5, "long", 0.42)),
    4: ((1, "threshold", 0.26), (3, "easy", 0.20), (4, "recovery", 0.14), (6, "long", 0.40)),
    5: ((0, "easy", 0.16), (1, "vo2max", 0.20), (3, "threshold", 0.22), (4, "recovery", 0.10), (6, "long", 0.32)),
}


@dataclass(frozen=True, slots=True)
class Done:
    """A session that was done; tss may be a fraction."""

    date: Date
    sport: Sport
    minutes: int
    tss: float


@dataclass(frozen=True)
class History:
    """An athlete and what he or she has done. start: the load on the morning of the first day."""

    athlete: Athlete
    first: Date
    last: Date  # the last day whose sessions are known
    done: Sequence[Done]
    start: Load
    days_a_week: int  # of training: 3, 4 or 5

    @cached_property
    def daily_tss(self) -> list[float]:
        """TSS of each day from the first to the last."""
        daily = [0.0] * ((self.last - self.first).days + 1)
        for item in self.done:
            daily[(item.date - self.first).days] += item.tss
        return daily

    @cached_property
    def loads(self) -> list[Load]:
        """Load after each of those days."""
        return load_history(self.daily_tss, self.start)

    def known_days(self, today: Date) -> int:
        return (today - self.first).days

    def load_on(self, today: Date) -> Load | None:
        """Load on the morning of a day; None while there is too little history."""
        days = self.known_days(today)
        return self.loads[days - 1] if days >= ENOUGH_DAYS else None

    def status_on(self, today: Date) -> FormStatus:
        """The form's band on the morning of a day."""
        load = self.load_on(today)
        return form_status(None if load is None else rounded_form(load)[2])

    def context(self, today: Date, plan: Sequence[PlannedWorkout], week_start: Date | None = None) -> Context:
        """What a coach is told on the morning of a day."""
        load = self.load_on(today)
        ctl, atl, tsb = (None, None, None) if load is None else rounded_form(load)
        week = [item for item in self.done if today - timedelta(7) <= item.date < today]
        metrics = Metrics(
            fitness_ctl=ctl,
            fatigue_atl=atl,
            form_tsb=tsb,
            form_status=form_status(tsb),
            weekly_tss=sum(round(item.tss) for item in week),
            history_days=self.known_days(today),
        )
        recent = [
            Activity(date=item.date, sport=item.sport, duration_minutes=item.minutes, tss=round(item.tss))
            for item in week[-RECENT:]
        ]
        return Context(
            today=today,
            day=day_of(today),
            week_start=week_start,
            athlete=self.athlete,
            current_metrics=metrics,
            recent_activities=recent,
            upcoming_workouts=list(plan),
        )

    def plan(self, today: Date, count: int) -> list[PlannedWorkout]:
        """The next workouts of the athlete's usual week, at the load that keeps the fitness."""
        load = self.load_on(today)
        week_tss = UNKNOWN_WEEK if load is None else max(120.0, 7 * load.ctl)
        week = {day: (kind, share) for day, kind, share in WEEKS[self.days_a_week]}
        found: list[PlannedWorkout] = []
        for ahead in range(14):
            day = today + timedelta(ahead)
            if day.weekday() not in week or len(found) == count:
                continue
            kind, share = week[day.weekday()]
            made = session_of_tss(self.athlete.primary_sport, kind, share * week_tss)
            found.append(
                PlannedWorkout(
                    id=f"w{len(found) + 1}",
                    date=day,
                    day=day_of(day),
                    name=made.name,
                    sport=made.sport,
                    duration_minutes=made.minutes,
                    intensity=made.intensity,
                    estimated_tss=made.tss,
                )
            )
        return found


def rounded_form(load: Load) -> tuple[float, float, float]:
    """CTL, ATL and TSB to a decimal; the three agree as they are shown."""
    ctl, atl = round(load.ctl, 1), round(load.atl, 1)
    return ctl, atl, round(ctl - atl, 1)


def simulate(rng: random.Random) -> History:
    """An athlete with 150 to 300 days of training."""
    sport = rng.choices(ENDURANCE, weights=(5, 4, 1, 1))[0]
    fitness = rng.uniform(25, 60) if sport in ("running", "swimming") else rng.uniform(30, 85)
    length, first = rng.randrange(150, 300), Date(2024, 1, 1) + timedelta(rng.randrange(700))
    days_a_week = rng.choice(tuple(WEEKS))
    done = _training(rng, sport, fitness, first, length, days_a_week)
    athlete = Athlete(name=rng.choice(NAMES), primary_sport=sport, thresholds=_thresholds(rng, sport))
    start = fitness * rng.uniform(0.6, 0.9)
    return History(athlete, first, first + timedelta(length - 1), done, Load(start, start), days_a_week)


def _thresholds(rng: random.Random, sport: Sport) -> Thresholds:
    highest = rng.randrange(172, 202)
    ftp = rng.randrange(160, 340) if sport == "cycling" else None
    return Thresholds(lthr_bpm=round(highest * rng.uniform(0.87, 0.92)), ftp_watts=ftp)


def _training(
    rng: random.Random, sport: Sport, fitness: float, first: Date, length: int, days_a_week: int
) -> list[Done]:
    """Sessions day by day. A block is three weeks of rising load and one of recovery; a camp is a
    long session every day; a race follows a week at half load."""
    week = {day: (kind, share) for day, kind, share in WEEKS[days_a_week]}
    ill = _blocks(rng, length, 110, (4, 9))
    camp = _blocks(rng, length, 60, (7, 13))
    race = {day for day in range(50, length) if rng.random() < 1 / 70}
    done: list[Done] = []
    for number in range(length):
        day = first + timedelta(number)
        if number in race:
            done.append(_done(rng, sport, "long", day, fitness * rng.uniform(2.5, 4)))
        elif number in camp and number not in ill:
            done.append(_done(rng, sport, "long", day, fitness * rng.uniform(1.6, 2.4)))
        if number in ill or number in race or number in camp or day.weekday() not in week or rng.random() < 0.07:
            continue
        factor = (0.95, 1.1, 1.25, 0.6)[number // 7 % 4] * (1 + number / length * 0.2)
        factor *= 0.5 if race & {*range(number, number + 8)} else 1
        kind, share = week[day.weekday()]
        done.append(_done(rng, sport, kind, day, 7 * fitness * share * factor * rng.uniform(0.85, 1.15)))
    return done


def _blocks(rng: random.Random, length: int, every: int, days: tuple[int, int]) -> set[int]:
    """Days of blocks that begin about once in `every` days."""
    starts = [number for number in range(length) if rng.random() < 1 / every]
    return {day for start in starts for day in range(start, start + rng.randrange(*days))}


def _done(rng: random.Random, sport: Sport, kind: str, day: Date, tss: float) -> Done:
    made = session_of_tss(sport, kind, tss)
    return Done(day, sport, made.minutes, round(made.tss * rng.uniform(0.95, 1.05), 1))
