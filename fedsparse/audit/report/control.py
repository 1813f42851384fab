"""The calls that ended at the gateway, in words."""

from __future__ import annotations

from collections.abc import Mapping

from fedsparse.audit.control import Code, ControlCalls, ControlCount
from fedsparse.audit.report.words import Pair, count, plural

_GROUPS: tuple[tuple[Pair, tuple[str, ...]], ...] = (
    (Pair("heartbeat", "ハートビート"), ("send-node-heartbeat",)),
    (Pair("question for work", "タスクの問い合わせ"), ("pull-messages",)),
    (Pair("piece of a task", "タスクの断片の受け渡し"), ("pull-object",)),
    (Pair("confirmation", "受信の確認"), ("confirm-message-received",)),
    (Pair("announcement of an answer", "回答の予告"), ("push-messages",)),
    (Pair("piece of an answer", "回答の断片の受け渡し"), ("push-object",)),
    (Pair("question about the run or its app", "実行内容・アプリの問い合わせ"), ("get-run", "get-fab")),
    (
        Pair("call to sign on or off", "登録・解除"),
        ("register-node", "activate-node", "deactivate-node", "unregister-node"),
    ),
)
_CODES: Mapping[Code, Pair] = {
    Code.MALFORMED: Pair("malformed", "形式不正"),
    Code.NO_SUCH_CALL: Pair("no such call", "存在しない呼び出し"),
    Code.OVERSIZED: Pair("too large", "サイズ超過"),
    Code.UNEXPECTED: Pair("not expected", "想定外"),
    Code.VALUE: Pair("a value out of range", "値の範囲外"),
}


def control_sentence(calls: ControlCalls | ControlCount | None) -> Pair:
    """Return how many calls of which kind were answered on site, and how many were refused."""
    if calls is None:
        return Pair(
            "How many control calls were answered on site is not recorded.",
            "サイト内で応答した制御呼び出しの件数は記録されていません。",
        )
    told = [(name, sum(calls.accepted.get(call, 0) for call in group)) for name, group in _GROUPS]
    en = ", ".join(_plural(number, name.en) for name, number in told if number) or "none"
    ja = "、".join(f"{name.ja} {count(number)} 件" for name, number in told if number) or "なし"
    return Pair(
        f"Control calls answered on site: {en}; {count(calls.bytes)} bytes, none of which was sent on.",
        f"サイト内で応答した制御呼び出し：{ja}（合計 {count(calls.bytes)} バイト、外部への転送なし）。",
    ) + _refused(calls.refused)


def _refused(refused: Mapping[str, int]) -> Pair:
    if not refused:
        return Pair("None was refused.", "拒否した呼び出しはありません。")
    en = ", ".join(f"{_CODES[Code(code)].en} {count(number)}" for code, number in sorted(refused.items()))
    ja = "、".join(f"{_CODES[Code(code)].ja} {count(number)} 件" for code, number in sorted(refused.items()))
    return Pair(
        f"{count(sum(refused.values()))} more were refused: {en}.",
        f"ほかに {count(sum(refused.values()))} 件を拒否しました（{ja}）。",
    )


def _plural(number: int, noun: str) -> str:
    """Write a number of things whose noun comes first: "2 pieces of a task"."""
    first, blank, rest = noun.partition(" ")
    return f"{plural(number, first)}{blank}{rest}"
