"""Athletes, their training log, their plan, and the audit of its changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

WORK = "(sport = 'rest' AND minutes = 0 AND tss = 0) OR (sport <> 'rest' AND minutes BETWEEN 5 AND 480 AND tss >= 1)"
RESTS = "(sport = 'rest') = (intensity = 'rest')"
THRESHOLDS = ("lthr_bpm", "max_hr_bpm", "resting_hr_bpm", "ftp_watts", "rftp_watts", "critical_power_watts")


def upgrade() -> None:
    op.create_table(
        "fitness_athletes",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("primary_sport", sa.String(20), nullable=False),
        *(sa.Column(name, sa.Integer) for name in THRESHOLDS),
        sa.Column("first", sa.Date, nullable=False),
        sa.Column("start_ctl", sa.Double, nullable=False),
        sa.Column("start_atl", sa.Double, nullable=False),
        sa.Column("days_a_week", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fitness_athletes"),
    )
    op.create_table(
        "fitness_sessions",
        sa.Column("id", sa.Integer, nullable=False),
        _athlete("fitness_sessions"),
        sa.Column("date", sa.Date, nullable=False),
        sa.Column("sport", sa.String(20), nullable=False),
        sa.Column("minutes", sa.Integer, nullable=False),
        sa.Column("tss", sa.Double, nullable=False),
        sa.CheckConstraint("minutes BETWEEN 0 AND 480 AND tss BETWEEN 0 AND 500", op.f("ck_fitness_sessions_range")),
        sa.PrimaryKeyConstraint("id", name="pk_fitness_sessions"),
    )
    op.create_index("ix_fitness_sessions_athlete_id_date", "fitness_sessions", ["athlete_id", "date"])
    op.create_table(
        "fitness_workouts",
        sa.Column("id", sa.Integer, nullable=False),
        _athlete("fitness_workouts"),
        sa.Column("date", sa.Date, nullable=False),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("sport", sa.String(20), nullable=False),
        sa.Column("minutes", sa.Integer, nullable=False),
        sa.Column("intensity", sa.String(20), nullable=False),
        sa.Column("tss", sa.Integer, nullable=False),
        sa.Column("description", sa.String(200)),
        sa.Column("notes", sa.String(200)),
        sa.Column("steps", sa.JSON),
        sa.CheckConstraint(WORK, op.f("ck_fitness_workouts_work")),
        sa.CheckConstraint(RESTS, op.f("ck_fitness_workouts_rests")),
        sa.CheckConstraint("tss <= 500", op.f("ck_fitness_workouts_tss")),
        sa.PrimaryKeyConstraint("id", name="pk_fitness_workouts"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_fitness_workouts_athlete_id_date", "fitness_workouts", ["athlete_id", "date"])
    op.create_table(
        "fitness_changes",
        sa.Column("id", sa.Integer, nullable=False),
        _athlete("fitness_changes"),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("today", sa.Date, nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("answers", sa.JSON, nullable=False),
        sa.Column("verdict", sa.String(20), nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("before", sa.JSON, nullable=False),
        sa.Column("after", sa.JSON, nullable=False),
        sa.Column(
            "undoes", sa.Integer, sa.ForeignKey("fitness_changes.id", name="fk_fitness_changes_undoes"), nullable=True
        ),
        sa.PrimaryKeyConstraint("id", name="pk_fitness_changes"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_fitness_changes_athlete_id_id", "fitness_changes", ["athlete_id", "id"])


def _athlete(table: str) -> sa.Column[int]:
    owner = sa.ForeignKey("fitness_athletes.id", ondelete="CASCADE", name=f"fk_{table}_athlete_id")
    return sa.Column("athlete_id", sa.Integer, owner, nullable=False)


def downgrade() -> None:
    for table in ("fitness_changes", "fitness_workouts", "fitness_sessions", "fitness_athletes"):
        op.drop_table(table)
