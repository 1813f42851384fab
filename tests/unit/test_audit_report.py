from __future__ import annotations

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsparse.audit import EntryKind, receipt_line, write_bundle
from fedsparse.audit.conservation import Finding
from fedsparse.audit.report import Gathered, Lang, SiteFacts, explain, gather, read_facts, render
from fedsparse.audit.report.mapping import standards
from fedsparse.audit.report.verdicts import headline
from fedsparse.cli.main import app
from fedsparse.errors import ConfigError
from tests.unit.report_samples import POLICY, Site, usual_site
from tests.unit.samples import cell, tamper

HOSTILE = "<script>alert(1)</script>\"'&<img src=x>\u202e\x1b[31m"
BOTH = pytest.mark.parametrize("lang", list(Lang))


class Page(HTMLParser):
    """What a browser would make of a page: tags, attributes, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return usual_site(tmp_path_factory.mktemp("usual"))


@pytest.fixture(scope="module")
def found(usual: Site) -> Gathered:
    return usual.gather()


@pytest.fixture
def altered(tmp_path: Path) -> Site:
    """A ledger whose first update was changed afterwards."""
    site = usual_site(tmp_path, rounds=4)
    data = bytearray(cell(site.folder, "entries", "entry", 6))
    data[8] ^= 1
    tamper(site.folder, "UPDATE entries SET entry = ? WHERE sequence = 6", bytes(data))
    return site


@BOTH
def test_the_page_leads_with_the_verdict_and_then_the_bits_per_image(found: Gathered, lang: Lang) -> None:
    text = Page(render(found, lang)).text
    verdict = {Lang.EN: "Verified: the record of", Lang.JA: "確認済み：kiso が署名した"}[lang]
    budget = found.budget.per_image
    lead = {
        Lang.EN: f"At most {budget:,} bits per training image have ever left this site.",
        Lang.JA: f"学習画像 1 枚あたり最大 {budget:,} ビットです。",
    }[lang]
    assert 0 < text.index(verdict) < text.index(lead) < text.index("(a) ")


@BOTH
def test_the_page_refers_to_nothing_outside_and_runs_nothing(found: Gathered, lang: Lang) -> None:
    text = render(found, lang)
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(page.tags)
    assert not {"src", "href", "srcset", "action"} & {name for name, _ in page.attributes}
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert not re.search(r"url\(|@import|https?://", text)
    assert ("lang", lang.value) in page.attributes


@BOTH
def test_the_same_evidence_gives_the_same_page(usual: Site, lang: Lang) -> None:
    assert render(usual.gather(), lang) == render(usual.gather(), lang)


@BOTH
def test_a_contradicted_ledger_leads_with_the_contradiction(altered: Site, lang: Lang) -> None:
    found = altered.gather()
    assert headline(found).finding is Finding.CONTRADICTED
    text = Page(render(found, lang)).text
    main = text[text.index("UTC – ") :]
    contradiction = {Lang.EN: "Contradicted in ", Lang.JA: "か所に矛盾があります"}[lang]
    own_word = {Lang.EN: "By the ledger's own word: at most", Lang.JA: "台帳の主張によれば、"}[lang]
    assert (
        main.index(contradiction)
        < main.index({Lang.EN: "entry 6", Lang.JA: "記録 6："}[lang])
        < main.index(own_word)
    )
    assert lang is Lang.EN or not re.search("entry [0-9]|its receipt", text)
    assert {"Verified:", "確認済み："}.isdisjoint(text.split("\n"))
    assert next(explain(found)).to(lang) == headline(found).sentence.to(lang)


def test_of_a_contradicted_ledger_nothing_is_called_verified(altered: Site) -> None:
    found = altered.gather()
    lines = [line for standard in standards(found) for line in standard.lines]
    assert Finding.VERIFIED not in {line.finding for line in lines}
    assert Finding.CONTRADICTED in {line.finding for line in lines}
    assert 'class="finding verified"' not in render(found, Lang.EN)
    said = "\n".join(sentence.en for sentence in explain(found))
    assert "that does not count: the ledger itself is contradicted" in said
    assert "fits the record" not in said


@BOTH
def test_where_the_route_carried_more_the_figure_is_only_the_ledgers_word(tmp_path: Path, lang: Lang) -> None:
    site = usual_site(tmp_path, rounds=3)
    site.count(5_000_000, 20_000)
    found = site.gather()
    assert headline(found).finding is Finding.CONTRADICTED
    own_word = {Lang.EN: "By the ledger's own word: at most", Lang.JA: "台帳の主張によれば、"}[lang]
    assert own_word in Page(render(found, lang)).text
    assert any(own_word in sentence.to(lang) for sentence in explain(found))


@BOTH
def test_where_nobody_counts_the_route_the_figure_is_of_the_gateway_alone(tmp_path: Path, lang: Lang) -> None:
    site = Site.create(tmp_path)
    site.open()
    site.update(1)
    way = {Lang.EN: "have ever left this site through its gateway.", Lang.JA: "ゲートウェイを通じて外部に"}[lang]
    assert way in Page(render(site.gather(), lang)).text


def test_bytes_beside_the_payloads_are_named_as_open(found: Gathered) -> None:
    beside = found.conservation.spans[0].segment.beside
    assert f"Beside the payloads the route carried {beside:,} bytes" in Page(render(found, Lang.EN)).text


@BOTH
def test_hostile_names_are_text_and_nothing_else(tmp_path: Path, lang: Lang) -> None:
    site = Site.create(tmp_path, HOSTILE.split("\u202e")[0])
    site.open()
    site.policy(f"# {HOSTILE}\n".encode())
    site.claim(HOSTILE)
    site.refuse(2, HOSTILE)
    site.update(3)
    facts = SiteFacts(controller=HOSTILE, site=HOSTILE)
    text = render(site.gather(facts=facts), lang)
    page = Page(text)
    assert not {"script", "img"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.text
    assert not {"\u202e", "\x1b"} & set(text)


@BOTH
def test_every_line_of_the_mapping_has_one_of_three_findings_and_a_reason_unless_verified(
    found: Gathered, lang: Lang
) -> None:
    every = list(standards(found))
    assert len(every) == 4
    clauses = {line.clause for standard in every for line in standard.lines}
    assert clauses >= {f"30(1)({letter})" for letter in "abcdefg"}
    assert clauses >= {"A.8.12", "A.8.15", "SR 5.1", "SR 5.2", "SR 5.3", "SR 5.4", "SR 6.1", "SR 6.2"}
    for line in (line for standard in every for line in standard.lines):
        assert line.finding in Finding
        assert bool(line.why.to(lang)) == (line.finding is not Finding.VERIFIED)
        assert line.fact.to(lang)
        assert line.asks.to(lang)


def test_what_only_the_site_states_is_never_verified(usual: Site) -> None:
    facts = SiteFacts(**dict.fromkeys(SiteFacts.model_fields, "we say so"))
    lines = [one for standard in standards(usual.gather(facts=facts)) for one in standard.lines]
    stated = [line for line in lines if "we say so" in line.fact.en]
    assert len(stated) >= 15
    assert {line.finding for line in stated} == {Finding.UNKNOWN}


def test_without_the_ca_nothing_is_verified(usual: Site) -> None:
    found = usual.gather(authority=False)
    assert headline(found).finding is Finding.UNKNOWN
    lines = [line for standard in standards(found) for line in standard.lines]
    assert {line.finding for line in lines} == {Finding.UNKNOWN}


def test_what_is_out_of_the_ordinary_is_named(tmp_path: Path) -> None:
    site = Site.create(tmp_path)
    site.open(-1)
    site.call(EntryKind.ATTEND)
    site.update(1)
    last = site.update(2, receipt=False)
    site.ledger.erase(next(site.ledger.entries(3)).payload_sha256, 1400, "request")
    text = Page(render(site.gather(), Lang.EN)).text
    assert f"No receipt for entries {last.sequence}" in text
    assert "1 payload deleted on request" in text
    assert "no estimate" in text
    assert "whose text is not recorded" in text
    assert "belong to no entry" not in text


@BOTH
def test_payloads_that_belong_to_no_entry_are_named(tmp_path: Path, lang: Lang) -> None:
    site = usual_site(tmp_path, 1)
    (site.folder / "payloads" / ("ab" * 32)).write_bytes(b"left over")
    said = {
        Lang.EN: "Payloads that belong to no entry in 1 file beside the ledger",
        Lang.JA: "どの記録にも属さないペイロードのファイルが 1 件あります",
    }
    assert said[lang] in Page(render(site.gather(), lang)).text


def test_policy_people_and_keys_of_record_are_on_the_page(usual: Site, found: Gathered) -> None:
    text = Page(render(found, Lang.EN)).text
    for said in (
        POLICY.decode().splitlines()[1],
        "urn:fedsparse:plant:kiso",
        "urn:fedsparse:hub:hub",
        usual.ledger.key.hex(),
        "5a" * 32,
        "fedsparse audit verify kiso.evidence.tar --ca ca.pem --hub-receipts kiso.jsonl",
    ):
        assert said in text


@BOTH
def test_an_explanation_is_a_dozen_sentences(found: Gathered, lang: Lang) -> None:
    said = [sentence.to(lang) for sentence in explain(found)]
    assert 10 <= len(said) <= 15
    assert all(said)


def test_an_empty_ledger_gives_a_page_that_cannot_tell(tmp_path: Path) -> None:
    found = Site.create(tmp_path).gather(facts=None)
    assert headline(found).finding is Finding.UNKNOWN
    assert "the ledger has no entries" in Page(render(found, Lang.EN)).text


def test_many_rounds_still_fit_on_the_page(tmp_path: Path) -> None:
    site = Site.create(tmp_path)
    site.open()
    for number in range(1, 131):
        site.update(number, nnz=3, receipt=False)
    text = render(gather(site.evidence(), site.gather().sources, site.authority), Lang.EN)
    assert text.count('<rect class="bar"') <= 48
    assert "1–3" in Page(text).text


def test_facts_with_an_unknown_key_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "facts.toml"
    path.write_text('controler = "typo"\n')
    with pytest.raises(ConfigError, match="controler"):
        read_facts(path)


@BOTH
def test_the_commands_read_folder_and_bundle(usual: Site, tmp_path: Path, lang: Lang) -> None:
    (tmp_path / "ca.pem").write_bytes(usual.authority)
    (tmp_path / "kiso.jsonl").write_bytes(b"".join(map(receipt_line, usual.kept)))
    (tmp_path / "facts.toml").write_text('purpose = "defects"\n')
    write_bundle(tmp_path / "kiso.tar", usual.evidence())
    given = ["--ca", f"{tmp_path}/ca.pem", "--hub-receipts", f"{tmp_path}/kiso.jsonl", "--lang", lang.value]
    more = ["--site-facts", f"{tmp_path}/facts.toml", "--timing-ms", "10"]
    pages = []
    for place in (usual.folder, tmp_path / "kiso.tar"):
        out = tmp_path / "page.html"
        result = CliRunner().invoke(app, ["audit", "report", str(place), *given, *more, "--out", str(out)])
        assert result.exit_code == 0, result.output
        pages.append(out.read_text().replace("kiso.tar", "ledger"))
        result = CliRunner().invoke(app, ["audit", "explain", str(place), *given])
        assert result.exit_code == 0, result.output
    assert pages[0] == pages[1]


def test_a_page_is_made_again_by_the_line_that_it_prints(
    usual: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(Path("kiso.tar"), usual.evidence())
    Path("ca.pem").write_bytes(usual.authority)
    Path("kiso.jsonl").write_bytes(b"".join(map(receipt_line, usual.kept)))
    Path("our facts.toml").write_text('purpose = "defects"\n')
    Path("kiso.tsr").write_bytes(b"no reply")
    Path("tsa.pem").write_bytes(usual.authority)
    Path("payload.key").write_bytes(bytes(32))
    stamps = ["--timestamp", "kiso.tsr", "--timestamp", "kiso.tsr", "--tsa-roots", "tsa.pem"]
    trusted = ["--ca", "ca.pem", "--hub-receipts", "kiso.jsonl", "--payload-key", "payload.key"]
    more = ["--timing-ms", "100", "--site-facts", "our facts.toml"]
    for given, status in (([*trusted, *stamps, *more], 0), (more, 3)):
        made = CliRunner().invoke(app, ["audit", "report", "kiso.tar", *given])
        assert made.exit_code == status, made.output
        page = Path("report.html").read_text()
        (line,) = (one for one in Page(page).text.splitlines() if one.startswith("fedsparse audit report"))
        again = CliRunner().invoke(app, [*shlex.split(line)[1:], "--out", "again.html"])
        assert (again.exit_code, Path("again.html").read_text()) == (status, page)


def test_what_only_the_hubs_record_has_is_in_the_report(tmp_path: Path) -> None:
    site = usual_site(tmp_path, rounds=3)
    tamper(site.folder, "DELETE FROM receipts")
    said = "\n".join(sentence.en for sentence in explain(site.gather()))
    assert "The hub has confirmed by its signature each of the 3 that left." in said
    assert f"The hub has also signed for the first {site.gather().verdict.witnessed} of " in said
    text = Page(render(site.gather(), Lang.EN)).text
    assert "urn:fedsparse:hub:hub" in text
    said = "\n".join(sentence.en for sentence in explain(site.gather(hub=False)))
    assert "Nobody but the plant has signed for this record yet." in said


def test_receipts_for_another_ledger_witness_nothing(tmp_path: Path) -> None:
    site, other = usual_site(tmp_path / "one", rounds=2), usual_site(tmp_path / "other", rounds=2)
    given = other.evidence().receipts
    for number, receipt in given.items():
        tamper(site.folder, "UPDATE receipts SET receipt = ? WHERE sequence = ?", receipt, number)
    found = site.gather(hub=False)
    assert found.verdict.witnessed == 0
    said = "\n".join(sentence.en for sentence in explain(found))
    assert "2 receipts in the hub's name; that does not count: the ledger itself is contradicted" in said


@BOTH
def test_a_record_that_is_older_than_the_receipts_contradicts_and_one_cut_short_is_told(
    tmp_path: Path, lang: Lang
) -> None:
    site = usual_site(tmp_path, rounds=3)
    kept = tmp_path / "kiso.jsonl"
    kept.write_bytes(b"".join(map(receipt_line, site.kept))[:-1])
    (tmp_path / "ca.pem").write_bytes(site.authority)
    given = [str(site.folder), "--ca", f"{tmp_path}/ca.pem", "--hub-receipts", str(kept), "--lang", lang.value]
    said = {
        Lang.EN: (
            "the record is older than this receipt",
            "record: its last line is cut short, and was left out.",
        ),
        Lang.JA: ("控えが受領証より古いか、欠けている", "最後の行が途中で切れているため"),
    }[lang]
    out = tmp_path / "page.html"
    made = CliRunner().invoke(app, ["audit", "report", *given, "--out", str(out)])
    explained = CliRunner().invoke(app, ["audit", "explain", *given])
    assert (made.exit_code, explained.exit_code) == (1, 1)
    for text in (Page(out.read_text()).text, explained.output.replace("\n", " ")):
        assert all(one in text for one in said)


def test_what_was_deleted_twice_is_counted_once(tmp_path: Path) -> None:
    site = usual_site(tmp_path, rounds=2)
    digest = next(site.ledger.entries(6)).payload_sha256
    for _ in range(2):
        site.ledger.erase(digest, 1400, "request")
    found = site.gather()
    assert (len(found.erased), found.verdict.erased) == (2, 1)
    said = "\n".join(sentence.en for sentence in explain(found))
    assert "the content of 1 message has since been deleted" in said
    text = Page(render(found, Lang.EN)).text
    assert "1 payload recorded as deleted" in text
    assert "1 payload deleted on request" in text


def test_without_the_ca_the_exit_is_of_its_own(usual: Site, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    for command in (["report", str(usual.folder), "--out", str(out)], ["explain", str(usual.folder)]):
        assert CliRunner().invoke(app, ["audit", *command]).exit_code == 3


def test_a_contradiction_is_an_exit_of_one_and_still_a_page(altered: Site, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["audit", "report", str(altered.folder), "--out", str(out)])
    assert result.exit_code == 1
    assert "Contradicted" in out.read_text()
    assert CliRunner().invoke(app, ["audit", "explain", str(altered.folder)]).exit_code == 1


def test_the_audit_by_itself_loads_no_templates() -> None:
    code = "import sys, fedsparse.audit; print({'jinja2', 'torch', 'flwr'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_the_report_loads_neither_torch_nor_flower() -> None:
    code = "import sys, fedsparse.audit.report; print({'torch', 'flwr'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
