"""What the verifier says, in Japanese, by what it says in English.

``{}`` is a value, ``{why}`` another message, ``{name}`` one of the names below or a receipt of the hub's.
"""

from __future__ import annotations

from collections.abc import Mapping

MESSAGES: Mapping[str, str] = {
    "entry {}: {why}": "記録 {0}：{1}",
    "the hub's receipt {} {why}": "ハブの受領証 {0}：{1}",
    "its receipt {why}": "受領証：{0}",
    "its payload {why}": "ペイロード：{0}",
    "its count of control calls {why}": "制御呼び出しの計数：{0}",
    # the tree, the chain and the checkpoint
    "breaks the chain: it is another than when the next was written": (
        "連鎖が途切れている（次の記録が書き込まれた後に変更されている）"
    ),
    "follows entry {}: what stood between is gone": "記録 {0} の直後にあり、その間の記録が失われている",
    "was altered: its bytes do not give its hash": "改変されている（バイト列がハッシュ値と一致しない）",
    "its bytes are no ledger entry": "バイト列が台帳の記録ではない",
    "says that it is entry {}": "自らを記録 {0} と称している",
    "is of the unknown kind {}": "種類 {0} は定義されていない",
    "no entry says whose ledger this is, and which key signs for it": ("台帳の所有者と署名鍵を示す記録がない"),
    "the ledger's checkpoint does not count: {why}": "台帳のチェックポイントは無効：{0}",
    "the ledger signed for {} entries under another root: entries were altered, added or cut off by somebody "
    "without its key": (
        "台帳の署名は、記録 {0} 件の別のルートに対するものである"
        "（署名鍵を持たない者が記録を改変、追加、または削除した）"
    ),
    "the tree over it is gone": "記録のハッシュ木が失われている",
    "the tree over it was altered, at level {}": "記録のハッシュ木が改変されている（階層 {0}）",
    "the tree has {} parts of entries that are gone": "ハッシュ木に、存在しない記録の部分が {0} 個ある",
    "this is not a checkpoint of three lines": "3 行のチェックポイントではない",
    "the checkpoint is not in canonical form": "チェックポイントが正規の形式ではない",
    "this is not a signed note": "署名付きノートではない",
    "the checkpoint has {} signatures, not one": "チェックポイントの署名が 1 個ではなく {0} 個ある",
    "the checkpoint is signed by another key than the log's": "チェックポイントの署名が台帳の鍵によるものではない",
    "this is not a signature line": "署名行ではない",
    "the note has a line that is no signature": "ノートに署名ではない行がある",
    "the signature of the {name} does not match": "{0}の署名が一致しない",
    # receipts
    "the hub witnessed another history: from {} to {}, an entry is not what the hub saw": (
        "ハブが確認した履歴と異なる（記録 {0}～{1} のいずれかが、ハブが確認したものではない）"
    ),
    "its receipt is for nothing that left": "受領証に対応する送信がない",
    "its receipt has the number {}, as that of entry {}": "受領証の番号 {0} が、記録 {1} の受領証と重複している",
    "its receipt has the number {}, and the hub's record has none for it: the record is older than this receipt, "
    "or not whole": (
        "番号 {0} の受領証が保管されているが、ハブ側の控えにはこの記録の受領証がない"
        "（控えが受領証より古いか、欠けている）"
    ),
    "its receipt is not, byte for byte, {name}": "受領証が{0} とバイト単位で一致しない",
    "{name} has the number {}: what stood between is gone": (
        "{0} の番号が {1} であり、その間の受領証が失われている"
    ),
    "{name} is for one of the first {} entries of a ledger, which this one does not have: entries are gone, or "
    "never were": (
        "{0} は、ある台帳の先頭 {1} 件のいずれかに対するものだが、この台帳にはその記録がない"
        "（記録が失われたか、もともと存在しない）"
    ),
    "is unreadable": "読み取れない",
    "is not in canonical form": "正規の形式ではない",
    "speaks of another payload, entry or task": "別のペイロード、記録、またはタスクのものである",
    "names another certificate than it shows": "添付の証明書とは別の証明書を指定している",
    "witnesses another ledger, {}": "別の台帳 {0} を確認している",
    "has a cosignature that does not count: {why}": "連署が無効：{0}",
    "the cosignature is by another key than the witness's": "連署が確認者の鍵によるものではない",
    "is not the hub's: {why}": "ハブのものではない：{0}",
    "is cosigned under another name than that of {}": "連署の名義が {0} ではない",
    "has its signature in another form than the hub writes": "署名の形式が、ハブが書き込む形式と異なる",
    # whose ledger it is
    "names another ledger, {}, than the one that it is in": "この台帳ではなく別の台帳 {0} を指定している",
    "its certificate did not sign for the ledger's key": "台帳の鍵に対する署名が、証明書の鍵によるものではない",
    "is dated at no possible time": "日時があり得ない値である",
    "is not the plant's: {why}": "工場のものではない：{0}",
    "is by {}, which has no ledger {} with this key": (
        "{0} によるものだが、{0} にはこの鍵を用いる台帳 {1} がない"
    ),
    # payloads, and what entries say of them
    "is gone": "失われている",
    "was altered": "改変されている",
    "was altered, or sealed under another key": "改変されているか、別の鍵で暗号化されている",
    "has a payload, which no call has": "呼び出しの記録なのにペイロードがある",
    "has no payload, though something left": "送信の記録なのにペイロードがない",
    "has no payload, but the digest of one": "ペイロードがないのに、そのダイジェストがある",
    "its payload has {} bytes, not {}": "ペイロードが {1} バイトではなく {0} バイトである",
    "its payload cannot be read": "ペイロードを読み取れない",
    "its payload is not in canonical form": "ペイロードが正規の形式ではない",
    "its payload does not decode: {why}": "ペイロードを復号できない：{0}",
    "the payload that it says was deleted is there": "消去したとされるペイロードが残っている",
    "cannot be decoded: the file of its adapter space is gone from spaces/": (
        "復号できない（アダプター空間のファイルが spaces/ にない）"
    ),
    "round, version or samples are others than in its payload": (
        "ラウンド、バージョン、または画像数がペイロードと異なる"
    ),
    "metrics are others than in its payload": "指標がペイロードと異なる",
    "tensors or reason are others than in its payload": "テンソルまたは理由コードがペイロードと異なる",
    "its kind is another than its payload's": "記録の種類がペイロードと異なる",
    # policies
    "names another policy than the one whose text it has": "記録した本文とは別の規則を指定している",
    "was judged by another policy than the one recorded before it": (
        "直前に記録された規則とは別の規則で判定されている"
    ),
    # control calls
    "has {}, which is no call or code with a number": "{0} は、呼び出しまたはコードとその回数ではない",
    "counts more calls than there can be": "回数があり得ない値である",
    "does not add up, says that something was sent, or is in another form": (
        "合計が合わないか、送信があったとしているか、正規の形式ではない"
    ),
    "its count of control calls is lower than the same gateway's before it": (
        "制御呼び出しの計数が、同じゲートウェイの以前の値を下回っている"
    ),
    # bundles
    "the bundle has a member {} that no fedsparse writes": (
        "証拠ファイルに、fedsparse が書き込まない項目 {0} がある"
    ),
    "the bundle is not in canonical form from byte {} on": "証拠ファイルの {0} バイト目以降が正規の形式ではない",
    "the member 'payloads/{}' belongs to no entry": "項目 'payloads/{0}' に対応する記録がない",
    "the member 'spaces/{}.json' is of no payload's adapter space": (
        "項目 'spaces/{0}.json' は、どのペイロードのアダプター空間でもない"
    ),
    # certificates
    "{name} is not a PEM certificate": "{0}が PEM 形式の証明書ではない",
    "{name} is unreadable": "{0}を読み取れない",
    "{name} has more than {} certificates": "{0}に {1} 個を超える証明書が含まれている",
    "{name} comes with certificates that are not on its way to the CA": (
        "{0}に、CA に至る経路にない証明書が添付されている"
    ),
    "{name} is a {name}'s certificate, a {name}'s is needed": "{0}は{1}の証明書であり、{2}の証明書ではない",
    "{name} has a key or constraints that cannot be read": "{0}の鍵または制約を読み取れない",
    "{name} is of another kind of key than P-256": "{0}の鍵が P-256 ではない",
    "Enrol with `fedsparse client enroll`": "`fedsparse client enroll` で登録すること",
    "{name} is a CA's, not a plant's or hub's": "{0}は、工場やハブではなく CA の証明書である",
    "Use the certificate that the CA signed": "CA が署名した証明書を使用すること",
    "{name} is valid only from {} UTC": "{0}の有効期間は {1} UTC に始まる",
    "Check the clock": "時計を確認すること",
    "{name} expired on {} UTC": "{0}の有効期限は {1} UTC に切れている",
    "Issue a new one": "新しい証明書を発行すること",
    "{name} was not issued by the given CA": "{0}は、指定された CA が発行したものではない",
    "Use the certificate and ca.pem of the same federation": "同じ連合の証明書と ca.pem を使用すること",
    "{} is no name for a {name}": "{0} は{1}の名称として使用できない",
    "Use 1 to 63 lower-case letters, digits and hyphens": "英小文字、数字、ハイフンの 1～63 文字とすること",
    "the names in the certificate cannot be read": "証明書の名前を読み取れない",
    "the certificate does not name one hub or plant of a federation": (
        "証明書が、連合のハブまたは工場を一つだけ示すものではない"
    ),
    "the certificate names the unknown role {}": "証明書の役割 {0} は定義されていない",
    "the signer's key is not an elliptic-curve key": "署名者の鍵が楕円曲線暗号の鍵ではない",
    "the signature of {} does not match": "{0} の署名が一致しない",
}
NAMES: Mapping[str, str] = {
    "checkpoint": "チェックポイント",
    "cosignature": "連署",
    "hub": "ハブ",
    "plant": "工場",
    "the CA certificate": "CA 証明書",
    "the issuing CA of the signer's certificate": "署名者の証明書を発行した認証局",
    "the signer's certificate": "署名者の証明書",
}
