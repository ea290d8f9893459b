"""The golf coach from code: what another program imports in place of its Ollama calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fieldtune.models.generate import Sampling
from fieldtune.records import Message
from fieldtune.serving.predictor import Predictor
from fieldtune.tasks.golf.feedback import append_feedback
from fieldtune.tasks.golf.generate import Swing


class FineTunedGolfFeedbackGenerator:
    """Feedback for a swing by the model of a run.

        coach = FineTunedGolfFeedbackGenerator("latest")
        print(coach.generate_feedback("balance", 0.42, 0.65, scores={"balance": 0.42, ...}, swing_type="power_swing"))

    A class that asks Ollama with a prompt text can inherit from this one and call `generate` instead.
    """

    def __init__(self, run: str | Path = "latest", *, output_dir: str | Path = "outputs", device: str = "cpu") -> None:
        self._predictor = Predictor(run, output_dir=output_dir, device=device)

    def generate_feedback(
        self,
        area: str,
        score: float,
        target: float,
        scores: Mapping[str, float],
        swing_type: str = "balanced_swing",
    ) -> str:
        """Feedback for one swing. Scores are shares from 0 to 1; `UserError` says what is wrong with a swing."""
        swing = {"area": area, "score": score, "target": target, "scores": dict(scores), "swing_type": swing_type}
        return self._predictor.predict([swing])[0].text

    def generate(self, prompt: str, *, max_new_tokens: int = 400, temperature: float = 0.0, top_k: int = 50) -> str:
        """The model's answer to a prompt text of the caller's own."""
        sampling = Sampling(max_new_tokens, temperature, top_k)
        return self._predictor.answer([(Message("user", (prompt,)),)], sampling)[0].text

    def record_feedback(
        self,
        path: str | Path,
        swing: Mapping[str, object],
        feedback: str,
        *,
        rating: int | None = None,
        user: str | None = None,
    ) -> None:
        """Keep what a user wrote or approved (rating 1 to 5); `data.feedback=PATH` puts it into the next data set."""
        append_feedback(Path(path), Swing.from_mapping(swing), feedback, rating=rating, user=user)
