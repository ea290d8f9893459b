"""A small knowledge base of one area that a test may break."""

from __future__ import annotations

from pathlib import Path

from fieldtune.tasks.golf.swing import AREAS

OVERVIEW = """---
kind: overview
area: balance
title: Balance
ideal: [The head stays level., The feet stay quiet.]
why: [A steady base frees the hands., Falling moves the strike.]
bands:
  major: [The feet step to avoid a fall., The finish is lost.]
  moderate: [Full swings wobble a little., Short swings finish upright.]
  minor: [Only the finish sways., Slopes are the test now.]
swing_types:
  power_swing: [A driver asks for a wide base.]
  precision_swing: [A wedge asks for quiet feet.]
  balanced_swing: [A stock swing ends in a pose.]
links:
LINKS---
# Balance
"""
FAULTS = """---
kind: faults
area: balance
faults:
  - id: toes
    name: falling toward the toes
    shows: [The heels lift early.]
    causes: [The weight starts too far forward.]
    effect: The strike moves to the heel.
    feel: [Feel both heels.]
    drills: [stork]
  - id: heels
    name: rocking back onto the heels
    shows: [The toes lift early.]
    causes: [The weight starts too far back.]
    effect: The strike moves to the toe.
    feel: [Feel your laces.]
    drills: [stork, plank]
---
"""
DRILLS = """---
kind: drills
area: balance
drills:
  - id: stork
    name: Stork Stand Drill
    equipment: none
    brief: Stand on the lead foot and swing slowly.
    steps: [Lift the trail foot., Swing the arms.]
    dose: 3 sets of 8 swings, twice a week
    success: The foot stays up for three swings.
    safety: Stand near a wall.
  - id: plank
    name: Narrow Plank Drill
    equipment: a plank
    brief: Stand on a plank and make half swings.
    steps: [Stand along the plank., Make half swings.]
    dose: 2 sets of 10 swings, 3 days a week
    success: Ten swings pass without a step.
    safety: Use a low plank.
---
"""
CUES = """---
kind: cues
area: balance
feels: [Feel the ground., Stay tall.]
progress: [Count held finishes.]
safety: [Warm the ankles.]
first_steps: [Hold ten finishes.]
---
"""


def write_knowledge(folder: Path) -> Path:
    """The small knowledge base in folder/balance."""
    home = folder / "balance"
    home.mkdir(parents=True)
    others = [key for key in AREAS if key != "balance"]
    links = "".join(f"  {key}: [Weak {key} shakes the base., Strong {key} steadies it.]\n" for key in others)
    files = {"overview": OVERVIEW.replace("LINKS", links), "faults": FAULTS, "drills": DRILLS, "cues": CUES}
    for kind, text in files.items():
        (home / f"{kind}.md").write_text(text, encoding="utf-8")
    return folder
