"""Sentence frames that join the knowledge base to a swing, and the headings of each form.

Placeholders: {area} the area's name, {score} and {target} as quoted, {severity}, {fault}, {other} and {figure} another
area and its score, {swing} the swing's type, {drill}. Other areas' figures are never put behind the words "score is":
scoring reads those as the score of the area itself.
"""

from __future__ import annotations

from fieldtune.tasks.golf.config import Form

IDEAL = "WHAT SHOULD HAPPEN (Ideal/Expected):"
WHY = "WHY IT MATTERS:"
CURRENT = "WHAT IS HAPPENING (Current Issue):"
FAULTS = "COMMON FAULTS:"
STEPS = "WHAT TO DO (Actionable Steps):"
FEEL = "FEEL / CUE:"
PROGRESS = "PROGRESS CHECK:"
HEADINGS = {
    Form.document: (IDEAL, CURRENT, STEPS),
    Form.full: (IDEAL, WHY, CURRENT, FAULTS, STEPS, FEEL, PROGRESS),
    Form.short: (IDEAL, CURRENT, STEPS),
}

OPENINGS = (
    "Keep this picture of {area} in mind.",
    "Here is what a coach hopes to see in {area}.",
    "This is the standard to aim for in {area}.",
    "Start from a clear picture of good {area}.",
    "A few things mark out sound {area}.",
)
STATUS = (
    "Your {area} score is {score}, which is a {severity} issue.",
    "Your {area} score is {score}, and that makes it a {severity} problem.",
    "Your {area} score is {score}, a {severity} weakness in this swing.",
    "Your {area} score is {score}. On our scale that counts as a {severity} issue.",
    "In this swing your {area} score is {score}, so we treat it as a {severity} concern.",
    "Let us be plain about where things stand. Your {area} score is {score}, a {severity} issue.",
    "Your {area} score is {score} at the moment, and a coach would call that a {severity} fault.",
    "We are looking at a {severity} shortfall. Your {area} score is {score}.",
)
# By size of the gap between score and target.
TARGETS = {
    "small": (
        "The target of {target} is close.",
        "Only a short step is missing to the target of {target}.",
        "With the target at {target}, a little polish is enough.",
        "You are not far from the target of {target}.",
    ),
    "medium": (
        "The target of {target} is within reach.",
        "Steady practice can bring it to the target of {target}.",
        "The target is {target}, a fair step up from here.",
        "We want to take it to {target}, which asks for regular work.",
    ),
    "large": (
        "The target is {target}, so there is a good deal of ground to make up.",
        "It is a long way to the target of {target}, and we will take it in stages.",
        "The target of {target} is a real climb from here.",
        "We want to reach {target} in the end, which calls for a patient plan.",
    ),
}
FAULT_PRESENT = (
    "One fault stands out: {fault}.",
    "The main fault to work on: {fault}.",
    "A fault we often see with weak {area} is this one: {fault}.",
    "What most likely holds you back: {fault}.",
    "The first thing a coach would point out: {fault}.",
    "The likely culprit: {fault}.",
    "Behind it there is probably one habit: {fault}.",
)
# With a minor issue the fault is an occasional one, and the sentence says so.
FAULT_OCCASIONAL = (
    "The fault most likely to creep in: {fault}.",
    "On the days when it slips, look first for this: {fault}.",
    "What is left to tidy up is often this: {fault}.",
    "Keep an eye on one habit that can return: {fault}.",
    "When a shot goes wrong, suspect this first: {fault}.",
    "On your looser swings, watch for this: {fault}.",
)
# The second fault may be the opposite of the first, so it is never said that the player has both.
SECOND_FAULT = (
    "Rule out another fault as well: {fault}.",
    "Do not confuse it with a different fault: {fault}.",
    "Another fault that spoils {area}: {fault}.",
    "If that does not fit, the next candidate: {fault}.",
)
LINK_WEAK = (
    "Part of the story lies in {other}, at {figure}.",
    "Expect some trouble from {other} as well, at {figure}.",
    "Of your other areas, the weakest is {other} at {figure}.",
    "Do not overlook {other}, at {figure} the lowest of the other areas.",
    "Some of this comes from {other}, at {figure}.",
)
LINK_STRONG = (
    "You can lean on {other}, at {figure} the best of the other areas.",
    "There is help from {other}, at {figure}.",
    "A strength to build on is {other}, at {figure}.",
    "Make use of {other}, which you already have at {figure}.",
    "The good news is {other}, at {figure}.",
)
SWING_TYPE = (
    "This was a {swing}, which adds a point of its own.",
    "Since you made a {swing}, keep one more thing in mind.",
    "The swing we looked at was a {swing}.",
    "You were making a {swing} here.",
    "For a {swing} there is something to add.",
    "Remember that this was a {swing}.",
)
FIRST_DRILL = (
    "Start with the {drill}.",
    "Make the {drill} your main exercise.",
    "The drill for this is the {drill}.",
    "Your first job is the {drill}.",
    "Build the change with the {drill}.",
    "Go to work with the {drill}.",
)
NEXT_DRILL = (
    "Then add the {drill}: {brief}",
    "Follow it with the {drill}: {brief}",
    "As a second exercise take the {drill}: {brief}",
    "Bring in the {drill} next: {brief}",
    "Pair it with the {drill}: {brief}",
)
LAST_DRILL = (
    "Once both feel natural, use the {drill}: {brief}",
    "When these two have settled, finish with the {drill}: {brief}",
    "Later on, round it off with the {drill}: {brief}",
    "Keep the {drill} for the end of a session: {brief}",
)
DOSE = ("Aim for {dose}.", "Plan on {dose}.", "Dose: {dose}.", "A good dose is {dose}.", "The amount: {dose}.")
SCHEDULE = (
    "Stay with the first drill until it feels easy before you bring in the next.",
    "Give the first drill the fresh part of every session and the next one the rest.",
    "Take the drills in this order, and move on only when the earlier one holds at an easy speed.",
    "Do not mix the drills on the first days; let one settle, then add the other.",
    "Slow rehearsals come first, and full speed waits until the first drill looks right on video.",
)
EXPECTED = {
    "small": (
        "A gap this small often closes within two or three weeks of steady practice.",
        "A few good weeks should be enough to get there.",
        "Expect to see the change in about three weeks.",
        "With short, regular sessions the target can come this month.",
    ),
    "medium": (
        "Allow four to six weeks of regular practice before the target is safe.",
        "Expect the first signs after two weeks and the target after a month or so.",
        "Six weeks of honest work is a fair estimate for a gap of this size.",
        "Count on about a month and a half, with small gains each week.",
    ),
    "large": (
        "Allow two to three months, and be content with half of the gain in the first month.",
        "A change of this size takes a season's first months, so judge it by the trend.",
        "Expect slow gains at first and the target after ten to twelve weeks.",
        "Give it about three months, since a gap this wide closes in stages.",
    ),
}

# Few frames, and the severity always right behind the score: the short form is to be learned in minutes.
SHORT_STATUS = (
    "Your {area} score is {score}, a {severity} issue; the target is {target}.",
    "Your {area} score is {score}, a {severity} issue. Aim for {target}.",
)
SHORT_FAULT = (
    "Your {area} score is {score}, a {severity} issue: {fault}. The target is {target}.",
    "Your {area} score is {score}, a {severity} issue; look for {fault}. Aim for {target}.",
)
SHORT_FAULT_OCCASIONAL = (
    "Your {area} score is {score}, a {severity} issue; watch for {fault}. The target is {target}.",
    "Your {area} score is {score}, a {severity} issue; at times {fault}. Aim for {target}.",
)
SHORT_DRILL = (
    "Do the {drill}: {brief} Plan on {dose}.",
    "Use the {drill}: {brief} Aim for {dose}.",
)
