"""Coaching conversations: questions on the figures of a context, and answers that quote them right."""

from __future__ import annotations

import random
from dataclasses import dataclass

from fieldtune.tasks.fitness.coach import EXHAUSTED, RESTED, affected
from fieldtune.tasks.fitness.schema import Context

QUESTIONS: dict[str, tuple[str, ...]] = {
    "form": ("How is my form today?", "Am I fresh or tired?", "What does my TSB say?", "How recovered am I?"),
    "fitness": ("How fit am I right now?", "What is my CTL?", "Where does my fitness stand?"),
    "week": ("How much did I train in the last week?", "What was my load in the last seven days?", "My weekly TSS?"),
    "next": ("What is my next session?", "What do I have to do next?", "Which workout comes up?"),
    "hard": ("Can I go hard today?", "Is today a day for intervals?", "May I add a race effort today?"),
    "easy": ("How hard should easy sessions be?", "Which heart rate is right for easy training?"),
    "pain": ("My {part} hurts, can I train today?", "I have pain in my {part}. Shall I train on?"),
    "red_flag": ("I felt chest pain in training, is that normal?", "I fainted after my last session. Worrying?"),
    "off_topic": ("Which pills make me faster?", "What is the capital of France?", "Should I take EPO?"),
}
FOLLOW_UPS = ("next", "week", "easy", "hard")  # topics of a second question
_HARD = ("pain", "red_flag", "off_topic")

_ADVICE = {
    "overreached": ("Rest before anything else.", "That is too deep: take days off."),
    "very_fatigued": ("Keep it short and easy until it rises.", "Recovery comes first now."),
    "fatigued": ("Normal in a training block; mind your sleep.", "You carry some fatigue, which is fine for now."),
    "balanced": ("Train on as planned.", "A good state to train in."),
    "fresh": ("A good day for quality work.", "You are rested and ready."),
    "detraining": ("Time to train more again.", "You rest more than you need; build up step by step."),
}
_NOT_HURT = " Only once it no longer hurts, though."
_PAIN = (
    "No, do not train into the pain. Rest your {part}, or take an easy session that spares it, and see a physio if it "
    "lasts.",
    "Please rest your {part} today. If the pain stays for some days, let a physio look at it.",
)
_RED_FLAG = (
    "No, that is not normal. Stop training and see a doctor before you go on.",
    "Stop all training and see a doctor today. Nothing in your plan matters more.",
)
_OFF_TOPIC = (
    "I can only help with your training. Please ask a professional about that.",
    "That is outside of coaching, so I leave it. Ask me about your training load or plan.",
)


@dataclass(frozen=True, slots=True)
class Talk:
    """Questions and answers in turn; the last topic is what is scored. hard: health, refusal or too little data."""

    topic: str
    turns: tuple[tuple[str, str], ...]
    hard: bool


def converse(rng: random.Random, told: Context, hard: float) -> Talk:
    """One or two questions and their answers. hard: share of questions on health or off topic."""
    part = rng.choice(affected(told.athlete.primary_sport))
    topics = _HARD if rng.random() < hard else tuple(topic for topic in QUESTIONS if topic not in _HARD)
    topic = rng.choice(topics)
    asked = [topic]
    if topic != "red_flag" and rng.random() < 0.2:
        topic = rng.choice([other for other in FOLLOW_UPS if other != topic])
        asked.append(topic)
    turns = tuple(
        (rng.choice(QUESTIONS[item]).format(part=part), _answer(rng, told, item, part, asked)) for item in asked
    )
    unknown = told.current_metrics.form_tsb is None
    return Talk(topic, turns, bool(set(asked) & set(_HARD)) or unknown)


def _answer(rng: random.Random, told: Context, topic: str, part: str, asked: list[str]) -> str:
    fixed = {"pain": _PAIN, "red_flag": _RED_FLAG, "off_topic": _OFF_TOPIC}.get(topic)
    if fixed is not None:
        return rng.choice(fixed).format(part=part)
    metrics, following = told.current_metrics, told.upcoming_workouts[0]
    if topic == "next":
        text = f"{following.name} on {following.day}, {following.date}: {following.duration_minutes} minutes"
        return f"{text}, {following.intensity}, TSS {following.estimated_tss}." + (_NOT_HURT if "pain" in asked else "")
    if topic == "week":
        return f"TSS {metrics.weekly_tss} in the last seven days."
    if topic == "easy":
        limit = told.athlete.thresholds.lthr_bpm
        known = f"Your threshold is {limit} bpm; stay well below it" if limit else "Stay well below your threshold"
        return f"{known}, so that you can talk in whole sentences."
    if metrics.fitness_ctl is None:
        return f"I cannot say yet: there are only {metrics.history_days} days of history, and I need 28."
    if topic == "fitness":
        return f"Your fitness (CTL) is {metrics.fitness_ctl}, with a fatigue (ATL) of {metrics.fatigue_atl}."
    status = metrics.form_status
    named = f"form (TSB) is {metrics.form_tsb}, {status.replace('_', ' ')}"
    if topic == "form":
        figures = f": fitness {metrics.fitness_ctl} minus fatigue {metrics.fatigue_atl}"
        return f"Your {named}{figures}. {rng.choice(_ADVICE[status])}"
    return _go_hard(status, named, asked)


def _go_hard(status: str, named: str, asked: list[str]) -> str:
    if "pain" in asked:
        return "No, not before that is cleared up."
    if status in EXHAUSTED or status == "fatigued":
        return f"No. Your {named}: keep it easy."
    return f"Yes. Your {named}." if status in RESTED else f"Only if it is in the plan. Your {named}."
