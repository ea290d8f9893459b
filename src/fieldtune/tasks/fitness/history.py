"""Real athletes: recorded sessions become a `History`, with thresholds estimated from what they did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from fieldtune.errors import UserError
from fieldtune.records import Rejected
from fieldtune.sources.activities import Recorded, read_fit, read_log
from fieldtune.tasks.fitness.athletes import WEEKS, Done, History
from fieldtune.tasks.fitness.load import Load, duration_tss, heart_rate_tss, power_tss
from fieldtune.tasks.fitness.schema import Athlete, Sport, Thresholds
from fieldtune.tasks.fitness.sessions import ENDURANCE

LEAST_DAYS = 6  # of history, for an athlete to be told of
TWENTY_MINUTES, FTP_SHARE = 1200, 0.95  # threshold power is 95 % of the best twenty minutes (Coggan and Allen)
LTHR_SHARE = 0.9  # of the highest heart rate
MOST_TSS, MOST_MINUTES = 500.0, 480
SPORT_NAMES: tuple[Sport, ...] = get_args(Sport)
SPORTS: dict[str, Sport] = {"run": "running", "ride": "cycling", "bike": "cycling", "swim": "swimming", "row": "rowing"}


def read_histories(path: Path) -> Iterator[History | Rejected]:
    """An athlete a name in a log, a folder of FIT files, or a lone FIT file; what is refused as `Rejected`.

    `UserError` for a path without any log.
    """
    recorded: dict[str, list[Recorded]] = {}
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [file for file in files if file.suffix.lower() in (".csv", ".fit")]
    if not files:
        raise UserError(
            f"data.logs={path} holds no .csv and no .fit file; give a training log or a folder of FIT files"
        )
    for file in files:
        for item in _sessions(file, file.parent.name if path.is_dir() else file.stem):
            if isinstance(item, Rejected):
                yield item
            else:
                recorded.setdefault(item.athlete, []).append(item)
    for name, sessions in recorded.items():
        days = (max(item.date for item in sessions) - min(item.date for item in sessions)).days
        if days < LEAST_DAYS:
            yield Rejected(
                str(path), 0, f"athlete {name}: {days + 1} days of history; {LEAST_DAYS + 1} are needed", name
            )
        else:
            yield history_of(name, sessions)


def _sessions(file: Path, athlete: str) -> Iterator[Recorded | Rejected]:
    if file.suffix.lower() == ".csv":
        yield from read_log(file)
        return
    try:
        yield read_fit(file, athlete)
    except UserError as error:
        if "fitdecode" in str(error):
            raise
        yield Rejected(str(file), 0, str(error), "")


def history_of(name: str, sessions: Sequence[Recorded]) -> History:
    """The history of recorded sessions; the load begins at 0 on the first day."""
    ordered = sorted(sessions, key=lambda item: item.date)
    limits = thresholds_of(ordered)
    done = [_done(item, limits) for item in ordered]
    first, last = ordered[0].date, ordered[-1].date
    weeks = ((last - first).days + 1) / 7
    a_week = min(max(WEEKS), max(min(WEEKS), round(len(done) / weeks)))
    common = Counter(item.sport for item in done if item.sport in ENDURANCE).most_common(1)
    athlete = Athlete(name=name[:60], primary_sport=common[0][0] if common else "running", thresholds=limits)
    return History(athlete, first, last, done, Load(0.0, 0.0), a_week)


def thresholds_of(sessions: Sequence[Recorded]) -> Thresholds:
    """Threshold power from the best twenty minutes on the bike, threshold heart rate from the highest heart rate.

    Only samples by the second say something; an average over a session does not.
    """
    beats = max((max(item.beats) for item in sessions if len(item.beats) > 1), default=None)
    rides = (item.watts for item in sessions if sport_of(item.sport) == "cycling" and len(item.watts) >= TWENTY_MINUTES)
    best = max((_best_mean(watts, TWENTY_MINUTES) for watts in rides), default=None)
    ftp = None if best is None else min(600, max(40, round(FTP_SHARE * best)))
    highest = None if beats is None or not 100 <= beats <= 240 else round(beats)
    return Thresholds(
        lthr_bpm=None if highest is None else round(LTHR_SHARE * highest), max_hr_bpm=highest, ftp_watts=ftp
    )


def _best_mean(values: Sequence[float], count: int) -> float:
    total = best = sum(values[:count])
    for end in range(count, len(values)):
        total += values[end] - values[end - count]
        best = max(best, total)
    return best / count


def sport_of(name: str) -> Sport:
    """Our name of a sport as logs call it; `other` if we have none."""
    text, known = name.strip().lower(), {str(sport): sport for sport in SPORT_NAMES}
    if text in known:
        return known[text]
    return next((sport for word, sport in SPORTS.items() if word in text), "other")


def _done(item: Recorded, limits: Thresholds) -> Done:
    return Done(item.date, sport_of(item.sport), min(MOST_MINUTES, round(item.seconds / 60)), session_tss(item, limits))


def session_tss(item: Recorded, limits: Thresholds) -> float:
    """TSS as logged, else from power (cycling), else from heart rate, else from the duration; at most 500."""
    if item.tss is not None:
        return min(MOST_TSS, item.tss)
    # Scaled to the session's time: samples may be one average.
    if limits.ftp_watts and item.watts and sport_of(item.sport) == "cycling":
        tss = power_tss(item.watts, limits.ftp_watts) * item.seconds / len(item.watts)
    elif limits.lthr_bpm and item.beats:
        tss = heart_rate_tss(item.beats, limits.lthr_bpm) * item.seconds / len(item.beats)
    else:
        tss = duration_tss(item.seconds / 60)
    return min(MOST_TSS, tss)
