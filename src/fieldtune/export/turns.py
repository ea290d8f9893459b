"""A run's chat template as the texts between what is said, found by rendering it; from them Ollama's and Jinja's form.

Whatever a template is made of, a conversation comes out as: an opening (with the system text or without), the first
user text, and from then on a text before each answer and one before each further user text. Where that is not so the
template is refused, and what is written here is rendered again and compared (see `template_check`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from fieldtune.data.encode import EncodeError, Encoder
from fieldtune.errors import UserError
from fieldtune.records import Message

S, U1, A1, U2 = "S1S2", "U1U2", "A1A2", "U3U4"  # what is said while a template is looked at


@dataclass(frozen=True, slots=True)
class Turns:
    """opening: before the first user text, without a system text. before_system, after_system: the same with one.

    to_answer: after a user text, where an answer begins. lead: between that and an answer that was given (a blank of
    Mistral's). to_user: between an answer and the next user text.
    keeps_empty: an empty system text is a system text, and not none.
    """

    opening: str
    before_system: str
    after_system: str
    to_answer: str
    lead: str
    to_user: str
    keeps_empty: bool

    def without_begin(self, begin: str) -> Turns:
        """For a program that puts the begin token there itself."""
        if not begin or not (self.opening.startswith(begin) and self.before_system.startswith(begin)):
            return self
        return replace(
            self, opening=self.opening.removeprefix(begin), before_system=self.before_system.removeprefix(begin)
        )

    def render(self, system: str | None, said: list[str]) -> str:
        """The prompt of user texts and answers in alternation, up to the start of the next answer."""
        has_system = system is not None if self.keeps_empty else bool(system)
        text = f"{self.before_system}{system}{self.after_system}" if has_system else self.opening
        for number, one in enumerate(said):
            is_user = number % 2 == 0
            text += (("" if number == 0 else self.to_user) if is_user else self.lead) + one
            text += self.to_answer if is_user else ""
        return text

    def _texts(self) -> tuple[str, ...]:
        return (self.opening, self.before_system, self.after_system, self.to_answer, self.lead, self.to_user)

    def ollama(self) -> str:
        """The TEMPLATE of a Modelfile, a Go template over .System and .Messages.

        An answer that stands last is left open, so that the model goes on with it.
        """
        opening, before, after, to_answer, lead, to_user = map(_go, self._texts())
        has_system = 'eq (index .Messages 0).Role "system"' if self.keeps_empty else ".System"
        return (
            f"{{{{ if {has_system} }}}}{before}{{{{ .System }}}}{after}{{{{ else }}}}{opening}{{{{ end }}}}"
            "{{ $later := false }}{{ range .Messages }}"
            f'{{{{ if eq .Role "user" }}}}{{{{ if $later }}}}{to_user}{{{{ end }}}}{{{{ .Content }}}}{to_answer}'
            f'{{{{ $later = true }}}}{{{{ else if eq .Role "assistant" }}}}{lead}{{{{ .Content }}}}'
            "{{ end }}{{ end }}"
        )

    def jinja(self) -> str:
        """The same for transformers and llama.cpp, where no template of the model's own says it."""
        opening, before, after, to_answer, lead, to_user = map(_quoted, self._texts())
        has_system = "messages[0]['role'] == 'system'" + ("" if self.keeps_empty else " and messages[0]['content']")
        return (
            f"{{% if {has_system} %}}{{{{ {before} + messages[0]['content'] + {after} }}}}"
            f"{{% else %}}{{{{ {opening} }}}}{{% endif %}}{{% set seen = namespace(user=false) %}}"
            "{% for message in messages %}{% if message['role'] == 'user' %}"
            f"{{% if seen.user %}}{{{{ {to_user} }}}}{{% endif %}}{{% set seen.user = true %}}"
            "{{ message['content'] }}{% if not loop.last or add_generation_prompt %}"
            f"{{{{ {to_answer} }}}}{{% endif %}}"
            f"{{% elif message['role'] == 'assistant' %}}{{{{ {lead} + message['content'] }}}}"
            "{% endif %}{% endfor %}"
        )


# Before a model's own Jinja template: the system text begins the first user turn, as `Encoder` has it.
FOLD = (
    "{% if messages[0]['role'] == 'system' and messages | length > 1 %}"
    "{% set joined = [messages[0]['content'], messages[1]['content']] | select | join('\\n\\n') %}"
    "{% set messages = [{'role': 'user', 'content': joined}] + messages[2:] %}{% endif %}"
)


def turns(encoder: Encoder) -> Turns:
    """What the encoder's template writes between what is said; `UserError` if it cannot be taken apart so."""
    system, first, answer, second = (
        Message("system", (S,)),
        Message("user", (U1,)),
        Message("assistant", (A1,)),
        Message("user", (U2,)),
    )
    try:
        alone = encoder.prompt_text([first])
        told = encoder.prompt_text([system, first])
        later = encoder.prompt_text([first, answer, second])
        told_later = encoder.prompt_text([system, first, answer, second])
        empty = encoder.prompt_text([Message("system", ("",)), first])
    except EncodeError as error:
        raise UserError(f"the run's chat template cannot be written for other programs: {error}") from None
    opening, _, to_answer = alone.partition(U1)
    before, _, rest = told.partition(S)
    found = Turns(
        opening=opening,
        before_system=before,
        after_system=rest.partition(U1)[0],
        to_answer=to_answer,
        lead=later.partition(U1)[2].partition(A1)[0].removeprefix(to_answer),
        to_user=later.partition(A1)[2].partition(U2)[0],
        keeps_empty=empty != alone,
    )
    rendered = [found.render(None, [U1]), found.render(S, [U1]), found.render(None, [U1, A1, U2])]
    rendered += [found.render(S, [U1, A1, U2]), found.render("", [U1])]
    if rendered != [alone, told, later, told_later, empty]:
        raise UserError(
            "the run's chat template writes a turn differently by what follows or stands before it, which Ollama's "
            "TEMPLATE cannot say; give to=merged or to=gguf"
        )
    return found


def _go(text: str) -> str:
    """A text in a Go template inside a Modelfile. What either would take for its own stands in a Go string."""
    taken = "{{" in text or '"""' in text or text.endswith("{")
    if not taken and all(letter.isprintable() or letter == "\n" for letter in text):
        return text
    quoted = "".join(
        letter if letter.isprintable() and letter not in '"\\' else f"\\U{ord(letter):08x}" for letter in text
    )
    return f'{{{{ "{quoted}" }}}}'


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
