"""The figures of a finished run: their types, how they are written, and the verdict they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, TypedDict

from rich.cells import cell_len

NOT_MEASURED = "–"
_UNITS = ("B", "kB", "MB", "GB", "TB")

_Sentence = tuple[bool | None, str, str]  # good, English, Japanese; None where there is nothing to judge


class PlantRound(TypedDict):
    """What one plant did in one round; bytes are payload bytes, ``reason`` says why there is no update."""

    plant: str
    bytes_up: int | None
    bytes_down: int | None
    train_seconds: float | None
    wait_seconds: float | None
    samples: int | None
    reason: str | None
    metrics: Mapping[str, float]


class CommittedRound(TypedDict):
    """One merged round: the event ``round_committed``.

    ``overhead_seconds`` is the round's time minus the slowest plant's training.
    """

    event: str
    time: float
    round: int
    version: int
    seconds: float
    overhead_seconds: float
    balanced_accuracy: float | None
    accuracy: float | None
    union_density: float
    plants: list[PlantRound]


class BalancedAccuracy(TypedDict):
    """Mean recall over the classes of the common test set, in [0, 1]; None where it was not measured."""

    before: float | None
    best_alone: float | None
    federated: float | None
    alone: Mapping[str, float | None]


class LedgerFigures(TypedDict):
    """What the verification of every plant's ledger found."""

    entries: int
    verified: bool
    problems: list[str]


class Summary(TypedDict):
    """Everything ``summary.json`` says about a run.

    ``alone_history`` gives, per plant, the balanced accuracy after each round's worth of training alone;
    ``plants`` its ``samples``, its ``classes`` (label to count) and any further breakdown of its data.
    ``base_model_loads_per_plant`` is that of the plant that loaded it most often.
    """

    rounds: int
    wall_seconds: float
    balanced_accuracy: BalancedAccuracy
    bytes_up_per_plant_round: float | None
    bytes_down_per_plant_round: float | None
    dense_adapter_bytes: int
    dense_model_bytes: int
    round_overhead_seconds_median: float | None
    base_model_loads_per_plant: int
    ledger: LedgerFigures
    adapter_version: int
    history: list[CommittedRound]
    alone_history: Mapping[str, list[float | None]]
    plants: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    software: Mapping[str, Any]


def score_text(value: float | None, *, signed: bool = False) -> str:
    """Write a score in [0, 1], or with ``signed`` a difference of two."""
    if value is None:
        return NOT_MEASURED
    return f"{value + 0.0:+.3f}".replace("-", "−") if signed else f"{value:.3f}"


def bytes_text(value: float | None) -> str:
    """Write a number of bytes to three digits, in powers of 1000 (1 kB = 1000 B)."""
    if value is None:
        return NOT_MEASURED
    power = 0
    while abs(value) >= 999.5 and power < len(_UNITS) - 1:
        value, power = value / 1000, power + 1
    digits = 0 if power == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {_UNITS[power]}"


def seconds_text(value: float | None) -> str:
    """Write a time in seconds, from two minutes on in minutes."""
    if value is None:
        return NOT_MEASURED
    if value < 119.95:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def share_text(part: float | None, whole: float) -> str:
    """Write ``part`` as a percentage of ``whole``, to two digits."""
    if part is None or whole <= 0:
        return NOT_MEASURED
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.2g} %"


def times_text(part: float | None, whole: float) -> str:
    """Write how many times smaller, or larger, ``part`` is than ``whole``."""
    if not part or whole <= 0:
        return NOT_MEASURED
    times, word = (whole / part, "smaller") if part <= whole else (part / whole, "larger")
    return f"{times:,.0f}× {word}" if times >= 9.95 else f"{times:.1f}× {word}"


def count_text(number: int, one: str, many: str = "") -> str:
    """Write how many there are of something."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def reason_text(reason: str | None) -> str:
    """Write a reason code of ``round.proto`` as words; empty for none."""
    return printable(str(reason or "").removeprefix("REASON_")).replace("_", " ").lower().replace("none", "")


def printable(text: str) -> str:
    """Return hostile text with nothing in it that steers a terminal or reverses the reading direction."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def shortened(text: str, cells: int) -> str:
    """Return ``text`` printable and at most ``cells`` columns wide (a Japanese character takes two)."""
    text = printable(text)
    if cell_len(text) <= cells:
        return text
    while cell_len(text) > cells - 1:
        text = text[:-1]
    return text + "…"


