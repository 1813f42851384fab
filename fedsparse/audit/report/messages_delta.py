"""Why a payload does not decode, in Japanese; in the form of :mod:`fedsparse.audit.report.messages`."""

from __future__ import annotations

from collections.abc import Mapping

DECODING: Mapping[str, str] = {
    # round messages
    "an update holds either a delta or a reason": "更新は差分と理由コードのどちらか一方だけを含む",
    "a reason comes without metrics and samples": "理由コードに指標や画像数が付いている",
    "{} metrics, the limit is {}": "指標が {0} 個あり、上限の {1} 個を超えている",
    "metric {} = {} has no valid name or value": "指標 {0} = {1} の名称または値が不正である",
    "round {} must be 1 to 2^32 - 1, versions and samples {} 0 to 2^64 - 1": (
        "ラウンド {0} は 1～2^32 - 1、バージョンと画像数 {1} は 0～2^64 - 1 でなければならない"
    ),
    "{} {} is unknown": "{0} の値 {1} は定義されていない",
    "the message has {} bytes, the limit is {}": "メッセージが {0} バイトあり、上限の {1} バイトを超えている",
    "the bytes are no {}": "バイト列が {0} ではない",
    "the {} has format {}, this release reads format {}": (
        "{0} の形式は {1} であり、このバージョンが読み取る形式は {2} である"
    ),
    "Install the same release of fedsparse on both sides": (
        "双方に同じバージョンの fedsparse をインストールすること"
    ),
    "the message is not in canonical form: other bytes say the same": (
        "メッセージが正規の形式ではない（同じ内容を別のバイト列で表せる）"
    ),
    # deltas
    "the delta has {} bytes, the limit is {}": "差分が {0} バイトあり、上限の {1} バイトを超えている",
    "the delta refers to the support {}, which is not known here": "差分が参照する座標集合 {0} が不明である",
    "the delta has format {}, this release reads format {}": (
        "差分の形式は {0} であり、このバージョンが読み取る形式は {1} である"
    ),
    "the bytes are no sparse delta: they do not begin with their format": (
        "バイト列が疎な差分ではない（先頭に形式の番号がない）"
    ),
    "operation {} or value coding {} is unknown": "演算 {0} または値の符号化 {1} は定義されていない",
    "fingerprints of a space and digests of a support have 32 bytes": (
        "アダプター空間の識別値または座標集合のダイジェストが 32 バイトではない"
    ),
    "a space fingerprint has 32 bytes, not {}": "アダプター空間の識別値が 32 バイトではなく {0} バイトである",
    "the delta belongs to the adapter space {}, here the space is {}": (
        "差分のアダプター空間は {0} であり、ここでの空間 {1} と異なる"
    ),
    "the known support belongs to the adapter space {}, here the space is {}": (
        "既知の座標集合のアダプター空間は {0} であり、ここでの空間 {1} と異なる"
    ),
    "the delta spells out the coordinates of a support that is known": (
        "差分が、既知の座標集合の座標を改めて列挙している"
    ),
    "values of the known support are missing": "既知の座標集合の値が不足している",
    "a segment ends before it is full, or names tensors of a support that is known": (
        "区間が満たされる前に終わっているか、既知の座標集合のテンソルを列挙している"
    ),
    "a segment has no coordinates": "区間に座標がない",
    "a segment goes on after it is full": "区間が満たされた後も続いている",
    "a segment is tensors, no more than the space has, and then values, and nothing else": (
        "区間が、アダプター空間の個数以内のテンソルとそれに続く値だけからなるものではない"
    ),
    "tensors must be in strictly increasing position": "テンソルの位置が単調増加ではない",
    "tensor {}: {why}": "テンソル {0}：{1}",
    "tensor {} after tensor {}, of {} in the space": (
        "テンソル {1} の後にテンソル {0} がある（アダプター空間のテンソルは {2} 個）"
    ),
    "tensor {}: indices {} and values {} must be vectors of one length, at least 1": (
        "テンソル {0}：添字 {1} と値 {2} が同じ長さ（1 以上）のベクトルではない"
    ),
    "tensor {}: indices must be strictly increasing from 0 on": "テンソル {0}：添字が 0 以上で単調増加ではない",
    "indices must be strictly increasing from 0 on": "添字が 0 以上で単調増加ではない",
    "tensor {}: a value is NaN or infinite": "テンソル {0}：値が NaN または無限大である",
    "tensor {}: a value has no exact form as {}": "テンソル {0}：値を {1} で正確に表せない",
    "Quantise first": "先に量子化すること",
    # fields
    "field {} does not belong after a segment": "フィールド {0} が区間の後にある",
    "field {} does not belong here": "フィールド {0} はここでは使用できない",
    "field {} is out of order, or there twice": "フィールド {0} の順序が不正であるか、重複している",
    "field {} is written though it is empty": "フィールド {0} が空であるのに書き込まれている",
    "before byte {}: a field has another form, or is cut off": (
        "バイト {0} の前：フィールドの形式が異なるか、途中で切れている"
    ),
    "at byte {}: a number is cut off, too large, or longer than it need be": (
        "バイト {0}：数値が途中で切れているか、大きすぎるか、必要以上に長い"
    ),
    "a field has another form, or goes on beyond the limit of bytes": (
        "フィールドの形式が異なるか、バイト数の上限を超えている"
    ),
    "the bytes end before their time": "バイト列が途中で終わっている",
    "there are more bytes than the limit": "バイト数が上限を超えている",
    # coordinates
    "{} coordinates are announced for a tensor of {}": "要素数 {1} のテンソルに {0} 個の座標が宣言されている",
    "{} coordinates are there, {} are announced": "座標が {0} 個あるが、宣言は {1} 個である",
    "the coordinates are not in the shortest form, which takes {} bytes": (
        "座標が最短の形式（{0} バイト）で書かれていない"
    ),
    "index coding {} does not fit {} bytes for {} of {} coordinates": (
        "座標の符号化 {0} が、{3} 個中 {2} 個の座標を表す {1} バイトに合わない"
    ),
    "the coordinates' bytes are missing": "座標のバイト列がない",
    "coordinate {} of {}": "座標 {0} が要素数 {1} の範囲外である",
    "the bitmap does not name {} of {} coordinates": "ビットマップが {1} 個中 {0} 個の座標を示していない",
    "the rows' counts are missing": "行ごとの個数がない",
    "the rows hold {} coordinates, {} are announced": "行にある座標は {0} 個だが、宣言は {1} 個である",
    "column {} of {}": "列 {0} が列数 {1} の範囲外である",
    "{} numbers with Rice parameter {} do not fit into {} bytes": (
        "Rice 符号のパラメーター {1} の数値 {0} 個が {2} バイトに収まらない"
    ),
    "the sum of {} numbers is not below {}": "数値 {0} 個の合計が {1} 以上である",
    "{} numbers do not fit into {} bytes": "数値 {0} 個が {1} バイトに収まらない",
    "a number is not below {}": "{0} 以上の数値がある",
    "{} numbers are there where {} are announced, or bytes after them": (
        "数値が {0} 個あるが、宣言は {1} 個であるか、後に余分なバイトがある"
    ),
    # values
    "{} bytes cannot hold {} values as {}": "{0} バイトには {2} の値 {1} 個が収まらない",
    "{} bytes cannot hold {} values": "{0} バイトには値 {1} 個が収まらない",
    "{} bytes follow the values": "値の後に {0} バイトが続いている",
    "a value is a negative zero, which is written as zero": "値が負のゼロである（ゼロとして書き込むべきである）",
    "a scale is negative or too large": "スケールが負であるか大きすぎる",
    "the largest integer of a block is not {}, or its scale is 0 and an integer is not": (
        "ブロックの最大の整数が {0} ではないか、スケールが 0 であるのに 0 ではない整数がある"
    ),
    "entropy-coded values end before their time": "エントロピー符号化された値が途中で終わっている",
    "entropy-coded values are longer than they need be": "エントロピー符号化された値が必要以上に長い",
    "an entropy coder's state is out of range": "エントロピー符号の状態が範囲外である",
    "values are written in way {}, which is unknown": "値の書き込み方式 {0} は定義されていない",
    "the values are not in the shortest form, or their table is not the one they give": (
        "値が最短の形式ではないか、頻度表が値と一致しない"
    ),
    "the packed values are not {} symbols of {}": "詰め込まれた値が {1} 種類の記号 {0} 個ではない",
    "the last byte of packed values is not filled up with zeros": (
        "詰め込まれた値の最後のバイトの余りがゼロで埋められていない"
    ),
    "the table of frequencies ends before its time": "頻度表が途中で終わっている",
    "the frequencies do not add up": "頻度の合計が合わない",
    "the table of frequencies is not filled up with zeros": "頻度表の余りがゼロで埋められていない",
}
