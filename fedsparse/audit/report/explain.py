"""The report in a dozen sentences, for a works council: nothing that has to be looked up."""

from __future__ import annotations

from collections.abc import Iterator

from fedsparse.audit.conservation import Conservation, Finding, Line, Why
from fedsparse.audit.entry import EntryKind
from fedsparse.audit.report.control import control_sentence
from fedsparse.audit.report.gathering import Gathered
from fedsparse.audit.report.translation import told
from fedsparse.audit.report.verdicts import CUT_SHORT, budget_sentence, headline
from fedsparse.audit.report.words import Pair, count, plural, printable, size, when, why_of


def explain(found: Gathered) -> Iterator[Pair]:
    """Yield the sentences, the verdict first."""
    head = headline(found)
    yield head.sentence
    for problem in head.problems[:3]:
        said = told(problem)
        yield Pair(f"  {printable(said.en, 400)}", f"  {printable(said.ja, 400)}")
    yield _period(found)
    yield _messages(found)
    yield _nature(found)
    yield budget_sentence(found)
    yield Pair(
        "For comparison: a photograph of a small part, stored as a file of 50 kB, holds 400,000 bits.",
        "参考：50 kB のファイルに保存した写真 1 枚は、40 万ビットに相当します。",
    )
    yield _refusals(found)
    yield control_sentence(found.control)
    yield _arrival(found)
    if found.sources.hub_cut:
        yield CUT_SHORT
    yield _route(found)
    yield _witness(found)
    yield _erased(found)
    yield Pair(
        "The gateway, the one program that may send, is built to let out no images, texts or names of people: it "
        "checks every message, and refuses what is not a list of changed numbers, a listed figure, or a code.",
        "送信を許された唯一のプログラムであるゲートウェイは、画像、文章、個人名を送信しないように作られています。"
        "すべてのメッセージを送信前に検査し、数値の変化量、許可された指標、理由コード以外は拒否します。",
    )
    yield Pair(
        "What this record cannot show: that numbers do not betray anything of the images behind them. The figure "
        "above says how much at most they could, on average over the images; of one of them it may be more.",
        "この記録が示せないこともあります。送信された数値から元の画像について何も分からない、という保証はありません。"
        "上の数値は、分かりうる量の上限を画像 1 枚あたりの平均で示したもので、"
        "特定の 1 枚についてはこれを超えることもありえます。",
    )


def _period(found: Gathered) -> Pair:
    name = printable(found.plant) or "–"
    first, last = map(when, found.times)
    if not found.verdict.entries:
        return Pair("The record is empty.", "記録は空です。")
    return Pair(
        f"This is the record of what the plant {name} sent between {first} and {last}.",
        f"これは、工場 {name} が {first} から {last} までに送信したものの記録です。",
    )


def _messages(found: Gathered) -> Pair:
    three, verdict = found.conservation, found.verdict
    codes = three.messages - verdict.updates
    return Pair(
        f"{plural(verdict.updates, 'update')} and {plural(codes, 'reason code')} left, "
        f"{size(three.bytes)} together.",
        f"送信されたのは、更新 {count(verdict.updates)} 件と理由コード {count(codes)} 件、"
        f"合計 {size(three.bytes)} です。",
    )


def _nature(found: Gathered) -> Pair:
    values = sum(number for _, number in found.contents.tensors)
    figures = len(found.contents.metrics)
    return Pair(
        f"The updates hold {count(values)} numbers, by which a shared model is to be changed, and "
        f"{plural(figures, 'figure')} such as the quality of the model.",
        f"更新の内容は、共有モデルを変更するための数値 {count(values)} 個と、"
        f"モデルの品質などの指標 {count(figures)} 種類です。",
    )


def _refusals(found: Gathered) -> Pair:
    stopped = sum(one.times for one in found.rules.refusals)
    if not stopped:
        return Pair("The plant's own rules had to stop nothing.", "工場の規則によって止められた送信はありません。")
    return Pair(
        f"The plant's own rules stopped {plural(stopped, 'message')}; in their place only a code was sent.",
        f"工場の規則により {count(stopped)} 件の送信が止められ、代わりに理由コードのみが送信されました。",
    )