def median_of(values: Iterable[float | None]) -> float | None:
    """Return the median of those values that are there, None if none is."""
    present = [value for value in values if value is not None]
    return median(present) if present else None


@dataclass(frozen=True)
class Verdict:
    """What a run has shown, in one sentence per language.

    Attributes:
        tone: "bad" if the accuracy or the ledger fails, "neutral" if the accuracy compares with nothing.
    """

    tone: Literal["good", "neutral", "bad"]
    english: str
    japanese: str


def verdict(summary: Summary) -> Verdict:
    """Judge a run: a failure is said first and plainly."""
    sentences = [_accuracy(summary), _ledger(summary["ledger"])]
    sentences.sort(key=lambda sentence: sentence[0] is not False)
    judged = [good for good, _, _ in sentences]
    english = "; ".join(text for _, text, _ in sentences) + "."
    return Verdict(
        tone="bad" if False in judged else "neutral" if None in judged else "good",
        english=english[0].upper() + english[1:],
        japanese="。".join(text for _, _, text in sentences) + "。",
    )


def _accuracy(summary: Summary) -> _Sentence:
    """Compare the federation with the best plant alone, to the three decimals shown."""
    scores = summary["balanced_accuracy"]
    alone, federated = scores["best_alone"], scores["federated"]
    if not summary["rounds"]:
        return False, "no round was completed", "完了したラウンドがありません"
    if federated is None:
        return (
            None,
            "balanced accuracy was not measured, for there is no common test set",
            "共通の評価データがないため、バランス精度は測定していません",
        )
    value = score_text(federated)
    if alone is None:
        english = f"the federation reached a balanced accuracy of {value}, and no plant trained alone to compare"
        japanese = f"連合学習のバランス精度は {value} です（単独学習との比較はありません）"
        return _with_start(scores, None, english, japanese)
    gain = round(federated - alone, 3)
    difference = score_text(gain, signed=True)
    figures = f"balanced accuracy {value} against {score_text(alone)} ({difference})"
    figures_ja = f"（バランス精度 {value}、単独学習の最高 {score_text(alone)}、差 {difference}）"
    if gain > 0:
        english = f"the federation is better than every plant alone: {figures}"
        japanese = f"連合学習は、どの工場の単独学習よりも優れています{figures_ja}"
    elif gain < 0:
        english = f"the federation is worse than the best plant alone: {figures}"
        japanese = f"連合学習は、最も良い工場の単独学習に及びません{figures_ja}"
    else:
        english = f"the federation is no better than the best plant alone: {figures}"
        japanese = f"連合学習は、最も良い工場の単独学習と同じです{figures_ja}"
    return _with_start(scores, gain > 0, english, japanese)


def _with_start(scores: BalancedAccuracy, good: bool | None, english: str, japanese: str) -> _Sentence:
    """Add, where it is so, that the federation has unlearnt something."""
    before, federated = scores["before"], scores["federated"]
    if before is None or federated is None or round(federated - before, 3) >= 0:
        return good, english, japanese
    start = score_text(before)
    return (
        False,
        f"{english}, and worse than before training ({start})",
        f"{japanese}。学習前（{start}）より低下しています",
    )


def _ledger(ledger: LedgerFigures) -> _Sentence:
    """Say whether what left the plants is accounted for."""
    entries, problems = ledger["entries"], len(ledger["problems"])
    counted = count_text(entries, "entry", "entries")
    if not ledger["verified"] or problems:
        return (
            False,
            f"the ledger does not verify ({count_text(problems, 'problem')} in {counted})",
            f"台帳の検証に失敗しました（記録 {entries} 件、問題 {problems} 件）",
        )
    if not entries:
        return (
            False,
            "the ledger is empty and accounts for nothing",
            "台帳に記録がなく、何が送信されたか確認できません",
        )
    return (
        True,
        f"the ledger verifies ({counted})",
        f"台帳の検証に合格しました（記録 {entries} 件）",
    )
