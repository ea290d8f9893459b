"""Conversations on which an exported template must give the token ids of training."""

from __future__ import annotations

from dataclasses import dataclass

from fieldtune.records import Message


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt. edges: a text in it is empty or begins or ends with blanks, which some templates take away."""

    name: str
    messages: tuple[Message, ...]
    edges: bool = False


def _turns(*texts: str, system: str | None = None) -> tuple[Message, ...]:
    before = () if system is None else (Message("system", (system,)),)
    said = (Message("user" if number % 2 == 0 else "assistant", (text,)) for number, text in enumerate(texts))
    return (*before, *said)


SYSTEM = "You are a coach.\nAnswer in one sentence."
CONVERSATIONS: tuple[Conversation, ...] = (
    Conversation("one question", _turns("How is my form today?")),
    Conversation("a system text", _turns("How is my form today?", system=SYSTEM)),
    Conversation("an empty system text", _turns("How is my form today?", system="")),
    Conversation("three turns", _turns("Hello", "Hi. How was it?", "Hard.", "Rest then.", "How long?")),
    Conversation("three turns and a system text", _turns("Hello", "Hi.", "Hard.", "Rest.", "When?", system=SYSTEM)),
    Conversation("many turns", _turns(*(f"This is text {number}." for number in range(9)))),
    Conversation(
        "blanks inside", _turns("two  blanks,\ttab,\n\nempty line,\n   indented\r\nand", "ok\n\n- a", "Go on")
    ),
    Conversation(
        "letters of the world", _turns("Größe, naïve, 東京で走る, 한국어, עברית, ไทย, e\u0301", system="Ünïcode")
    ),
    Conversation("signs of the world", _turns("👟🏃🏽\u200d♀️ → 42½ km ≈ 26.2 mi\u00a0… “so”", "👍", "🇨🇭?")),
    Conversation("one letter", _turns("a", "b", "c")),
    Conversation("numbers", _turns("CTL 45.3, ATL 52, 3:05:09, 1234567890, -17.5, 1e-3")),
    Conversation("JSON", _turns('{"to": [1, 2], "why": "it\'s \\"hard\\"\\n"}', '{"decision": "no_change"}', "Sure?")),
    Conversation("what templates are made of", _turns("{{ .System }} {% if x %} {{- end }} $x `x` %s \\n <b>&amp;")),
    Conversation("headings", _turns("### Instruction:\nx\n\n### Response:\ny\n\nuser: z", system="### Input:\n[x]")),
    Conversation("an empty question", _turns("")),
    Conversation("an empty question and a system text", _turns("", system=SYSTEM), edges=True),
    Conversation("a long text", _turns("It was a long run. " * 60 + "Tired?", system="Be kind. " * 40 + "Always.")),
    Conversation("blanks at the ends of a question", _turns("  Tired \n", "Yes.", "\tOk? "), edges=True),
    Conversation("blanks at the ends of a system text", _turns("Tired?", system=" Be kind. \n"), edges=True),
    Conversation("blanks after an answer", _turns("Tired?", "Yes. \n", "Ok?"), edges=True),
    Conversation("blanks before an answer", _turns("Tired?", "\n  Yes.", "Ok?"), edges=True),
)
