"""Finding the Japanese of what the verifier says, whose words are English everywhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from fedsparse.audit.report.messages import MESSAGES, NAMES
from fedsparse.audit.report.messages_delta import DECODING
from fedsparse.audit.report.words import Pair

_VALUE, _WHY, _NAME = "{}", "{why}", "{name}"
_PLACE = re.compile(r"(\{(?:why|name)?\})")
_RECEIPT = re.compile(r"the hub's receipt (\d+)")
_ANY = "(.+?)"
_NAMED = "|".join([*map(re.escape, sorted(NAMES, key=len, reverse=True)), _RECEIPT.pattern.replace("(", "(?:")])
_PATTERNS = {_VALUE: _ANY, _WHY: _ANY, _NAME: f"({_NAMED})"}
_STOP = ". "  # between what is wrong and its remedy
_LONGEST = 1000  # a stranger's names may be of any length, and matching takes longer with every byte
_DEEPEST = 10


@dataclass(frozen=True)
class _Form:
    """A message in both languages.

    Attributes:
        english: matches it.
        japanese: with the places for what was matched.
        places: what stands at each.
        rank: the more specific before the more general.
    """

    english: re.Pattern[str]
    japanese: str
    places: tuple[str, ...]
    rank: tuple[int, int]


def told(message: str) -> Pair:
    """Return a problem of a verdict in both languages; what nobody has translated of it stays English."""
    if len(message) > _LONGEST:
        return Pair(message, message)
    return Pair(message, _Search(strict=True).said(message) or _Search(strict=False).said(message) or message)


class _Search:
    """Looks for the form of a message, and of those in it.

    Args:
        strict: every message in it must be known; otherwise one that is not stays as it is.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._known: dict[str, str | None] = {}  # names that repeat messages must not double the work with each

    def said(self, text: str, depth: int = 0) -> str | None:
        """Return a message in Japanese, or None."""
        if depth > _DEEPEST:
            return None
        if text not in self._known:
            self._known[text] = self._by_form(text, depth) or self._with_remedy(text, depth)
        return self._known[text]

    def _by_form(self, text: str, depth: int) -> str | None:
        for form in _forms():
            if (match := form.english.fullmatch(text)) is None:
                continue
            parts = [
                self._part(place, part, depth) for place, part in zip(form.places, match.groups(), strict=True)
            ]
            if None not in parts:
                return form.japanese.format(*parts)
        return None

    def _part(self, place: str, text: str, depth: int) -> str | None:
        if place == _VALUE:
            return text
        if place == _NAME:
            return NAMES.get(text) or _RECEIPT.sub(r"ハブの受領証 \1", text)
        return self.said(text, depth + 1) or (None if self._strict else text)

    def _with_remedy(self, text: str, depth: int) -> str | None:
        what, stop, remedy = text.rpartition(_STOP)
        if not stop:
            return None
        both = (self.said(what, depth + 1), self.said(remedy, depth + 1))
        return None if None in both else f"{both[0]}。{both[1]}"


@cache
def _forms() -> tuple[_Form, ...]:
    return tuple(sorted((_form(*item) for item in {**MESSAGES, **DECODING}.items()), key=lambda form: form.rank))


def _form(english: str, japanese: str) -> _Form:
    parts = _PLACE.split(english)
    fixed, places = parts[::2], parts[1::2]
    pattern = "".join(_PATTERNS[part] if number % 2 else re.escape(part) for number, part in enumerate(parts))
    rank = (-len(fixed[0]), -sum(map(len, fixed)))
    return _Form(re.compile(pattern, re.DOTALL), japanese, tuple(places), rank)
