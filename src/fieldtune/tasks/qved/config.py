"""The data section of `data=qved` and `data=qved_films`."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec

from fieldtune.config import DataConfig

SYSTEM_PROMPT = "You are a concise fitness coach. You name the exercise and say what to keep and what to correct."
USER_PROMPT = (
    "Please evaluate the exercise form shown. What mistakes, if any, are present, and what corrections would you "
    "recommend?"
)


@dataclass(kw_only=True, slots=True)
class Data(DataConfig):
    """Films of exercises with a coach's words, read or rendered."""

    task: str = "qved"
    labels: str | None = None  # QEVD's fine_grained_labels.json or feedbacks_short_clips.json, or a file in their form
    videos: str | None = None  # folder of the films, searched with its subfolders; null: the folder of data.labels
    # JSON of {video_path, worker_id}; null: fine_grained_labels_with_worker_ids.json beside data.labels, if it is there
    workers: str | None = None
    videos_per_class: int = 100  # films of one exercise at most, drawn with the seed
    exercises: list[str] = field(default_factory=list)  # only these; empty: all
    system_prompt: str = SYSTEM_PROMPT  # empty: no system turn. The same in training, evaluation and inference
    user_prompt: str = USER_PROMPT  # {exercise} stands for the exercise's name
    count: int | None = None  # films to render, in place of data.labels; null: none
    films: str | None = None  # folder that rendered films are written to

    def problems(self) -> list[str]:
        """Films are read or rendered."""
        found = []
        if self.labels is None and self.count is None:
            found.append("data=qved needs data.labels=FILE (fine_grained_labels.json); data=qved_films renders films")
        if self.labels is not None and self.count is not None:
            found.append(
                f"data.labels={self.labels} with data.count={self.count}: films are read or rendered; give one"
            )
        if not self.user_prompt.strip():
            found.append("data.user_prompt is empty; give the question that is asked of each film")
        if self.count is not None and self.films is None:
            found.append(f"data.count={self.count} needs data.films=FOLDER, where the films are written")
        if self.count is not None and any(find_spec(package) is None for package in ("av", "PIL")):
            found.append(f"data.count={self.count} needs the packages av and pillow; pip install 'fieldtune[video]'")
        return found
