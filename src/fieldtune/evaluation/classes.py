"""Which labels are taken for which: a confusion matrix, its worst pairs, and a table of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldtune.evaluation.calibration import share_of
from fieldtune.evaluation.metrics import Resampling

Ints = NDArray[np.int64]


def confusion(targets: Ints, chosen: Ints, labels: int) -> Ints:
    """Rows by their right label and the one chosen [labels, labels]."""
    matrix = np.zeros((labels, labels), dtype=np.int64)
    np.add.at(matrix, (targets, chosen), 1)
    return matrix


def most_confused(matrix: Ints, names: Sequence[str], most: int = 10) -> list[dict[str, Any]]:
    """Pairs of a label and the one it was taken for: {label, taken_for, n, share (of the label's rows)}, worst first.

    Of pairs with as many rows the one with the greater share comes first, then the order of the labels.
    """
    rows = matrix.sum(axis=1)
    pairs = [(int(a), int(b)) for a, b in np.argwhere(matrix) if a != b]
    pairs.sort(key=lambda pair: (-matrix[pair], -matrix[pair] / rows[pair[0]], pair))
    return [
        {"label": names[a], "taken_for": names[b], "n": int(matrix[a, b]), "share": float(matrix[a, b] / rows[a])}
        for a, b in pairs[:most]
    ]


def class_table(targets: Ints, chosen: Ints, names: Sequence[str], how: Resampling) -> list[dict[str, Any]]:
    """{label, n, chosen, precision, recall, f1} of each label; precision and recall are intervals.

    precision: the share of the rows for which the label was chosen that are of it; None if it never was. recall: the
    share of its rows for which it was chosen; None without rows. f1: 2 hits / (rows + times chosen); None without rows.
    """
    right, table = targets == chosen, []
    for number, name in enumerate(names):
        own, said = targets == number, chosen == number
        rows, times = int(own.sum()), int(said.sum())
        precision, recall = share_of(right, said, how), share_of(right, own, how)
        table.append(
            {
                "label": name,
                "n": rows,
                "chosen": times,
                "precision": precision.to_json() if precision else None,
                "recall": recall.to_json() if recall else None,
                "f1": 2 * int((own & said).sum()) / (rows + times) if rows else None,
            }
        )
    return table


def macro_f1(table: Sequence[dict[str, Any]]) -> float:
    """The mean F1 of the labels that have rows: each counts alike, however many they are."""
    found = [row["f1"] for row in table if row["f1"] is not None]
    return float(sum(found) / len(found))
