"""Near-duplicate rows, found without comparing every pair: MinHash with LSH, and one-word wildcard keys.

Rows that differ by a word must not be split between train and test, or the test measures memory. Two paths:

1. MinHash (Broder 1997, "On the resemblance and containment of documents") over word 3-shingles with
   locality-sensitive hashing by bands (Indyk and Motwani 1998); a candidate pair counts if its estimated Jaccard
   similarity reaches the threshold.
2. One changed word spoils three shingles, which takes a row of 12 words to a Jaccard of 0.5. Rows of 4 to 64
   words are therefore also keyed by themselves and by themselves with each one word left out. Rows that are one
   word substituted, inserted or deleted apart share such a key; candidate pairs are checked word by word.

The strictness is on the safe side: "What is 2 + 3?" and "What is 2 + 4?" are near-duplicates, and since groups
are connected components, so may be two rows that are only linked through others.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldtune.errors import UserError

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

PERMUTATIONS = 128
SHINGLE_WORDS = 3
SHINGLE_CHARS = 4
SHORT_WORDS = 5  # a row of fewer words has too few word shingles: words and character shingles are taken
WILDCARD_WORDS = (4, 64)  # least and most words of a row that is given wildcard keys
LEADERS = 8  # rows of a bucket that its other rows are compared with: keeps large buckets linear
CHUNK = 4096  # shingles or pairs that are worked on at once
WORDS_CACHED = 400_000

# Writing without spaces (Thai to Khmer, kana, Han): every character is a word of its own.
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff"  # not \w, yet in words
_INSIDE = "[-.,/:_]"  # one such mark joins: 3.5, 10:30, long-term and km/h are one word each
_ASCII_WORDS = re.compile(rf"[a-z0-9]+(?:{_INSIDE}[a-z0-9]+){{0,3}}")
_LETTER = rf"(?:[^\W_{_SPACELESS}]|[{_MARKS}])"
_WORDS = re.compile(rf"{_LETTER}+(?:{_INSIDE}{_LETTER}+){{0,3}}|[{_SPACELESS}]")
_SPLIT_INSIDE = str.maketrans("-.,/:_", "      ")

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64


def _mix(values: Hashes) -> Hashes:
    """Spread the bits of 64-bit values (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


# The permutations are SplitMix64's first numbers, not a library's: the same rows give the same groups everywhere.
_CONSTANTS = _mix(np.arange(1, 2 * PERMUTATIONS + 1, dtype=np.uint64) * np.uint64(_BASE))
_MULTIPLIERS = _CONSTANTS[:PERMUTATIONS] | np.uint64(1)
_OFFSETS = _CONSTANTS[PERMUTATIONS:]


def words(text: str) -> list[str]:
    """The words of a text: casefolded, without punctuation and apostrophes; digits are kept."""
    text = text.replace("'", "").replace("\u2019", "").casefold()
    if text.isascii():
        return _ASCII_WORDS.findall(text)
    return _WORDS.findall(unicodedata.normalize("NFKC", text))


class NearDuplicates:
    """Groups rows that are near-duplicates of each other.

    threshold: Jaccard similarity, above 0 and at most 1, from which two rows belong together. It also decides
    how short a row may be for path 2: 1 - 1/(words + 1) must reach it (0.8: from 4 words on; 0.9: from 9; 1: no
    row). Rows of up to 3 words have path 1 only. Raises `UserError` for any other threshold.

    Memory: about 0.7 KB a row, for a row of at most 64 words up to 0.5 KB more and up to 5 KB inside `groups`.
    The result depends on the rows and their order only, not on the process.
    """

    def __init__(self, threshold: float = 0.8) -> None:
        if not 0 < threshold <= 1:
            raise UserError(f"the near-duplicate threshold is {threshold}; it must be above 0 and at most 1; try 0.8")
        self._threshold = threshold
        self._needed = int(np.ceil(threshold * PERMUTATIONS - 1e-9))  # equal minima that reach the threshold
        self._hashes = _WordHashes()
        self._first_of: dict[bytes, int] = {}  # digest of the normalized text: first row that has it
        self._first = array("q")  # [rows]: that row
        self._rows = array("q")  # [unique]: the rows whose words are not those of an earlier row
        self._signatures = array("I")  # [unique * 128]
        self._words = array("Q")  # word hashes of the unique rows that have wildcard keys, end to end
        self._lengths = array("q")  # [unique]: words of such a row, 0 for the others

    def add(self, text: str) -> None:
        """Take one more row."""
        row = len(self._first)
        found = words(text)
        # Without any word (an ASCII drawing, "+ - +") the marks themselves have to tell rows apart.
        normal = " ".join(found).translate(_SPLIT_INSIDE) if found else "\0" + " ".join(text.split())
        digest = hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        first = self._first_of.setdefault(digest, row)
        self._first.append(first)
        if first != row or not found:
            return
        hashes = self._hashes.of(found)
        shingles = _word_shingles(hashes) if len(found) >= SHORT_WORDS else _short_shingles(normal, hashes)
        self._rows.append(row)
        self._signatures.frombytes(_signature(shingles).tobytes())
        keyed = _least_words(self._threshold) <= len(found) <= WILDCARD_WORDS[1]
        self._lengths.append(len(found) if keyed else 0)
        if keyed:
            self._words.frombytes(hashes.tobytes())

    def groups(self) -> Ints:
        """Group of each row added so far, int64 [rows]: the index of the first row of its group."""
        first = np.array(self._first, dtype=np.int64)
        rows = np.array(self._rows, dtype=np.int64)
        pairs = [*self._minhash_pairs(), *self._wildcard_pairs()]
        left = [np.arange(len(first)), *(rows[a] for a, _ in pairs)]
        right = [first, *(rows[b] for _, b in pairs)]
        return connected_components(len(first), np.concatenate(left), np.concatenate(right))

    def _minhash_pairs(self) -> list[tuple[Ints, Ints]]:
        signatures = np.array(self._signatures, dtype=np.uint32).reshape(-1, PERMUTATIONS)
        members = np.arange(len(signatures))

        def similar(a: Ints, b: Ints) -> NDArray[np.bool_]:
            return np.asarray(np.count_nonzero(signatures[a] == signatures[b], axis=1) >= self._needed)

        size = _band_rows(self._threshold)
        pairs = []
        for start in range(0, PERMUTATIONS - size + 1, size):
            band = signatures[:, start : start + size].astype(np.uint64)
            pairs.append(_match_in_buckets(_mix(_polynomial(band)), members, similar))
        return pairs

    def _wildcard_pairs(self) -> list[tuple[Ints, Ints]]:
        lengths = np.array(self._lengths, dtype=np.int64)
        flat = np.array(self._words, dtype=np.uint64)
        starts = np.cumsum(lengths) - lengths
        keys, members = [], []
        for length in np.unique(lengths[lengths > 0]):
            rows = np.flatnonzero(lengths == length)
            table = flat[starts[rows][:, None] + np.arange(length)]
            keys.append(_wildcard_keys(table).ravel())
            members.append(np.repeat(rows, length + 1))
        if not keys:
            return []

        def one_word_apart(a: Ints, b: Ints) -> NDArray[np.bool_]:
            return _one_word_apart(flat, starts, lengths, a, b)

        return [_match_in_buckets(np.concatenate(keys), np.concatenate(members), one_word_apart)]


def straddling(groups: Ints, splits: Ints) -> int:
    """Number of groups that have rows in more than one split; groups and splits: [rows]. 0 is the aim."""
    pairs = np.unique(np.stack([np.asarray(groups), np.asarray(splits)], axis=1), axis=0)
    return int(np.count_nonzero(np.unique(pairs[:, 0], return_counts=True)[1] > 1))


def connected_components(count: int, a: Ints, b: Ints) -> Ints:
    """Smallest node of each node's component [count], in the graph of edges a[i]-b[i] between `count` nodes."""
    labels = np.arange(count)
    while True:
        left, right = labels[a], labels[b]
        apart = left != right
        if not apart.any():
            return labels
        a, b, left, right = a[apart], b[apart], left[apart], right[apart]
        np.minimum.at(labels, np.maximum(left, right), np.minimum(left, right))
        while not np.array_equal(labels, compressed := labels[labels]):
            labels = compressed


class _WordHashes(dict[str, int]):
    """64-bit hash of each word, the same in every process (Python's own hash is salted)."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        value = int.from_bytes(digest, "big")
        self[word] = value
        return value

    def of(self, found: list[str]) -> Hashes:
        if len(self) > WORDS_CACHED:
            self.clear()
        return np.fromiter(map(self.__getitem__, found), dtype=np.uint64, count=len(found))


def _least_words(threshold: float) -> int:
    """Words from which a row has wildcard keys: the least n for which 1 - 1/(n + 1) reaches the threshold."""
    least, most = WILDCARD_WORDS
    return next((n for n in range(least, most + 1) if 1 - 1 / (n + 1) >= threshold - 1e-9), most + 1)


def _band_rows(threshold: float) -> int:
    """Rows of a band: the most for which 99 % of the pairs at the threshold still share a bucket."""
    sizes = range(16, 1, -1)
    return next((r for r in sizes if 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= 0.99), 1)


def _powers(count: int) -> Hashes:
    return np.cumprod(np.array([1] + [_BASE] * (count - 1), dtype=np.uint64), dtype=np.uint64)


def _polynomial(table: Hashes) -> Hashes:
    """Polynomial hash of each row of a table [rows, n], modulo 2**64."""
    result: Hashes = (table * _powers(table.shape[1])).sum(axis=1, dtype=np.uint64)
    return result


def _word_shingles(hashes: Hashes) -> Hashes:
    return _mix(_polynomial(np.lib.stride_tricks.sliding_window_view(hashes, SHINGLE_WORDS)))


def _short_shingles(normal: str, hashes: Hashes) -> Hashes:
    """Words and character 4-shingles of a row of few words, as it stands after normalization."""
    data = f" {normal} ".encode("utf-32-le", "surrogatepass")
    points = np.frombuffer(data, dtype=np.uint32).astype(np.uint64)
    if len(points) < SHINGLE_CHARS:
        return hashes
    windows = np.lib.stride_tricks.sliding_window_view(_mix(points), SHINGLE_CHARS)
    return np.concatenate([hashes, _mix(_polynomial(windows))])


def _signature(shingles: Hashes) -> NDArray[np.uint32]:
    """MinHash [128]: the least value of the shingles under each permutation (multiply, add, top bits)."""
    least = np.full(PERMUTATIONS, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(shingles), CHUNK):
        values = np.multiply.outer(shingles[start : start + CHUNK], _MULTIPLIERS)
        values += _OFFSETS
        np.minimum(least, values.min(axis=0), out=least)
    return (least >> np.uint64(32)).astype(np.uint32)


def _wildcard_keys(table: Hashes) -> Hashes:
    """Keys [rows, n + 1] of rows of n words [rows, n]: the hash of the row, and that without each word."""
    terms = table * _powers(table.shape[1])
    through = np.cumsum(terms, axis=1, dtype=np.uint64)  # words up to and with this one
    whole = through[:, -1:]
    # Behind the word left out every word moves one place forward: one power less, by the inverse of the base.
    without = through - terms + (whole - through) * np.uint64(pow(_BASE, -1, 2**64))
    return np.concatenate([whole, without], axis=1)


def _one_word_apart(flat: Hashes, starts: Ints, lengths: Ints, a: Ints, b: Ints) -> NDArray[np.bool_]:
    """Whether rows a[i] and b[i] are at most one word substituted, inserted or deleted apart."""
    places = np.arange(WILDCARD_WORDS[1])
    shared = np.minimum(lengths[a], lengths[b])
    inside = places < shared[:, None]

    def common(first: Ints, second: Ints, step: int) -> Any:
        at_a = np.where(inside, first[:, None] + step * places, 0)
        at_b = np.where(inside, second[:, None] + step * places, 0)
        equal = inside & (flat[at_a] == flat[at_b])
        return np.where(equal.all(axis=1), equal.shape[1], np.argmin(equal, axis=1))

    ahead = common(starts[a], starts[b], 1)
    behind = common(starts[a] + lengths[a] - 1, starts[b] + lengths[b] - 1, -1)
    return np.asarray(ahead + behind >= np.maximum(lengths[a], lengths[b]) - 1)


def _match_in_buckets(keys: Hashes, rows: Ints, alike: Callable[[Ints, Ints], NDArray[np.bool_]]) -> tuple[Ints, Ints]:
    """Pairs of rows with the same key that `alike` confirms. keys, rows: [entries].

    In every round the first row left in a bucket leads it; the rows that are like it leave with it. After 8
    rounds the rest of a bucket stays apart, so the cost is linear in the entries however full a bucket is.
    """
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    left, right = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for _ in range(LEADERS):
        leads = np.ones(len(keys), dtype=np.bool_)
        leads[1:] = keys[1:] != keys[:-1]
        others = np.flatnonzero(~leads)
        if not len(others):
            break
        a, b = rows[others], rows[leads][np.cumsum(leads) - 1][others]
        hits = [alike(a[i : i + CHUNK], b[i : i + CHUNK]) for i in range(0, len(a), CHUNK)]
        hit = np.concatenate(hits)
        left.append(a[hit])
        right.append(b[hit])
        keys, rows = keys[others[~hit]], rows[others[~hit]]
    return np.concatenate(left), np.concatenate(right)
