"""What an auditor should ask about: everything in a ledger that is not as usual."""

from __future__ import annotations

from collections.abc import Iterator

from fedsparse.audit.report.gathering import Gathered
from fedsparse.audit.report.words import Pair, count, plural, some

_REQUEST = "request"


def exceptions_in(found: Gathered) -> Iterator[Pair]:
    """Yield them; a gap or an altered entry is among the contradictions already."""
    yield from _receipts(found)
    yield from _keys(found)
    yield from _records(found)


def _receipts(found: Gathered) -> Iterator[Pair]:
    verdict = found.verdict
    if verdict.missing_receipts:
        where = some(verdict.missing_receipts)
        yield Pair(
            f"No receipt for entries {where}: under way, never delivered, or the hub's word was lost.",
            f"記録 {where} に受領証がありません（送信中、未達、または受領証の紛失）。",
        )
    if verdict.unfiled:
        where = some(verdict.unfiled)
        yield Pair(
            f"The hub's receipts {where} are not filed: lost on their way, or for another ledger of this plant.",
            f"ハブの受領証 {where} が保管されていません（紛失、またはこの工場の別の台帳宛て）。",
        )


def _keys(found: Gathered) -> Iterator[Pair]:
    for name, number in (
        (Pair("keys for one ledger", "台帳の鍵"), len(found.ledger_keys)),
        (Pair("certificates of the plant", "工場の証明書"), len(found.plants)),
        (Pair("certificates of the hub", "ハブの証明書"), len(found.hubs)),
        (Pair("witness keys", "連署の鍵"), len(found.witnessing.keys)),
    ):
        if number > 1:
            yield Pair(
                f"There are {number} {name.en}, not one; they are listed below.",
                f"{name.ja}が {number} 個あります（下記参照）。",
            )


def _records(found: Gathered) -> Iterator[Pair]:
    if found.backwards:
        where = some(found.backwards)
        yield Pair(
            f"Time goes backwards at entries {where}; their numbers, not their times, give the order.",
            f"記録 {where} で時刻が逆行しています。順序は時刻ではなく記録番号で決まります。",
        )
    if asked := {one.digest for one in found.erased if one.cause == _REQUEST}:
        yield Pair(
            f"{plural(len(asked), 'payload')} deleted on request, not because their time was over.",
            f"保管期間の満了ではなく、請求により消去されたペイロードが {count(len(asked))} 件あります。",
        )
    if unreadable := found.budget.unreadable:
        yield Pair(
            f"{plural(unreadable, 'entry')} cannot be read, and are in no figure of this page.",
            f"読み取れない記録が {count(unreadable)} 件あり、このページの数値に含まれていません。",
        )
    if left := len(found.verdict.left_over):
        yield Pair(
            f"Payloads that belong to no entry in {plural(left, 'file')} beside the ledger: being recorded when "
            "it was read, left by a crash, or of entries that are gone.",
            f"どの記録にも属さないペイロードのファイルが {count(left)} 件あります"
            "（読み取り時に記録中だったもの、異常終了で残ったもの、または失われた記録のもの）。",
        )
    for one in found.rules.unrecorded:
        digest = one.sha256.hex()[:16]
        yield Pair(
            f"{plural(one.judged, 'message')} judged by policy {digest}, whose text is not recorded.",
            f"規則 {digest} により判定された {count(one.judged)} 件について、規則の本文が記録されていません。",
        )
