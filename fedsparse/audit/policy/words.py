"""A policy in plain words, as a works council reads it, in English or Japanese."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fedsparse.audit.policy.changes import ByteLimit, Change, Effect
from fedsparse.audit.policy.labels import BITS, Language, label, told, told_metric
from fedsparse.config import EgressSettings

_KINDS: Mapping[str, tuple[str, str]] = {
    "update": (
        "updates: changes to some of the adapter's numbers, with figures about the training; no image and no text",
        "更新：アダプターの一部の数値の変更と学習に関する指標。画像や文章は含まれません",
    ),
    "reason": (
        "reason codes: one of a fixed list of numbers that says why there is no update; no text",
        "理由コード：更新がない理由を表す、決められた番号の一つ。文章は含まれません",
    ),
    "describe": (
        "the question what the federation trains; it holds nothing of the site's",
        "連合が何を学習しているかの問い合わせ。工場の情報は含まれません",
    ),
    "attend": (
        "the announcement that the site is ready; it holds nothing of its data",
        "参加できるという知らせ。データの情報は含まれません",
    ),
}
_EFFECTS: Mapping[Effect, tuple[str, str]] = {
    Effect.LOOSER: ("LOOSER: more may leave", "緩和：より多く送信できます"),
    Effect.TIGHTER: ("tighter: less may leave", "強化：送信できるものが減ります"),
    Effect.BOTH: ("BOTH: some may leave that could not, and the reverse", "両方：緩和と強化の両面があります"),
    Effect.SAME: ("no effect on what may leave", "送信できるものは変わりません"),
}


def explain(settings: EgressSettings, lang: Language) -> list[str]:
    """Return the policy as lines of text; those that begin with "- " are items below the line before them."""
    english = lang == "en"
    lines = [_title(settings, english)]
    lines.append("Only this may leave:" if english else "送信できるもの（これ以外は送信できません）：")
    lines += [f"- {_KINDS[kind][not english]}" for kind in _KINDS if kind in settings.messages]
    if not settings.messages:
        lines.append("- nothing" if english else "- なし")
    for head, items in (
        (("An update:", "更新の条件："), _update_lines(settings, lang)),
        (("Figures that may go with it:", "更新に添えられる指標："), _metric_lines(settings, lang)),
        (("How much and when:", "量と時間の制限："), _budget_lines(settings, lang)),
    ):
        lines.append(head[not english])
        lines += [f"- {item}" for item in items]
    return [*lines, *_closing(english)]


def explain_change(change: Change, lang: Language) -> str:
    """Return one difference between two policies as a sentence, the effect last."""
    effect = _EFFECTS[change.effect][lang == "ja"]
    if change.key == "metrics":
        old, new = (told_metric(limit, lang) for limit in (change.old, change.new))  # type: ignore[arg-type]
        return f"{_metric(change.metric, lang)}: {old} → {new} ({effect})"
    old, new = (_value(change.key, value, lang) for value in (change.old, change.new))
    of = f"{_metric(change.metric, lang)}: " if change.metric else ""
    return f"{of}{label(change.key, lang)}: {old} → {new} ({effect})"


def _value(key: str, value: object, lang: Language) -> str:
    if not isinstance(value, ByteLimit):
        return told(key, value, lang)
    most = f"{value.most:,}"
    if value.limit is None:
        return f"{most} (default: messages × bytes of one)" if lang == "en" else f"{most}（既定：通数×1通の上限）"
    if value.limit <= value.most:
        return f"{value.limit:,}"
    above = f"above what messages can have: {most}" if lang == "en" else f"メッセージで送れる上限{most}を超える値"
    return f"{value.limit:,} ({above})" if lang == "en" else f"{value.limit:,}（{above}）"


def _metric(name: str, lang: Language) -> str:
    return f"metric {name}" if lang == "en" else f"指標 {name}"


def _title(settings: EgressSettings, english: bool) -> str:
    name = settings.name or ("without a name" if english else "無題")
    if english:
        return f"Egress policy, {name}, revision {settings.revision}, format {settings.version}"
    return f"送信ポリシー「{name}」改訂{settings.revision}、書式{settings.version}"


def _update_lines(settings: EgressSettings, lang: Language) -> Iterator[str]:
    english = lang == "en"
    for key in ("max_density", "max_nnz", "max_update_bytes", "clip_norm", "max_abs_value"):
        value = getattr(settings, key)
        if value is not None:
            most = told(key, value, lang)
            yield f"{label(key, lang)}: at most {most}" if english else f"{label(key, lang)}：{most}以下"
    codings = ", ".join(f"{name} ({BITS[name]} bit)" for name in settings.codings)
    yield f"{label('codings', lang)}: {codings or told('codings', (), lang)}"
    for key in ("tensors", "tensors_denied", "bundles", "bases", "spaces"):
        value = getattr(settings, key)
        if value:
            yield f"{label(key, lang)}: {told(key, value, lang)}"
        elif value is not None and key != "tensors_denied":
            yield f"{label(key, lang)}: " + (
                "none, so no update may leave" if english else "なし（更新は送信不可）"
            )
    yield f"{label('min_samples', lang)}: {told('min_samples', settings.min_samples, lang)}"
    if settings.samples_step > 1:
        yield f"{label('samples_step', lang)}: {told('samples_step', settings.samples_step, lang)}"


def _metric_lines(settings: EgressSettings, lang: Language) -> Iterator[str]:
    for name, limit in sorted(settings.metrics.items()):
        yield f"{name}: {told_metric(limit, lang)}"
    if not settings.metrics:
        yield "none" if lang == "en" else "なし"


def _budget_lines(settings: EgressSettings, lang: Language) -> Iterator[str]:
    english = lang == "en"
    for scope in ("per_round", "per_day"):
        limits = getattr(settings, scope)
        most = limits.messages * settings.max_update_bytes
        if limits.bytes is not None:
            most = min(most, limits.bytes)
        messages, size = f"{limits.messages:,}", f"{most:,}"
        where = {"per_round": ("in one round", "1ラウンド"), "per_day": ("in any 24 hours", "24時間")}[scope]
        yield (
            f"{where[0]} at most {messages} messages with {size} bytes together"
            if english
            else f"{where[1]}につき最大{messages}通、合計{size}バイト"
        )
    calls = told("per_day.calls", settings.per_day.calls, lang)
    yield f"{label('per_day.calls', lang)}: " + (f"at most {calls}" if english else f"{calls}回以下")
    zone = "" if settings.windows is None else f" ({settings.timezone})"
    yield f"{label('windows', lang)}: {told('windows', settings.windows, lang)}{zone}"
    if settings.windows is not None:
        yield (
            "the connection to the hub stands at any hour; updates and reason codes keep to these times"
            if english
            else "ハブとの接続は常時保たれます。更新と理由コードはこの時間内だけ送信されます"
        )


def _closing(english: bool) -> tuple[str, ...]:
    if english:
        return (
            "Whatever is not named here is refused, and recorded as refused.",
            "What a policy cannot see: which of the allowed numbers a trainer chooses, and whether noise was "
            "added to them. The limits bound how much the numbers can tell; they do not say what they tell.",
        )
    return (
        "ここに書かれていないものはすべて拒否され、拒否した事実が記録されます。",
        "ポリシーには分からないこと：許された範囲でどの数値が選ばれたか、ノイズが加えられたかどうか。"
        "制限は数値が伝えうる量の上限を定めるもので、その内容を示すものではありません。",
    )
