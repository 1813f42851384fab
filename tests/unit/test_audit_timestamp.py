"""Time-stamps of a real authority: OpenSSL's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fedsparse.audit import EntryKind, write_bundle
from fedsparse.audit.conservation import Finding
from fedsparse.audit.report import Lang, Sources, gather, render
from fedsparse.audit.report.stamps import stamp_sentence
from fedsparse.audit.report.verdicts import headline
from fedsparse.audit.timestamp import Doubt, Stamp, check_timestamp, make_request
from fedsparse.cli.audit_stamps import Tokens, read_stamps, write_request
from fedsparse.cli.audit_verify import Given, verify_all
from fedsparse.errors import LedgerError
from tests.unit.report_samples import Site, usual_site

pytest.importorskip("rfc3161_client", reason="the extra `timestamp` is not installed")
pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which stamps here, is not installed"
)

_SETTINGS = """
[tsa]
default_tsa = stamping
[stamping]
serial = serial
signer_cert = tsa.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
"""
_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """A root, one below it, and an authority under that which stamps what it is asked to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "serial").write_text("01\n")
        (folder / "issuing").write_text("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n")
        (folder / "tsa").write_text("extendedKeyUsage=critical,timeStamping\nkeyUsage=critical,digitalSignature\n")
        self._openssl(
            "req", "-x509", *_EC, "-keyout", "root.key", "-out", "root.pem", "-days", "30", "-subj", "/CN=Root"
        )
        self._issue("issuing", "root")
        self._issue("tsa", "issuing")
        self.roots = (folder / "root.pem").read_bytes()
        self.issuing = (folder / "issuing.pem").read_bytes()

    def _issue(self, name: str, above: str) -> None:
        self._openssl("req", "-new", *_EC, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        issuer = ("-CA", f"{above}.pem", "-CAkey", f"{above}.key", "-CAcreateserial", "-days", "30")
        self._openssl("x509", "-req", "-in", f"{name}.csr", *issuer, "-extfile", name, "-out", f"{name}.pem")

    def stamp(self, request: bytes, above: str = "issuing.pem") -> bytes:
        """Reply to a request, with the signer's certificate and those in the file ``above``, if any."""
        (self.folder / "x.tsq").write_bytes(request)
        (self.folder / "ts.cnf").write_text(_SETTINGS + (f"certs = {above}\n" if above else ""))
        self._openssl("ts", "-reply", "-config", "ts.cnf", "-queryfile", "x.tsq", "-out", "x.tsr")
        return (self.folder / "x.tsr").read_bytes()

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def tsa(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa") / "tsa")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return usual_site(tmp_path, rounds=2)


def judged(site: Site, token: bytes, roots: bytes | None) -> Stamp:
    return check_timestamp("kiso.tsr", token, roots, site.evidence())


def test_the_right_token_shows_since_when_the_entries_exist(site: Site, tsa: Authority) -> None:
    request, size = make_request(site.evidence())
    found = judged(site, tsa.stamp(request), tsa.roots)
    assert (found.finding, found.doubt, found.size) == (Finding.VERIFIED, None, size)
    assert size == site.ledger.size
    assert found.at is not None
    assert f"verified: the first {size} entries existed by {found.at:%Y-%m-%d %H:%M}" in stamp_sentence(found).en


def test_a_token_goes_on_holding_while_the_ledger_grows_and_in_a_bundle(
    site: Site, tsa: Authority, tmp_path: Path
) -> None:
    request, size = make_request(site.evidence())
    token = tmp_path / "kiso.tsr"
    token.write_bytes(tsa.stamp(request))
    site.update(3)
    site.call(EntryKind.ATTEND)
    assert judged(site, token.read_bytes(), tsa.roots).size == size < site.ledger.size
    bundle, roots, ca = tmp_path / "kiso.tar", tmp_path / "tsa.pem", tmp_path / "ca.pem"
    write_bundle(bundle, site.evidence())
    roots.write_bytes(tsa.roots)
    ca.write_bytes(site.authority)
    given = Given(bundle, ca, tokens=Tokens([token], roots))
    assert verify_all(given, Console(quiet=True)) is Finding.VERIFIED
    token.write_bytes(token.read_bytes()[:-9] + bytes(9))
    assert verify_all(given, Console(quiet=True)) is Finding.CONTRADICTED


def test_certificates_are_read_in_any_order_and_may_come_with_the_roots(site: Site, tsa: Authority) -> None:
    request = make_request(site.evidence())[0]
    alone = tsa.stamp(request, above="")
    assert judged(site, alone, tsa.roots).doubt is Doubt.SIGNATURE  # nobody says who is between it and the root
    assert judged(site, alone, tsa.roots + tsa.issuing).finding is Finding.VERIFIED
    assert judged(site, alone, tsa.issuing).doubt is Doubt.SIGNATURE  # which is no root
    for above in ("issuing.pem", "both.pem"):
        (tsa.folder / "both.pem").write_bytes(tsa.roots + tsa.issuing)
        assert judged(site, tsa.stamp(request, above), tsa.roots).finding is Finding.VERIFIED


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_a_reply_that_is_cut_short_is_told(site: Site, tsa: Authority, cut: int) -> None:
    token = tsa.stamp(make_request(site.evidence())[0])
    assert judged(site, token[:cut], tsa.roots).doubt is Doubt.UNREADABLE


def test_an_altered_token_never_says_anything_else(site: Site, tsa: Authority) -> None:
    token = tsa.stamp(make_request(site.evidence())[0])
    right = judged(site, token, tsa.roots)
    refused = 0
    for position in range(0, len(token), 3):
        altered = token[:position] + bytes([token[position] ^ 1]) + token[position + 1 :]
        found = judged(site, altered, tsa.roots)
        if found != right:  # a few bytes are spelling: versions, names of algorithms outside the signature
            refused += 1
            assert found.finding is not Finding.VERIFIED
            assert found.doubt in (Doubt.UNREADABLE, Doubt.SIGNATURE, Doubt.ALGORITHM)
    assert refused > 0.9 * len(token) / 3


@pytest.mark.parametrize("token", [b"", b"no token", b"\x30\x05\x30\x03\x02\x01\x02"])
def test_what_is_no_token_is_told(site: Site, tsa: Authority, token: bytes) -> None:
    found = judged(site, token, tsa.roots)
    assert (found.finding, found.doubt) == (Finding.UNKNOWN, Doubt.UNREADABLE)


def test_a_token_over_another_ledgers_checkpoint_is_refused(site: Site, tsa: Authority, tmp_path: Path) -> None:
    other = usual_site(tmp_path / "other", rounds=2)
    found = judged(site, tsa.stamp(make_request(other.evidence())[0]), tsa.roots)
    assert (found.finding, found.doubt, found.size) == (Finding.CONTRADICTED, Doubt.OTHER, 0)


def test_a_token_over_entries_that_were_cut_off_is_refused(site: Site, tsa: Authority) -> None:
    before = site.evidence()
    site.update(3)
    token = tsa.stamp(make_request(site.evidence())[0])
    assert check_timestamp("x", token, tsa.roots, before).doubt is Doubt.OTHER


def test_another_authoritys_token_is_refused(site: Site, tsa: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "tsa")
    found = judged(site, other.stamp(make_request(site.evidence())[0]), tsa.roots)
    assert (found.finding, found.doubt) == (Finding.CONTRADICTED, Doubt.SIGNATURE)
    assert "does not lead to the roots given" in stamp_sentence(found).en


def test_without_roots_or_library_nothing_can_be_told(
    site: Site, tsa: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tsa.stamp(make_request(site.evidence())[0])
    found = judged(site, token, None)
    assert (found.finding, found.doubt, found.size) == (Finding.UNKNOWN, Doubt.NO_ROOTS, site.ledger.size)
    assert "; by its own word, the first" in stamp_sentence(found).en
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    assert judged(site, token, tsa.roots).doubt is Doubt.NO_LIBRARY
    with pytest.raises(LedgerError, match="need a library"):
        make_request(site.evidence())


def test_roots_that_are_none_and_files_that_are_not_there_are_told(site: Site, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="are no certificates"):
        judged(site, b"", b"no roots")
    with pytest.raises(LedgerError, match="cannot be read"):
        read_stamps(Tokens([tmp_path / "none.tsr"]), site.evidence())


def test_only_a_checkpoint_of_these_entries_is_stamped(site: Site, tmp_path: Path) -> None:
    evidence = site.evidence()
    for wrong in (replace(evidence, rows=evidence.rows[:-1]), replace(evidence, rows=())):
        with pytest.raises(LedgerError, match="not of these entries"):
            make_request(wrong)
    write_request(site.folder, tmp_path / "kiso.tsq", Console(quiet=True))
    assert (tmp_path / "kiso.tsq").read_bytes() == make_request(evidence)[0]
    with pytest.raises(LedgerError, match="is there already"):
        write_request(site.folder, tmp_path / "kiso.tsq", Console(quiet=True))


def test_an_entry_dated_after_the_stamp_is_told(
    site: Site, tsa: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 90 * 10**9)
    site.call(EntryKind.ATTEND)
    found = judged(site, tsa.stamp(make_request(site.evidence())[0]), tsa.roots)
    assert found.finding is Finding.VERIFIED
    assert 80_000 < found.late_ms <= 92_000
    assert "though the plant dates the last of them" in stamp_sentence(found).en


def _reports(site: Site, token: bytes, roots: bytes) -> dict[Lang, str]:
    evidence = site.evidence()
    stamp = check_timestamp("kiso.tsr", token, roots, evidence)
    found = gather(evidence, Sources("kiso.tar"), site.authority, site.kept, stamps=(stamp,))
    assert (headline(found).finding is Finding.CONTRADICTED) == (stamp.finding is Finding.CONTRADICTED)
    return {lang: render(found, lang) for lang in Lang}


def test_the_report_tells_it_in_both_languages(site: Site, tsa: Authority) -> None:
    token = tsa.stamp(make_request(site.evidence())[0])
    good, bad = _reports(site, token, tsa.roots), _reports(site, token, site.authority)
    assert "kiso.tsr: verified: the first" in good[Lang.EN]
    assert "kiso.tsr：確認済み：先頭の" in good[Lang.JA]
    assert "a time-stamp that was given does not fit it" in bad[Lang.EN]
    assert "提出されたタイムスタンプが台帳と合わない" in bad[Lang.JA]
