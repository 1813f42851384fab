"""What a report leads with: the verdict in one sentence, the budget in another, and what remains open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedsparse.audit.budget import Budget
from fedsparse.audit.conservation import Finding, Line, Received, Weighed, Why, worst
from fedsparse.audit.report.gathering import Gathered
from fedsparse.audit.report.words import Pair, count, plural, printable, size, some, why_of

CUT_SHORT = Pair(
    "The hub's own record: its last line is cut short, and was left out.",
    "ハブ側の控え：最後の行が途中で切れているため、除外しました。",
)
"""What is said of a record that ends in the middle of a line."""
_WHOLE = Pair("", "")


@dataclass(frozen=True)
class Headline:
    """The verdict.

    Attributes:
        finding: for the whole.
        sentence: what it means.
        problems: what contradicts, in the verifier's own words; the page translates those that it has room for.
        open: what cannot be told.
    """

    finding: Finding
    sentence: Pair
    problems: tuple[str, ...]
    open: tuple[Pair, ...]


def headline(found: Gathered) -> Headline:
    """Return what the page leads with; a contradiction outdoes everything else."""
    verdict, three = found.verdict, found.conservation
    lines = [*three.lines, *(Line(one.finding, Why.STAMP) for one in found.stamps)]
    whole = worst([found.integrity, *(line for line in lines if line.finding is Finding.CONTRADICTED)])
    return Headline(whole.finding, _sentence(found, whole), verdict.problems, tuple(_open(found)))


def _sentence(found: Gathered, whole: Line) -> Pair:
    verdict, three = found.verdict, found.conservation
    number = len(verdict.problems)
    if number:
        return Pair(
            f"Contradicted in {plural(number, 'place')}. Until that is explained, nothing else on this page "
            "counts: it is only what the ledger says.",
            f"{count(number)} か所に矛盾があります。"
            "原因が判明するまで、以下の内容は台帳の主張にすぎず、証拠にはなりません。",
        )
    if whole.finding is Finding.CONTRADICTED:
        why = why_of(whole)
        return Pair(
            f"Contradicted: the ledger is whole, but {why.en}.",
            f"矛盾あり：台帳自体は完全ですが、{why.ja}という矛盾があります。",
        )
    if whole.finding is Finding.UNKNOWN:
        why = why_of(whole)
        return Pair(f"Cannot tell: {why.en}.", f"判定不能：{why.ja}ため、判定できません。")
    others = three.lines[1:]
    open_lines = sum(line.finding is Finding.UNKNOWN for line in others)
    said = Pair(
        f"Verified: the record of {plural(verdict.entries, 'entry')} is whole and signed for by "
        f"{printable(found.plant)}, and nothing in the evidence contradicts it.",
        f"確認済み：{printable(found.plant)} が署名した {count(verdict.entries)} 件の記録は完全であり、"
        "これと矛盾する証拠はありません。",
    )
    if not open_lines:
        return said
    return said + Pair(
        f"{open_lines} of {len(others)} comparisons with what others counted cannot be told.",
        f"ただし、第三者の計数との照合 {len(others)} 項目のうち {open_lines} 項目は判定できません。",
    )


def _open(found: Gathered) -> Iterator[Pair]:
    verdict, three = found.verdict, found.conservation
    for name, line in zip(_COUNTS, three.lines, strict=True):
        if line.finding is Finding.UNKNOWN:
            why = why_of(line)
            yield Pair(f"{name.en}: {why.en}.", f"{name.ja}：{why.ja}。")
    if found.sources.hub_cut:
        yield CUT_SHORT
    if since := verdict.entries - verdict.witnessed:
        yield Pair(
            f"{plural(since, 'entry')} after the hub's last cosignature: nobody but the plant can vouch for what "
            "was written since.",
            f"最後の連署より後の {count(since)} 件は、工場以外の誰も確認していません。",
        )
    if (beside := sum(span.segment.beside for span in three.spans)) > 0:
        yield Pair(
            f"Beside the payloads the route carried {count(beside)} bytes: headers, handshakes, or something "
            "else; only their number is in the evidence.",
            f"経路の送信量のうち {count(beside)} バイトはペイロード以外（ヘッダー、接続の確立、その他）で、"
            "証拠から分かるのはその量だけです。",
        )
    if found.rules.unrecorded:
        yield Pair(
            "Policies: the text of at least one that messages were judged by is not in the ledger.",
            "規則：判定に用いた規則のうち、本文が台帳にないものがあります。",
        )
    if unread := len(verdict.unread):
        yield Pair(
            f"Policies: the text of {plural(unread, 'entry')} is no policy that this release reads; what was let "
            "through cannot be told.",
            f"規則：規則の記録のうち {count(unread)} 件は、このバージョンでは規則として読み取れず、"
            "何を許可していたかは判定できません。",
        )
    if found.budget.timing_bits is None:
        yield Pair(
            "Timing: when and how often something was sent is visible as well, and is not bounded here.",
            "タイミング：送信の時刻と回数も外部から見えますが、その情報量はここでは評価していません。",
        )


_COUNTS = (
    Pair("The ledger", "台帳"),
    Pair("The receipts filed", "工場が保管する受領証"),
    Pair("The hub's own record", "ハブ側の控え"),
    Pair("The counters of the route", "通信経路のカウンター"),
)


def budget_sentence(found: Gathered) -> Pair:
    """Return the figure that the report leads with.

    Where anything contradicts the ledger, or nobody has checked whose it is, the figure is only its own word;
    where nobody else has counted what left, it holds for the way through the gateway alone.
    """
    trusted = headline(found).finding is Finding.VERIFIED
    if trusted:
        return _at_most(found.budget, counted=found.conservation.route.finding is Finding.VERIFIED)
    said = _at_most(found.budget, counted=True)
    return Pair(f"By the ledger's own word: {said.en[0].lower()}{said.en[1:]}", f"台帳の主張によれば、{said.ja}")


_WAY = Pair("", "この工場から外部に")
_GATEWAY = Pair(" through its gateway", "この工場からゲートウェイを通じて外部に")


def _at_most(budget: Budget, *, counted: bool) -> Pair:
    per_image, way = budget.per_image, _WAY if counted else _GATEWAY
    if per_image is None:
        return Pair(
            f"At most {plural(budget.bits, 'bit')} have ever left this site{way.en}, none of them in an update.",
            f"{way.ja}出た情報は最大 {count(budget.bits)} ビットで、更新は一度も送信されていません。",
        )
    return Pair(
        f"At most {plural(per_image, 'bit')} per training image have ever left this site{way.en}.",
        f"{way.ja}出た情報は、学習画像 1 枚あたり最大 {count(per_image)} ビットです。",
    )


@dataclass(frozen=True)
class CountLine:
    """One line of the comparison: who counts, how many messages, how many bytes, and what follows from it."""

    name: Pair
    messages: int | None
    bytes: int | None
    note: Pair
    line: Line


def count_lines(found: Gathered) -> Iterator[CountLine]:
    """Yield the comparison, line by line."""
    three = found.conservation
    yield CountLine(
        Pair("(a) Ledger: forwarded", "(a) 台帳：送信の記録"),
        three.messages,
        three.bytes,
        Pair("updates and reason codes; payload bytes", "更新と理由コード（ペイロードのバイト数）"),
        three.ledger,
    )
    yield _received(Pair("(b) Receipts that the plant has filed", "(b) 工場が保管するハブの受領証"), three.filed)
    yield _received(Pair("(b) The hub's own record", "(b) ハブ側の控え"), three.hub)
    for span in three.spans:
        yield _span(span)
    if len(three.spans) != 1 or three.route != three.spans[0].line:
        note = _WHOLE
        if three.outside:
            note = Pair(
                f"outside any count: entries {some(three.outside)}", f"計測外の送信：記録 {some(three.outside)}"
            )
        yield CountLine(
            Pair("(c) The only route, as a whole", "(c) 唯一の通信経路（全体）"), None, None, note, three.route
        )


def _received(name: Pair, one: Received) -> CountLine:
    said = []
    if one.missing:
        where = some(one.missing)
        said.append(Pair(f"no receipt for entries {where}", f"受領証なし：記録 {where}"))
    if one.strangers:
        said.append(
            Pair(
                f"{plural(one.strangers, 'receipt')} for nothing that left",
                f"送信記録と一致しない受領証 {one.strangers} 件",
            )
        )
    note = Pair("; ".join(one.en for one in said), "、".join(one.ja for one in said))
    empty = not one.messages and not one.missing and not one.strangers
    return CountLine(name, None if empty else one.messages, None if empty else one.bytes, note, one.line)


def _span(span: Weighed) -> CountLine:
    one, route = span.segment, printable(span.segment.route)
    ratio = f"{one.sent / one.payloads:.3f}" if one.payloads else "–"
    return CountLine(
        Pair(
            f"(c) {route}, entries {one.first} to {one.last}",
            f"(c) {route}（記録 {one.first}～{one.last}）",
        ),
        one.messages,
        one.sent,
        Pair(
            f"allowed {size(one.least)} to {size(one.most)} in {one.seconds:,.0f} s; {ratio} × the ledger's bytes",
            f"許容範囲 {size(one.least)}～{size(one.most)}（{one.seconds:,.0f} 秒間）、台帳の {ratio} 倍",
        ),
        span.line,
    )
