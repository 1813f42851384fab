"""What the verifier says has a Japanese form, every message of it."""

from __future__ import annotations

import re
import time

import pytest

from fedsparse.audit.conservation import Why
from fedsparse.audit.report.messages import MESSAGES, NAMES
from fedsparse.audit.report.messages_delta import DECODING
from fedsparse.audit.report.stamps import _DOUBTS
from fedsparse.audit.report.translation import told
from fedsparse.audit.report.words import WHYS
from fedsparse.audit.timestamp import Doubt
from tests.unit.message_samples import ELSEWHERE, ROOT, VERIFIER, templates

CATALOGUE = {**MESSAGES, **DECODING}
JAPANESE = re.compile(r"[ぁ-んァ-ヶ一-龠]")


def bare(template: str) -> str:
    """Return a message without its place, which is translated once for all."""
    return re.sub(r"^entry (\{\}|1): (?=.*[a-z])", "", re.sub(r"\{\w+\}", "{}", template))


def test_every_message_of_the_verifiers_has_a_japanese_form() -> None:
    known = set(map(bare, CATALOGUE))
    said = {template: where for template, where in templates().items() if bare(template) not in known}
    assert said == {}, "add a line for each to fedsparse/audit/report/messages.py"


def test_nothing_is_translated_that_nobody_says() -> None:
    assert set(map(bare, CATALOGUE)) - set(map(bare, templates())) == {"the hub's receipt {} {}"}


@pytest.mark.parametrize("package", ELSEWHERE)
def test_no_module_is_left_out_of_the_search(package: str) -> None:
    here = {path.stem for path in (ROOT / package).glob("*.py")}
    searched = {name.split("/")[1].removesuffix(".py") for name in VERIFIER if name.startswith(f"{package}/")}
    assert here == searched | ELSEWHERE[package]


@pytest.mark.parametrize("english", CATALOGUE)
def test_a_form_has_the_same_values_in_both_languages(english: str) -> None:
    places = len(re.findall(r"\{\w*\}", english))
    japanese = CATALOGUE[english]
    assert set(re.findall(r"\{(.*?)\}", japanese)) == set(map(str, range(places)))
    assert JAPANESE.search(re.sub(r"\{.*?\}", "", japanese))


@pytest.mark.parametrize("template", templates())
def test_a_message_is_found_with_values_in_it(template: str) -> None:
    """Where a name stands there, any of them."""
    for value in ("31", *NAMES, "the hub's receipt 31"):
        found = told(template.replace("{}", value))
        if JAPANESE.search(found.ja):
            assert not re.search(r"\{|\}", found.ja)
            return
    pytest.fail("in no way translated")


@pytest.mark.parametrize(
    ("english", "japanese"),
    [
        ("entry 5: its payload is gone", "記録 5：ペイロード：失われている"),
        (
            "entry 1: is not the plant's: the issuing CA of the signer's certificate expired on 2026-01-02 03:04 "
            "UTC. Issue a new one",
            "記録 1：工場のものではない：署名者の証明書を発行した認証局の有効期限は 2026-01-02 03:04 UTC に"
            "切れている。新しい証明書を発行すること",
        ),
        (
            "the hub's receipt 2 is not the hub's: the signer's certificate is a plant's certificate, a hub's is "
            "needed",
            "ハブの受領証 2：ハブのものではない：署名者の証明書は工場の証明書であり、ハブの証明書ではない",
        ),
        (
            "entry 12: its receipt has a cosignature that does not count: "
            "the signature of the cosignature does not match",
            "記録 12：受領証：連署が無効：連署の署名が一致しない",
        ),
        (
            "entry 12: its receipt is not, byte for byte, the hub's receipt 3",
            "記録 12：受領証がハブの受領証 3 とバイト単位で一致しない",
        ),
        (
            "entry 3: its payload does not decode: tensor 0: coordinate 12 of 9",
            "記録 3：ペイロードを復号できない：テンソル 0：座標 12 が要素数 9 の範囲外である",
        ),
        (
            "entry 3: its receipt witnesses another ledger, 'is gone {0} {why}'",
            "記録 3：受領証：別の台帳 'is gone {0} {why}' を確認している",
        ),
    ],
)
def test_messages_in_messages_are_translated_and_values_are_not(english: str, japanese: str) -> None:
    assert told(english).ja == japanese


def test_what_nobody_has_translated_stays_as_it_is() -> None:
    assert told("the moon is full").ja == "the moon is full"
    assert told("entry 4: its payload does not decode: the moon is full").ja == (
        "記録 4：ペイロードを復号できない：the moon is full"
    )
    assert told("entry 4: is gone" + "x" * 2000).ja.startswith("entry 4: is gone")


@pytest.mark.parametrize(
    "part", ["entry 1: ", "its receipt ", " is unknown", "tensor 1: ", " of ", "its payload does not decode: "]
)
def test_hostile_names_do_not_take_long(part: str) -> None:
    began = time.process_time()
    told("entry 1: its receipt witnesses another ledger, " + part * (900 // len(part)))
    told(part * (999 // len(part)))
    assert time.process_time() - began < 2


def test_every_reason_has_a_japanese_form() -> None:
    assert set(WHYS) == set(Why)
    assert set(_DOUBTS) == set(Doubt)
