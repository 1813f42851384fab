"""Time-stamps of the ledger's checkpoints, in words."""

from __future__ import annotations

from collections.abc import Mapping

from fedsparse.audit.conservation import Finding
from fedsparse.audit.report.words import FINDINGS, Pair, count, plural, printable
from fedsparse.audit.timestamp import Doubt, Stamp

_DOUBTS: Mapping[Doubt, str] = {
    Doubt.NO_LIBRARY: "タイムスタンプを読み取るライブラリがない（pip install rfc3161-client）",
    Doubt.NO_ROOTS: "時刻認証局のルート証明書が指定されておらず、署名を検証していない",
    Doubt.UNREADABLE: "読み取れない（改変されている、または要求が拒否されるなどタイムスタンプを含む応答ではない）",
    Doubt.ALGORITHM: "SHA-256 に対するものではなく、fedsparse の要求によるものではない",
    Doubt.SIGNATURE: "署名が指定されたルート証明書につながらない（改変されている、または別の認証局のもの）",
    Doubt.OTHER: "この記録のどのチェックポイントのものでもない（別の台帳、以後の記録、または履歴の書き換え）",
}


def stamp_sentence(stamp: Stamp) -> Pair:
    """Return what a time-stamp shows, the finding first."""
    name, finding = printable(stamp.name), FINDINGS[stamp.finding]
    said = Pair(f"{name}: {finding.en}: ", f"{name}：{finding.ja}：")
    told = [one for one in (_doubted(stamp), _covered(stamp)) if one is not None]
    return Pair(
        said.en + "; ".join(one.en for one in told) + ".", said.ja + "。".join(one.ja for one in told) + "。"
    )


def _doubted(stamp: Stamp) -> Pair | None:
    return None if stamp.doubt is None else Pair(stamp.doubt.value, _DOUBTS[stamp.doubt])


def _covered(stamp: Stamp) -> Pair | None:
    if not stamp.size or stamp.at is None:
        return None
    moment = f"{stamp.at:%Y-%m-%d %H:%M:%S} UTC"
    first = plural(stamp.size, "entry")
    late = Pair("", "")
    if stamp.late_ms:
        seconds = f"{stamp.late_ms / 1000:,.1f}"
        late = Pair(
            f", though the plant dates the last of them {seconds} s later",
            f"（ただし工場の時計では、最後の記録はその {seconds} 秒後）",
        )
    said = Pair(
        f"the first {first} existed by {moment}{late.en}",
        f"先頭の {count(stamp.size)} 件は {moment} までに存在していた{late.ja}",
    )
    if stamp.finding is Finding.VERIFIED:
        return said
    return Pair(f"by its own word, {said.en}", f"タイムスタンプの主張によれば、{said.ja}")
