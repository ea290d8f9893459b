"""How good is the demo's model? It is prepared and trained if it is not there, then asked about 200 held-out swings.

    python benchmarks/demo_quality.py [ROWS]        (200 rows: about a quarter of an hour on two CPU cores)

Prints each figure with its 95 % interval, base beside tuned, against what the project asks of it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fieldtune.runs import list_runs, read_json

GOALS = {"sections": 0.95, "quoted": 0.90, "drills": 0.80}  # share of held-out swings, tuned
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    rows = sys.argv[1] if len(sys.argv) > 1 else "200"
    finished = [run for run in list_runs(Path("outputs")) if run.name == "golf_demo" and run.status == "finished"]
    if not any(run.stage == "train" for run in finished):
        for stage in ("prepare", "train"):
            subprocess.run([sys.executable, ROOT / f"{stage}.py", "experiment=golf_demo"], check=True)
    subprocess.run(
        [sys.executable, ROOT / "evaluate.py", "experiment=golf_demo", f"evaluation.rows={rows}"], check=True
    )
    newest = [run for run in list_runs(Path("outputs")) if run.stage == "evaluate" and run.status == "finished"][-1]
    measured = {metric["name"]: metric for metric in read_json(newest.folder / "metrics.json")["metrics"]}
    for name, goal in GOALS.items():
        metric = measured[name]
        base, tuned = (
            f"{interval['value']:.1%} ({interval['low']:.1%} to {interval['high']:.1%})"
            for interval in (metric["base"], metric["tuned"])
        )
        reached = "reached" if metric["tuned"]["value"] >= goal else "falls short"
        print(f"{metric['title']:<32} base {base:<28} tuned {tuned:<28} goal {goal:.0%}: {reached}")


if __name__ == "__main__":
    main()
