"""Facts for ISO/IEC 27001:2022, Annex A, and IEC 62443-3-3:2013."""

from __future__ import annotations

from collections.abc import Iterator

from fedsparse.audit.conservation import Finding
from fedsparse.audit.report.gathering import Gathered
from fedsparse.audit.report.mapping import Mapped, shown, stated, untold
from fedsparse.audit.report.words import Pair, count, plural, some

_NO_SOURCE = Pair("which clock the plant follows is not in the evidence", "工場の時刻源は証拠に含まれない")
_NO_WITNESS = Pair("nobody else has witnessed the ledger", "台帳に第三者の連署がない")
_SOFTWARE = Pair(
    "a property of the software: a ledger cannot show what did not happen",
    "ソフトウェアの性質であり、起きなかったことは台帳に表れない",
)


def iso(found: Gathered) -> Iterator[Mapped]:
    """Yield facts for five controls."""
    yield shown("A.5.28", Pair("collection of evidence", "証拠の収集"), _evidence(found), found.integrity)
    yield _protection("A.5.33", Pair("protection of records", "記録の保護"), found)
    yield shown(
        "A.8.12",
        Pair("data leakage prevention", "データ漏えい防止"),
        _left(found),
        found.reliance,
        *found.conservation.lines,
    )
    yield shown("A.8.15", Pair("logging", "ログ取得"), _log(found), found.integrity)
    yield untold("A.8.17", Pair("clock synchronization", "時刻の同期"), clock(found), _NO_SOURCE)


def iec(found: Gathered) -> Iterator[Mapped]:
    """Yield facts for restricted data flow, timely response to events, and what they rest on."""
    facts, three = found.facts, found.conservation
    yield shown("SR 2.8", Pair("auditable events", "監査対象事象"), _log(found), found.integrity)
    yield stated("SR 2.9", Pair("audit storage capacity", "監査記録の保存容量"), facts.storage)
    yield untold(
        "SR 2.10",
        Pair("response to audit processing failures", "監査処理の失敗への対応"),
        Pair("the gateway sends nothing that it could not record", "ゲートウェイは、記録できないものを送信しない"),
        _SOFTWARE,
    )
    yield _timestamps(found)
    yield shown(
        "SR 2.12",
        Pair("non-repudiation", "否認防止"),
        Pair(
            f"the ledger's key signed for by {plural(len(found.plants), 'certificate')} of the plant; "
            f"{plural(found.verdict.receipts, 'receipt')} signed by the hub",
            f"台帳の鍵に、工場の証明書 {count(len(found.plants))} 枚で署名。"
            f"ハブの署名付き受領証 {count(found.verdict.receipts)} 件",
        ),
        found.reliance,
        three.filed.line,
    )
    yield _protection("SR 3.9", Pair("protection of audit information", "監査情報の保護"), found)
    yield stated("SR 5.1", Pair("network segmentation", "ネットワークの分離"), facts.network)
    yield shown(
        "SR 5.2",
        Pair("zone boundary protection", "ゾーン境界の保護"),
        _boundary(found),
        found.reliance,
        three.route,
    )
    yield shown(
        "SR 5.3",
        Pair("general purpose person-to-person communication", "汎用的な個人間通信の制限"),
        Pair(
            "messages that left are deltas with named figures, or reason codes; the only text in them is "
            f"{plural(len(found.contents.metrics), 'name')} of figures",
            "送信したメッセージは、差分と名前付きの数値、または理由コードのみ。"
            f"含まれる文字列は指標名 {count(len(found.contents.metrics))} 種類に限られる",
        ),
        found.reliance,
    )
    yield stated("SR 5.4", Pair("application partitioning", "アプリケーションの分割"), "")
    yield stated("SR 6.1", Pair("audit log accessibility", "監査ログへのアクセス"), facts.access)
    yield stated("SR 6.2", Pair("continuous monitoring", "継続的な監視"), facts.monitoring)


