"""The W&B edge: the one place that knows W&B, and a null tracker that costs nothing.

No account is needed and nothing is ever asked: without a login a run is offline and can be synced later. Lineage
(data set -> run -> model -> evaluation) also stands in our manifests, since W&B's needs its server.
"""

from __future__ import annotations

import netrc
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from fieldtune.config import Config, TrackingKind, TrackingMode
from fieldtune.errors import UserError
from fieldtune.runs import Run

SECRET = re.compile(r"token(?!izer)|secret|password|passwd|api_?key|credential", re.I)
CREDENTIALS_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")


class Tracker(Protocol):
    """What a stage tells about itself while it runs."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of an optimizer step."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int | None = None) -> None:
        """A table of samples."""

    def artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None:
        """Files that the run made; referred to, not copied."""

    def uses(self, name: str, kind: str, facts: Mapping[str, Any]) -> None:
        """Something that an earlier run made and this one reads."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The run has ended well."""

    def fail(self, status: int) -> None:
        """The run has failed; status is the process's exit status."""


class NullTracker:
    """Tracks nothing."""

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int | None = None
    ) -> None: ...

    def artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None: ...

    def uses(self, name: str, kind: str, facts: Mapping[str, Any]) -> None: ...

    def finish(self, summary: Mapping[str, Any]) -> None: ...

    def fail(self, status: int) -> None: ...


class WandbTracker:
    """A W&B run, online or offline; its files lie in the run folder."""

    def __init__(self, config: Config, run: Run, mode: str) -> None:
        # Artifacts are staged in the data folder; kept in the run's own, they are there to be synced later.
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ["WANDB_DATA_DIR"] = str(run.folder / "wandb" / "data")
        import wandb

        self._wandb: Any = wandb
        try:
            self._run = self._init(config, run, mode)
        except (wandb.errors.Error, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"W&B refuses this run ({reason}); change tracking.* or give tracking=off") from None
        for key, value in dict(run.started.get("git", {})).items():
            self._run.summary[f"git/{key}"] = value

    def _init(self, config: Config, run: Run, mode: str) -> Any:
        return self._wandb.init(
            project=config.tracking.project,
            entity=config.tracking.entity,
            name=run.folder.name,
            id=str(run.started["id"]),
            # An offline run cannot be resumed: W&B's own copy then starts anew, ours goes on.
            resume="allow" if mode == "online" else None,
            group=config.tracking.group or config.name,
            job_type=run.stage,
            tags=config.tracking.tags or None,
            dir=str(run.folder),
            config=without_secrets(run.config()),
            mode=mode,
            save_code=False,
            settings=self._wandb.Settings(silent=True, console="off", disable_code=True, x_disable_meta=False),
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._run.log({**metrics, "step": step}, step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int | None = None) -> None:
        table = self._wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        self._run.log({name: table}, step=step)

    def artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None:
        artifact = self._wandb.Artifact(_artifact_name(name), kind, metadata=without_secrets(dict(facts)))
        for path in paths:
            artifact.add_reference(path.resolve().as_uri(), name=path.name, checksum=True)
        self._run.log_artifact(artifact)

    def uses(self, name: str, kind: str, facts: Mapping[str, Any]) -> None:
        # use_artifact asks the server, which an offline run has not; the summary and our manifest say it too.
        for key, value in {"name": name, **facts}.items():
            self._run.summary[f"uses/{kind}/{key}"] = value

    def finish(self, summary: Mapping[str, Any]) -> None:
        for key, value in dict(summary.get("metrics", {})).items():
            self._run.summary[key] = value
        self._run.finish(exit_code=0)

    def fail(self, status: int) -> None:
        self._run.finish(exit_code=status)


def start(config: Config, run: Run) -> Tracker:
    """The tracker that the configuration asks for."""
    if config.tracking.kind is TrackingKind.off or os.environ.get("WANDB_MODE") == "disabled":
        return NullTracker()
    return WandbTracker(config, run, _mode(config.tracking.mode))


def _mode(wanted: TrackingMode) -> str:
    if wanted is not TrackingMode.auto:
        return wanted.name
    if os.environ.get("WANDB_MODE") in ("online", "offline"):
        return os.environ["WANDB_MODE"]
    return "online" if has_login() else "offline"


def has_login() -> bool:
    """Whether a W&B key is set or stored for the W&B host; nothing is asked and no network is used."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def without_secrets(value: Any, key: str = "") -> Any:
    """A copy in which values of keys that sound like secrets, and credentials in URLs, are replaced."""
    if isinstance(value, dict):
        return {name: without_secrets(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item, key) for item in value]
    if SECRET.search(key) and value is not None and not isinstance(value, int | float):
        return "(secret)"
    return CREDENTIALS_IN_URL.sub("(secret)@", value) if isinstance(value, str) else value


def _artifact_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "-", name)
