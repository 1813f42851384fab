"""Names of a policy's keys, and their values, as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from fedsparse.config import DAYS, MetricLimits, Window

Language = Literal["en", "ja"]

LABELS: Mapping[str, tuple[str, str]] = {
    "version": ("format of the policy", "ポリシーの書式"),
    "name": ("name", "名称"),
    "revision": ("revision", "改訂番号"),
    "messages": ("kinds of messages", "送信できるメッセージの種類"),
    "bundles": ("app bundles", "アプリの束（SHA-256）"),
    "bases": ("base models", "基盤モデル"),
    "spaces": ("adapter spaces", "アダプター空間"),
    "tensors": ("tensors that may be changed", "変更できるテンソル"),
    "tensors_denied": ("tensors that may never be changed", "変更を禁じるテンソル"),
    "codings": ("ways to write values", "値の符号化方式"),
    "max_update_bytes": ("bytes of one message", "1通の上限バイト数"),
    "max_nnz": ("values in one update", "1回の更新に含まれる値の数"),
    "max_density": ("share of the adapter in one update", "1回の更新が占めるアダプターの割合"),
    "clip_norm": ("L2 norm of an update", "更新のL2ノルム"),
    "max_abs_value": ("magnitude of a value", "値の絶対値"),
    "min_samples": ("least samples behind an update", "更新に必要な最少の学習サンプル数"),
    "samples_step": ("step of the number of samples", "サンプル数の刻み"),
    "per_round.messages": ("messages in one round", "1ラウンドのメッセージ数"),
    "per_round.bytes": ("bytes in one round", "1ラウンドのバイト数"),
    "per_day.messages": ("messages in 24 hours", "24時間のメッセージ数"),
    "per_day.bytes": ("bytes in 24 hours", "24時間のバイト数"),
    "per_day.calls": ("calls in 24 hours", "24時間の呼び出し回数"),
    "timezone": ("time zone", "時間帯"),
    "windows": ("when something may leave", "送信できる時間"),
    "minimum": ("smallest value", "最小値"),
    "maximum": ("largest value", "最大値"),
    "digits": ("significant digits", "有効桁数"),
    "decimals": ("decimals", "小数点以下の桁数"),
}
BITS: Mapping[str, str] = {"fp32": "32", "bf16": "16", "int8": "8", "int4": "4", "ternary": "1.6"}
"""Bits of one value, without the scales that blocks of integers share."""
_LISTS = ("bundles", "bases", "spaces")
_SHOWN_DIGITS = 16
_DAYS_JA = dict(zip(DAYS, "月火水木金土日", strict=True))


def label(key: str, lang: Language) -> str:
    """Return what a key of egress.toml, or of a metric in it, means."""
    return LABELS[key][lang == "ja"]


def told(key: str, value: object, lang: Language) -> str:
    """Return a value as people read it; lists of digests by their beginnings."""
    english = lang == "en"
    if key == "windows":
        return told_windows(value, lang)  # type: ignore[arg-type] # so it is under this key
    if value is None:
        if key in _LISTS:
            return "any" if english else "すべて"
        return "no limit" if english else "制限なし"
    if isinstance(value, tuple):
        shown = [one[:_SHOWN_DIGITS] if key in _LISTS else str(one) for one in value]
        return ", ".join(shown) or ("none" if english else "なし")
    if key == "max_density" and isinstance(value, float):
        return f"{value * 100:.6g} %"
    return f"{value:,}" if isinstance(value, int) else str(value) or "—"


def told_metric(limit: MetricLimits | None, lang: Language) -> str:
    """Return a metric's range and precision."""
    if limit is None:
        return "kept here" if lang == "en" else "送信しない"
    if lang == "en":
        return (
            f"from {limit.minimum:g} to {limit.maximum:g}, at most {limit.digits} significant digits "
            f"and {limit.decimals} decimals"
        )
    return (
        f"{limit.minimum:g}から{limit.maximum:g}まで、有効数字{limit.digits}桁以内、"
        f"小数点以下{limit.decimals}桁以内"
    )


def told_windows(windows: tuple[Window, ...] | None, lang: Language) -> str:
    """Return the times of the week."""
    english = lang == "en"
    if windows is None:
        return "at any time" if english else "いつでも"
    if not windows:
        return "never" if english else "なし"
    return "; ".join(
        f"{', '.join(window.days)} {window.start} to {window.end}"
        if english
        else f"{'・'.join(_DAYS_JA[day] for day in window.days)} {window.start}〜{window.end}"
        for window in windows
    )
