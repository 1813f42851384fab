"""Saying things in two languages, and writing figures and hostile names so that people can read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from fedsparse.audit.conservation import Finding, Line, Why

_LONGEST = 200
_REPLACED = "\N{REPLACEMENT CHARACTER}"
_NAMED_AT_MOST = 12


class Lang(StrEnum):
    """Languages of the report."""

    EN = "en"
    JA = "ja"


@dataclass(frozen=True)
class Pair:
    """The same sentence in English and in Japanese."""

    en: str
    ja: str

    def to(self, lang: Lang) -> str:
        """Return it in one of them."""
        return self.ja if lang is Lang.JA else self.en

    def __add__(self, other: Pair) -> Pair:
        """Return one sentence after the other; only English has a blank between them."""
        return Pair(f"{self.en} {other.en}".strip(), self.ja + other.ja)


NOTHING = Pair("", "")
FINDINGS = {
    Finding.VERIFIED: Pair("verified", "確認済み"),
    Finding.CONTRADICTED: Pair("contradicted", "矛盾あり"),
    Finding.UNKNOWN: Pair("cannot tell", "判定不能"),
}
WHYS = {
    Why.EMPTY: Pair(Why.EMPTY.value, "台帳に記録がない"),
    Why.LEDGER: Pair(Why.LEDGER.value, "台帳そのものに矛盾がある"),
    Why.NO_AUTHORITY: Pair(Why.NO_AUTHORITY.value, "CA 証明書が指定されておらず、署名を検証していない"),
    Why.NO_HUB_RECORD: Pair(Why.NO_HUB_RECORD.value, "ハブ側の控えが提出されていない"),
    Why.UNRECEIPTED: Pair(Why.UNRECEIPTED.value, "送信記録の一部に受領証がない"),
    Why.STRANGERS: Pair(Why.STRANGERS.value, "送信記録と一致しない受領証がある"),
    Why.NO_COUNTS: Pair(Why.NO_COUNTS.value, "通信経路のカウンターが記録されていない"),
    Why.ONE_COUNT: Pair(Why.ONE_COUNT.value, "同じカウンターの値が二つ以上記録されておらず、比較できない"),
    Why.FELL: Pair(Why.FELL.value, "カウンターが、初期化されていないのに減少している"),
    Why.CLOCK: Pair(Why.CLOCK.value, "二つの計測の間に時計が戻っている"),
    Why.TOO_FEW: Pair(Why.TOO_FEW.value, "経路の送信量が、台帳に記録された送信量を下回っている"),
    Why.TOO_MANY: Pair(Why.TOO_MANY.value, "経路の送信量が、台帳から説明できる上限を超えている"),
    Why.ONE_WAY: Pair(Why.ONE_WAY.value, "説明できる上限を超えているが、受信量が計測されていない"),
    Why.RESTARTED: Pair(Why.RESTARTED.value, "カウンターが初期化されており、その間の送信量が計測されていない"),
    Why.OUTSIDE: Pair(Why.OUTSIDE.value, "最初の計測より前、または最後の計測より後の送信がある"),
    Why.STAMP: Pair(Why.STAMP.value, "提出されたタイムスタンプが台帳と合わない"),
}


def why_of(line: Line) -> Pair:
    """Return the reason of a finding."""
    return WHYS[line.why] if line.why else NOTHING


def printable(text: str, most: int = _LONGEST) -> str:
    """Return a stranger's text without what steers a terminal or reverses the reading direction."""
    clean = "".join(one if one.isprintable() else _REPLACED for one in text[: most + 1])
    return clean if len(clean) <= most else clean[:most] + "…"


def lines_of(text: str, most: int) -> str:
    """Return a stranger's text of several lines."""
    shown = text[:most]
    clean = "\n".join(
        "".join(one if one.isprintable() else _REPLACED for one in line.replace("\t", "  "))
        for line in shown.split("\n")
    )
    return clean if len(text) <= most else clean + "…"


def count(number: int) -> str:
    """Write a whole number with commas, as both languages do."""
    return f"{number:,}"


def size(number: int) -> str:
    """Write bytes with a unit of 1000."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000 or unit == "TB":
            return (
                f"{number:,} B"
                if unit == "B"
                else f"{value:,.3g} {unit}"
                if value < 100
                else f"{value:,.0f} {unit}"
            )
        value /= 1000
    raise AssertionError


def when(unix_ms: int) -> str:
    """Write a time of the ledger, in UTC; it may be any number."""
    try:
        return f"{datetime.fromtimestamp(unix_ms // 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{unix_ms} ms"


def day(moment: datetime) -> str:
    """Write a date of a certificate."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def some(numbers: Iterable[int]) -> str:
    """Write the first few of many numbers."""
    numbers = tuple(numbers)
    more = f", … ({len(numbers):,})" if len(numbers) > _NAMED_AT_MOST else ""
    return ", ".join(map(str, numbers[:_NAMED_AT_MOST])) + more


def plural(number: int, noun: str) -> str:
    """Write a number of things in English."""
    many = noun.removesuffix("y") + "ies" if noun.endswith("ry") else noun + "s"
    return f"{number:,} {noun if number == 1 else many}"