def _arrival(found: Gathered) -> Pair:
    three = found.conservation
    if not three.messages and not three.filed.strangers:
        return Pair("Nothing left that the hub could confirm.", "ハブが受領を確認すべき送信はありません。")
    line = _confirmed(three)
    if line.finding is Finding.VERIFIED:
        return Pair(
            f"The hub has confirmed by its signature each of the {count(three.messages)} that left.",
            f"送信された {count(three.messages)} 件すべてについて、ハブの署名付き受領証があります。",
        )
    why = why_of(line)
    return Pair(
        f"Whether the hub received exactly what the plant recorded cannot be said: {why.en}."
        if line.finding is Finding.UNKNOWN
        else f"What the hub received is not what the plant recorded: {why.en}.",
        f"ハブの受領内容と工場の記録が一致するかは判定できません（{why.ja}）。"
        if line.finding is Finding.UNKNOWN
        else f"ハブの受領内容と工場の記録が一致しません（{why.ja}）。",
    )


def _confirmed(three: Conservation) -> Line:
    """Return what receipts show, wherever they are: what only the hub has kept of them is signed as well."""
    filed, hub = three.filed.line, three.hub.line
    return hub if filed.finding is Finding.UNKNOWN and hub.why is not Why.NO_HUB_RECORD else filed


def _route(found: Gathered) -> Pair:
    line = found.conservation.route
    if line.finding is Finding.VERIFIED:
        return Pair(
            "The computer's own count of what left by its only route to the outside fits the record, within what "
            "addressing and encryption may add.",
            "外部への唯一の経路について、コンピューター自身が数えた送信量は、"
            "宛先情報や暗号化による増加分の範囲内で記録と合致しています。",
        )
    why = why_of(line)
    if line.finding is Finding.CONTRADICTED:
        return Pair(
            f"The computer's own count of what left does not fit the record: {why.en}.",
            f"コンピューター自身が数えた送信量は、記録と合致しません（{why.ja}）。",
        )
    return Pair(
        f"Whether anything left past this record cannot be said from it: {why.en}.",
        f"この記録を経ずに送信されたものがないかは、この証拠からは判定できません（{why.ja}）。",
    )


def _witness(found: Gathered) -> Pair:
    verdict = found.verdict
    if not verdict.witnessed and not verdict.receipts:
        return Pair(
            "Nobody but the plant has signed for this record yet.",
            "この記録に署名しているのは、まだ工場だけです。",
        )
    if not verdict.witnessed:
        why, number = why_of(found.integrity), verdict.receipts
        return Pair(
            f"The record comes with {plural(number, 'receipt')} in the hub's name; that does not count: {why.en}.",
            f"記録にはハブ名義の受領証が {count(number)} 件ありますが、ここでは根拠になりません（{why.ja}）。",
        )
    first, every = count(verdict.witnessed), plural(verdict.entries, "entry")
    if found.integrity.finding is not Finding.VERIFIED:
        why = why_of(found.integrity)
        return Pair(
            f"The record names the hub as having signed for the first {first} of {every}; that does not count: "
            f"{why.en}.",
            f"記録によれば先頭の {first} 件（全 {count(verdict.entries)} 件）にハブも署名していますが、"
            f"ここでは根拠になりません（{why.ja}）。",
        )
    return Pair(
        f"The hub has also signed for the first {first} of {every}: whoever changes one of these afterwards, the "
        "plant itself included, contradicts the hub's signature.",
        f"全 {count(verdict.entries)} 件の記録のうち先頭の {first} 件にはハブも署名しており、"
        "工場自身を含め、誰かが後から変更すればハブの署名と矛盾します。",
    )


def _erased(found: Gathered) -> Pair:
    kept = sum(entry is not None and int(entry.kind) == EntryKind.UPDATE for entry in found.entries)
    gone = {one.digest: one.sequence for one in found.erased}
    number = sum(
        entry is not None and gone.get(entry.payload_sha256, 0) > entry.sequence for entry in found.entries
    )
    if not number and (not kept or found.verdict.problems):
        return Pair("No content is recorded as deleted.", "内容が消去されたという記録はありません。")
    if not number:
        return Pair(
            f"The exact bytes of all {plural(kept, 'update')} are kept, and can be looked at again.",
            f"更新 {count(kept)} 件の送信データはすべて保管されており、内容を改めて確認できます。",
        )
    return Pair(
        f"Of what was sent or stopped, the content of {plural(number, 'message')} has since been deleted, as "
        "recorded.",
        f"送信または拒否されたもののうち、{count(number)} 件の内容は、記録のとおり既に消去されています。",
    )
