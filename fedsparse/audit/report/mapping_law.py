"""Facts for GDPR, Article 30(1), and for Japan's guideline on the security of factories."""

from __future__ import annotations

from collections.abc import Iterator

from fedsparse.audit.conservation import Finding
from fedsparse.audit.report.gathering import Gathered
from fedsparse.audit.report.mapping import Mapped, shown, stated, untold
from fedsparse.audit.report.words import Pair, count, plural, printable

_NO_POLICY = Pair(
    "the text of a policy that messages were judged by is not in the ledger", "判定に用いた規則の本文が台帳にない"
)


def gdpr(found: Gathered) -> Iterator[Mapped]:
    """Yield facts for (a) to (g)."""
    facts = found.facts
    yield stated(
        "30(1)(a)",
        Pair("controller and contact, data protection officer", "管理者および連絡先、データ保護責任者"),
        facts.controller,
        facts.protection_officer,
    )
    yield stated("30(1)(b)", Pair("purposes of the processing", "処理の目的"), facts.purpose)
    yield stated(
        "30(1)(c)",
        Pair("categories of data subjects and of personal data", "データ主体および個人データの種類"),
        facts.data_subjects,
        facts.data_categories,
        facts.personal_data,
    )
    yield shown(
        "30(1)(d)",
        Pair("recipients", "受領者"),
        _recipients(found),
        found.reliance,
        found.conservation.filed.line,
    )
    yield stated(
        "30(1)(e)",
        Pair("transfers to third countries, safeguards", "第三国への移転と保護措置"),
        facts.hub_operator,
        facts.hub_country,
        facts.transfers,
    )
    yield stated("30(1)(f)", Pair("time limits for erasure", "消去までの期間"), facts.retention)
    yield shown("30(1)(f)", Pair("erasures carried out", "実施済みの消去"), _erasures(found), found.reliance)
    yield _limits("30(1)(g)", Pair("measures: limits of what may leave", "安全管理措置：送信の制限"), found)
    yield stated("30(1)(g)", Pair("measures: all others", "安全管理措置：その他"), facts.measures)


def meti(found: Gathered) -> Iterator[Mapped]:
    """Yield facts for its three steps."""
    facts = found.facts
    yield stated("1-1", Pair("requirements, organisation", "要件の整理、体制"), facts.responsible)
    yield stated("1-4～1-6", Pair("what is protected; zones", "保護対象の整理と重要度、ゾーンの整理"), facts.zones)
    yield stated("1-7", Pair("threats and their effect", "ゾーンと脅威の影響の整理"), facts.risks)
    yield shown(
        "2-2",
        Pair("measures in the network: communication with outside", "ネットワークにおける対策：外部との通信"),
        _crossings(found),
        found.reliance,
        found.conservation.route,
    )
    yield shown(
        "2-2",
        Pair("measures in programs and services", "業務プログラム・利用サービスにおける対策"),
        _software(found),
        found.reliance,
    )
    yield _limits("2-2", Pair("measures: limits of what may leave", "送信情報の制限"), found)
    yield shown(
        "3",
        Pair("operation: records that can be relied on", "運用・管理：記録の取得と保全"),
        Pair(
            f"{plural(found.verdict.entries, 'entry')}; "
            f"the hub has witnessed the first {count(found.verdict.witnessed)}",
            f"記録 {count(found.verdict.entries)} 件。"
            f"うち先頭の {count(found.verdict.witnessed)} 件はハブが連署済み",
        ),
        found.integrity,
    )
    yield stated("3", Pair("operation: watching and reacting", "運用・管理：監視と対処"), facts.monitoring)
    yield stated("3", Pair("supply chain", "サプライチェーン対策"), facts.supply_chain)
    yield stated("3", Pair("regular review", "計画・対策・運用体制の見直し（PDCA）"), facts.review)


def _recipients(found: Gathered) -> Pair:
    peers = ", ".join(printable(name) for name, _ in found.contents.peers) or "–"
    hubs = ", ".join(printable(one.uri) or "–" for one in found.hubs) or "–"
    return Pair(
        f"sent to {peers}; receipts signed by {hubs}",
        f"送信先：{peers}。受領証の署名者：{hubs}",
    )


def _erasures(found: Gathered) -> Pair:
    number = found.verdict.erased
    if not number:
        return Pair("no erasure is recorded", "消去の記録なし")
    return Pair(
        f"{plural(number, 'payload')} recorded as deleted; whether copies exist elsewhere is not in the evidence",
        f"ペイロード {count(number)} 件の消去を記録。ほかに複製が存在するかは、この証拠からは分からない",
    )


def _limits(clause: str, asks: Pair, found: Gathered) -> Mapped:
    rules = found.rules
    judged = sum(one.judged for one in rules.policies)
    stopped = sum(one.times for one in rules.refusals)
    digests = ", ".join(one.sha256.hex()[:16] for one in rules.policies if one.judged) or "–"
    fact = Pair(
        f"{plural(judged, 'message')} judged, {count(stopped)} refused; policies {digests}",
        f"{count(judged)} 件を判定し、{count(stopped)} 件を拒否。適用した規則：{digests}",
    )
    mapped = shown(clause, asks, fact, found.reliance)
    if rules.unrecorded and mapped.finding is Finding.VERIFIED:
        return untold(clause, asks, fact, _NO_POLICY)
    return mapped


def _crossings(found: Gathered) -> Pair:
    spans = found.conservation.spans
    sent, most = sum(one.segment.sent for one in spans), sum(one.segment.most for one in spans)
    if not spans:
        return Pair("no counts of the route to compare with", "比較できる経路の計測値なし")
    return Pair(
        f"{count(sent)} bytes left by the counted route; the ledger explains up to {count(most)}",
        f"計測対象の経路から {count(sent)} バイトを送信。台帳から説明できる上限は {count(most)} バイト",
    )


def _software(found: Gathered) -> Pair:
    versions = ", ".join(dict.fromkeys(printable(one.opening.software) for one in found.openings)) or "–"
    apps = ", ".join(dict.fromkeys(one.opening.bundle_sha256.hex()[:16] for one in found.openings)) or "–"
    return Pair(
        f"the plant recorded fedsparse {versions}, app bundle {apps}",
        f"工場の記録：fedsparse {versions}、アプリバンドル {apps}",
    )
