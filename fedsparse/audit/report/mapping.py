"""Facts beside the clauses of laws and standards that ask for them: no claim that a clause is fulfilled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fedsparse.audit.conservation import Finding, Line, worst
from fedsparse.audit.report.gathering import Gathered
from fedsparse.audit.report.words import NOTHING, Pair, printable, why_of

_STATED = Pair(
    "stated by the site; the evidence neither shows nor refutes it",
    "工場の申告であり、証拠からは確認も否定もできない",
)
_UNSTATED = Pair("not stated", "記載がない")
_LONGEST_STATEMENT = 2000


@dataclass(frozen=True)
class Mapped:
    """One fact beside one clause.

    Attributes:
        clause: its number.
        asks: what it is about.
        fact: what the evidence shows, or the site states.
        finding: whether the fact holds.
        why: why it is not verified; empty where it is.
    """

    clause: str
    asks: Pair
    fact: Pair
    finding: Finding
    why: Pair

    @property
    def told(self) -> Pair:
        """The finding's reason in brackets, or nothing."""
        return Pair(f" ({self.why.en})", f"（{self.why.ja}）") if self.why.en else NOTHING


@dataclass(frozen=True)
class Standard:
    """A law or standard, and facts for its clauses."""

    name: Pair
    lines: tuple[Mapped, ...]


def shown(clause: str, asks: Pair, fact: Pair, *lines: Line) -> Mapped:
    """Return a fact that the evidence itself shows, as far as all of these findings go."""
    found = worst(lines)
    return Mapped(clause, asks, fact, found.finding, why_of(found))


def stated(clause: str, asks: Pair, *values: str) -> Mapped:
    """Return what only the site can say."""
    told = "; ".join(printable(value, _LONGEST_STATEMENT) for value in values if value)
    if not told:
        return Mapped(clause, asks, Pair("–", "–"), Finding.UNKNOWN, _UNSTATED)
    return Mapped(clause, asks, Pair(told, told), Finding.UNKNOWN, _STATED)


def untold(clause: str, asks: Pair, fact: Pair, why: Pair) -> Mapped:
    """Return a fact that nothing in the evidence can show."""
    return Mapped(clause, asks, fact, Finding.UNKNOWN, why)


def standards(found: Gathered) -> Iterable[Standard]:
    """Return the mapping of a report."""
    from fedsparse.audit.report.mapping_law import gdpr, meti
    from fedsparse.audit.report.mapping_security import iec, iso

    yield Standard(
        Pair("GDPR, Article 30(1): records of processing", "GDPR 第30条第1項（処理活動の記録）"),
        tuple(gdpr(found)),
    )
    yield Standard(Pair("ISO/IEC 27001:2022, Annex A", "ISO/IEC 27001:2022 附属書A"), tuple(iso(found)))
    yield Standard(Pair("IEC 62443-3-3:2013", "IEC 62443-3-3:2013"), tuple(iec(found)))
    yield Standard(
        Pair(
            "METI (Japan): Cyber/Physical Security Guidelines for Factory Systems, Ver. 1.0",
            "経済産業省「工場システムにおけるサイバー・フィジカル・セキュリティ対策ガイドライン」Ver 1.0",
        ),
        tuple(meti(found)),
    )