def clock(found: Gathered) -> Pair:
    """Return what is known of the plant's clock."""
    errors = [one.opening.clock_error_us for one in found.openings]
    known = [one for one in errors if one >= 0]
    worst = f"{max(known) / 1000:,.1f} ms" if known else ""
    said = Pair(
        f"the system's own estimate of its clock's error: at most {worst}"
        if known
        else "no estimate of its error",
        f"システム自身による時計誤差の推定：最大 {worst}" if known else "時計誤差の推定値なし",
    )
    if len(known) < len(errors) and known:
        missing = len(errors) - len(known)
        said = Pair(
            f"{said.en}, none in {plural(missing, 'opening')}",
            f"{said.ja}（うち {missing} 回の起動では推定値なし）",
        )
    if found.witnessing.lag_ms is None:
        return said
    low, high = (f"{one / 1000:+,.1f} s" for one in found.witnessing.lag_ms)
    return Pair(
        f"{said.en}; the hub's receipts are dated {low} to {high} after the entries",
        f"{said.ja}。ハブの受領時刻と記録時刻の差は {low} ～ {high}",
    )


def _timestamps(found: Gathered) -> Mapped:
    asks = Pair("timestamps", "タイムスタンプ")
    fact = Pair("every entry bears UTC in milliseconds", "全記録に協定世界時（ミリ秒）を付与")
    mapped = shown("SR 2.11", asks, fact, found.reliance)
    if found.backwards and mapped.finding is Finding.VERIFIED:
        where = some(found.backwards)
        why = Pair(f"time goes backwards at entry {where}", f"記録 {where} で時刻が逆行している")
        return untold("SR 2.11", asks, fact, why)
    return mapped


def _protection(clause: str, asks: Pair, found: Gathered) -> Mapped:
    verdict = found.verdict
    fact = Pair(
        f"the hub has cosigned the first {count(verdict.witnessed)} of {count(verdict.entries)} entries; "
        "whoever rewrites these contradicts it",
        f"全 {count(verdict.entries)} 件のうち先頭の {count(verdict.witnessed)} 件にハブが連署済み。"
        "書き換えれば連署と矛盾する",
    )
    mapped = shown(clause, asks, fact, found.integrity)
    if not verdict.witnessed and mapped.finding is Finding.VERIFIED:
        return untold(clause, asks, fact, _NO_WITNESS)
    return mapped


def _evidence(found: Gathered) -> Pair:
    return Pair(
        f"one portable record, root {found.root.hex()[:16] or '–'}, which anybody can verify offline",
        f"可搬の証拠一式（ルート {found.root.hex()[:16] or '–'}）。誰でもオフラインで検証できる",
    )


def _left(found: Gathered) -> Pair:
    stopped = sum(one.times for one in found.rules.refusals)
    return Pair(
        f"{plural(found.conservation.messages, 'message')} left with {count(found.conservation.bytes)} bytes, "
        f"{count(stopped)} refused",
        f"送信 {count(found.conservation.messages)} 件、{count(found.conservation.bytes)} バイト。"
        f"拒否 {count(stopped)} 件",
    )


def _log(found: Gathered) -> Pair:
    verdict = found.verdict
    return Pair(
        f"{count(verdict.entries)} entries: {count(verdict.updates)} updates, {count(verdict.refusals)} refusals, "
        f"{count(found.contents.calls)} calls, {count(len(found.openings))} openings",
        f"記録 {count(verdict.entries)} 件（更新 {count(verdict.updates)}、拒否 {count(verdict.refusals)}、"
        f"呼び出し {count(found.contents.calls)}、起動 {count(len(found.openings))}）",
    )


def _boundary(found: Gathered) -> Pair:
    spans = found.conservation.spans
    if not spans:
        return Pair("no counts of the route are recorded", "経路の計測値が記録されていない")
    ratio = sum(one.segment.sent for one in spans) / max(sum(one.segment.payloads for one in spans), 1)
    return Pair(
        f"bytes sent by the counted route ÷ bytes in the ledger: {ratio:.3f}",
        f"計測対象の経路の送信量 ÷ 台帳の送信量：{ratio:.3f}",
    )
