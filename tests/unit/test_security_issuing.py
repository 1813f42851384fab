"""Requests made where the key stays, what the CA makes of them, and certificates that no longer count."""

from __future__ import annotations

import logging
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedsparse.errors import CertificateError
from fedsparse.security import (
    Authority,
    Identity,
    LiveCredentials,
    Revocations,
    Role,
    adopt_certificate,
    check_chain,
    create_authority,
    issue,
    load_authority,
    load_credentials,
    read_der_chain,
    read_pem_chain,
    replace_issuing,
    request_certificate,
    revoke,
    sign_request,
)
from fedsparse.security.authority import read_record
from fedsparse.security.chains import to_der_chain
from fedsparse.security.revocation import read_revoked
from tests.unit.federation_samples import files

KISO, ISE, HUB = Identity(Role.PLANT, "kiso"), Identity(Role.PLANT, "ise"), Identity(Role.HUB, "hub")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return create_authority(tmp_path / "pki", "test")


def enrolled(authority: Authority, home: Path, identity: Identity = KISO, passphrase: bytes | None = None) -> Path:
    """Return a folder that holds key and certificate, made by request."""
    request = request_certificate(identity, home, passphrase=passphrase)
    sign_request(authority, identity, request, home / "back", ("hub.example",) if identity is HUB else ())
    adopt_certificate(home / "back" / f"{identity.name}.pem", home / "back" / "ca.pem", identity, home, passphrase)
    return home


def chain(home: Path, name: str = "kiso") -> list[x509.Certificate]:
    return read_pem_chain((home / f"{name}.pem").read_bytes(), "it")


def roots(authority: Authority) -> list[x509.Certificate]:
    return [authority.root]


# Requests


def test_a_key_that_never_left_gets_a_certificate_that_loads(authority: Authority, tmp_path: Path) -> None:
    home = enrolled(authority, tmp_path / "kiso")
    assert load_credentials(files(home, "kiso"), Role.PLANT).identity == KISO
    assert sorted(path.name for path in home.iterdir()) == ["back", "ca.pem", "kiso.key", "kiso.pem"]
    assert stat.S_IMODE((home / "kiso.key").stat().st_mode) == 0o600
    assert not list(authority.folder.glob("*kiso*"))  # nor any key at the CA


def test_a_key_in_use_stays_until_the_new_certificate_is_adopted(authority: Authority, tmp_path: Path) -> None:
    home = enrolled(authority, tmp_path / "kiso")
    before = load_credentials(files(home, "kiso"), Role.PLANT)
    request = request_certificate(KISO, home)
    assert load_credentials(files(home, "kiso"), Role.PLANT) == before
    sign_request(authority, KISO, request, home / "new")
    adopt_certificate(home / "new" / "kiso.pem", home / "ca.pem", KISO, home)
    after = load_credentials(files(home, "kiso"), Role.PLANT)
    assert after.chain[0].serial_number != before.chain[0].serial_number
    assert after.key != before.key


def test_a_hubs_hosts_come_from_its_request_unless_the_operator_says_others(
    authority: Authority, tmp_path: Path
) -> None:
    request = request_certificate(HUB, tmp_path, ("hub.example", "10.0.0.7"))
    for hosts, expected in (((), ["hub.example"]), (("other.example",), ["other.example"])):
        sign_request(authority, HUB, request, tmp_path / "back", hosts)
        names = chain(tmp_path / "back", "hub")[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert names.value.get_values_for_type(x509.DNSName) == expected


def test_a_request_of_somebody_else_is_not_signed(authority: Authority, tmp_path: Path) -> None:
    request = request_certificate(ISE, tmp_path)
    with pytest.raises(CertificateError, match="is for urn:fedsparse:plant:ise, and urn:fedsparse:plant:kiso"):
        sign_request(authority, KISO, request, tmp_path / "back")
    with pytest.raises(CertificateError, match="urn:fedsparse:hub:ise is to be admitted"):
        sign_request(authority, Identity(Role.HUB, "ise"), request, tmp_path / "back", ("hub.example",))
    assert not (tmp_path / "back").exists()
    assert read_record(authority.folder) == []


def _requested(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> Path:
    built = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kiso")])
    )
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(KISO.uri)])
    path.write_bytes(
        built.add_extension(names, critical=False).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    )
    return path


def test_weak_and_other_keys_are_not_signed(authority: Authority, tmp_path: Path) -> None:
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP192R1())):
        with pytest.raises(CertificateError, match="another kind of key than P-256"):
            sign_request(authority, KISO, _requested(tmp_path / "r.csr", key), tmp_path / "back")


def test_an_altered_request_is_not_signed(authority: Authority, tmp_path: Path) -> None:
    request = request_certificate(KISO, tmp_path)
    der = bytearray(x509.load_pem_x509_csr(request.read_bytes()).public_bytes(Encoding.DER))
    at = der.index(b"plant:kiso") + len(b"plant:")
    der[at : at + 4] = b"kisa"
    request.write_bytes(x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM))
    with pytest.raises(CertificateError, match="not signed by the key it names: it was altered"):
        sign_request(authority, Identity(Role.PLANT, "kisa"), request, tmp_path / "back")


@pytest.mark.parametrize("content", [b"", b"junk", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END"])
def test_what_is_no_request_is_named(authority: Authority, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.csr").write_bytes(content)
    with pytest.raises(CertificateError, match="is not a PEM certificate request"):
        sign_request(authority, KISO, tmp_path / "r.csr", tmp_path / "back")
    with pytest.raises(CertificateError, match="cannot read the request"):
        sign_request(authority, KISO, tmp_path / "absent.csr", tmp_path / "back")


def test_a_certificate_is_adopted_only_with_its_own_key_and_of_a_trusted_ca(
    authority: Authority, tmp_path: Path
) -> None:
    home = tmp_path / "kiso"
    sign_request(authority, KISO, request_certificate(KISO, tmp_path / "elsewhere"), tmp_path / "back")
    with pytest.raises(CertificateError, match=r"no key in .* waits for the certificate"):
        adopt_certificate(tmp_path / "back" / "kiso.pem", tmp_path / "back" / "ca.pem", KISO, home)
    other = create_authority(tmp_path / "other", "other")
    sign_request(other, KISO, request_certificate(KISO, home), tmp_path / "strange")
    with pytest.raises(CertificateError, match="was not issued by the given CA"):
        adopt_certificate(tmp_path / "strange" / "kiso.pem", tmp_path / "back" / "ca.pem", KISO, home)
    assert not (home / "kiso.key").exists()
    assert (home / "kiso.next.key").exists()  # it still waits


def test_keys_can_lie_under_a_passphrase_and_only_its_file_opens_them(
    authority: Authority, tmp_path: Path
) -> None:
    home = enrolled(authority, tmp_path / "kiso", passphrase=b"secret")
    with pytest.raises(CertificateError, match="its passphrase is needed, and none is given"):
        load_credentials(files(home, "kiso"), Role.PLANT)
    file = tmp_path / "passphrase"
    file.write_text("secret\n")
    file.chmod(0o644)
    settings = files(home, "kiso").model_copy(update={"passphrase_file": file})
    with pytest.raises(CertificateError, match=r"the passphrase file .* can be read by others"):
        load_credentials(settings, Role.PLANT)
    file.chmod(0o600)
    assert load_credentials(settings, Role.PLANT).identity == KISO
    file.write_text("guess")
    with pytest.raises(CertificateError, match="its passphrase is not the one"):
        load_credentials(settings, Role.PLANT)
    file.write_text("\n")
    with pytest.raises(CertificateError, match="has 0 bytes"):
        load_credentials(settings, Role.PLANT)


# Chains


def test_a_chain_survives_its_der_form(authority: Authority, tmp_path: Path) -> None:
    found = chain(enrolled(authority, tmp_path / "kiso"))
    assert len(found) == 2
    assert read_der_chain(to_der_chain(found), "it") == found


def test_a_leaf_without_its_issuers_leads_nowhere(authority: Authority, tmp_path: Path) -> None:
    leaf, issuing = chain(enrolled(authority, tmp_path / "kiso"))
    with pytest.raises(CertificateError, match="was not issued by the given CA"):
        check_chain([leaf], roots(authority), Role.PLANT, "it")
    assert check_chain([leaf, issuing, authority.root], roots(authority), Role.PLANT, "it") == KISO


def test_a_plants_certificate_signs_nobody(authority: Authority, tmp_path: Path) -> None:
    home = enrolled(authority, tmp_path / "kiso")
    credentials = load_credentials(files(home, "kiso"), Role.PLANT)
    leaf, issuing = credentials.chain
    itself = Authority(tmp_path / "kiso", leaf, load_key(home), authority.root)
    issue(itself, ISE, tmp_path / "forged")
    forged = chain(tmp_path / "forged", "ise")
    with pytest.raises(CertificateError, match="was not issued by the given CA"):
        check_chain([*forged, issuing], roots(authority), Role.PLANT, "it")


def load_key(home: Path) -> ec.EllipticCurvePrivateKey:
    from fedsparse.security.keys import read_key

    return read_key(home / "kiso.key")


def test_chains_of_any_length_are_bounded(authority: Authority, tmp_path: Path) -> None:
    leaf = chain(enrolled(authority, tmp_path / "kiso"))[0]
    with pytest.raises(CertificateError, match="more than 8 certificates"):
        read_der_chain(to_der_chain([leaf] * 9), "it")
    with pytest.raises(CertificateError, match="more than 8 certificates"):
        read_pem_chain(leaf.public_bytes(Encoding.PEM) * 9, "it")
    with pytest.raises(CertificateError, match="unreadable"):
        read_der_chain(b"", "it")


# Revocation


def test_a_revoked_certificate_does_not_load_and_others_do(authority: Authority, tmp_path: Path) -> None:
    homes = {who.name: enrolled(authority, tmp_path / who.name, who) for who in (KISO, ISE)}
    serial = f"{chain(homes['kiso'])[0].serial_number:x}"
    assert revoke(authority, ["kiso"]) == [serial]
    assert revoke(authority, ["kiso"]) == []  # it is already
    assert read_revoked(authority.folder / "crl.pem") == {int(serial, 16)}
    listed = {"revoked": authority.folder / "crl.pem"}
    with pytest.raises(CertificateError, match=rf"the certificate {serial} of CN=kiso is revoked\. Enrol anew"):
        load_credentials(files(homes["kiso"], "kiso").model_copy(update=listed), Role.PLANT)
    assert load_credentials(files(homes["ise"], "ise").model_copy(update=listed), Role.PLANT).identity == ISE


def test_one_of_several_certificates_is_revoked_by_its_serial(authority: Authority, tmp_path: Path) -> None:
    first = chain(enrolled(authority, tmp_path / "one"))
    second = chain(enrolled(authority, tmp_path / "two"))
    revoke(authority, [f"{first[0].serial_number:x}"])
    revocations = Revocations(authority.folder / "crl.pem", lambda: roots(authority))
    revocations.check(second)
    with pytest.raises(CertificateError, match="is revoked"):
        revocations.check(first)


def test_who_was_never_admitted_cannot_be_revoked(authority: Authority) -> None:
    with pytest.raises(CertificateError, match="no certificate of 'ise' was issued here"):
        revoke(authority, ["ise"])
    assert not (authority.folder / "crl.pem").exists()


def test_of_a_hub_and_a_plant_of_the_same_name_only_the_one_that_is_meant_is_revoked(
    authority: Authority, tmp_path: Path
) -> None:
    plant = enrolled(authority, tmp_path / "plant")
    hub = tmp_path / "hub"
    issue(authority, Identity(Role.HUB, "kiso"), hub, ("hub.example",))
    enrolled(authority, tmp_path / "ise", ISE)
    why = r"'kiso' is the name of a hub and of a plant here\. Say which, with --role hub or --role plant, or give"
    with pytest.raises(CertificateError, match=why):
        revoke(authority, ["ise", "kiso"])
    assert not (authority.folder / "crl.pem").exists()  # nobody was
    serials = {role: f"{chain(home)[0].serial_number:x}" for role, home in ((Role.HUB, hub), (Role.PLANT, plant))}
    assert revoke(authority, ["kiso"], role=Role.HUB) == [serials[Role.HUB]]
    assert read_revoked(authority.folder / "crl.pem") == {int(serials[Role.HUB], 16)}
    with pytest.raises(CertificateError, match=why):  # the plant is there as before
        revoke(authority, ["kiso"])
    assert revoke(authority, ["ise", "kiso"], role=Role.PLANT)[1:] == [serials[Role.PLANT]]


def test_a_serial_number_is_nobodys_name_and_needs_no_role(authority: Authority, tmp_path: Path) -> None:
    serial = f"{chain(enrolled(authority, tmp_path / 'plant'))[0].serial_number:x}"
    issue(authority, Identity(Role.HUB, "kiso"), tmp_path / "hub", ("hub.example",))
    assert revoke(authority, [serial.upper()]) == [serial]


def test_a_plant_is_not_revoked_where_a_hub_is_meant(authority: Authority, tmp_path: Path) -> None:
    enrolled(authority, tmp_path / "kiso")
    with pytest.raises(
        CertificateError,
        match=r"no certificate of a hub 'kiso' was issued here, but of a plant of that name\.",
    ):
        revoke(authority, ["kiso"], role=Role.HUB)
    with pytest.raises(
        CertificateError, match=r"no certificate of a hub 'ise' was issued here\. `fedsparse pki list"
    ):
        revoke(authority, ["ise"], role=Role.HUB)
    assert not (authority.folder / "crl.pem").exists()


def test_a_list_that_changes_counts_at_once_and_one_that_breaks_changes_nothing(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = chain(enrolled(authority, tmp_path / "kiso"))
    revoke(authority)
    path = tmp_path / "crl.pem"
    path.write_bytes((authority.folder / "crl.pem").read_bytes())
    revocations = Revocations(path, lambda: roots(authority))
    revocations.check(found)
    revoke(authority, ["kiso"])
    path.write_bytes((authority.folder / "crl.pem").read_bytes())
    with pytest.raises(CertificateError, match="is revoked"):
        revocations.check(found)
    for spoilt in (lambda: path.write_bytes(b"junk"), path.unlink):
        spoilt()
        with caplog.at_level(logging.ERROR), pytest.raises(CertificateError, match="of CN=kiso is revoked"):
            revocations.check(found)
    assert "what it said before stands" in caplog.text


def test_a_list_of_a_strangers_ca_is_refused(authority: Authority, tmp_path: Path) -> None:
    other = create_authority(tmp_path / "other", "other")
    revoke(other)
    with pytest.raises(CertificateError, match="not signed by a CA that is trusted here"):
        Revocations(other.folder / "crl.pem", lambda: roots(authority))


def test_a_plant_cannot_write_a_list(authority: Authority, tmp_path: Path) -> None:
    """Its certificate is below the root, but may sign no lists."""
    home = enrolled(authority, tmp_path / "kiso")
    leaf = chain(home)[0]
    forger = Authority(home, leaf, load_key(home), authority.root)
    revoke(forger)
    with pytest.raises(CertificateError, match="not signed by a CA that is trusted here"):
        Revocations(home / "crl.pem", lambda: roots(authority))


def test_an_absent_list_is_an_error_and_none_at_all_revokes_nobody(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="cannot read the revocation list"):
        Revocations(tmp_path / "crl.pem", lambda: roots(authority))
    Revocations(None, tuple).check(chain(enrolled(authority, tmp_path / "kiso")))


def test_an_outdated_list_still_counts_and_says_so(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = chain(enrolled(authority, tmp_path / "kiso"))
    now = datetime.now(UTC)
    entry = x509.RevokedCertificateBuilder().serial_number(found[0].serial_number).revocation_date(now).build()
    old = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - timedelta(days=40))
        .next_update(now - timedelta(days=10))
        .add_revoked_certificate(entry)
        .sign(authority.key, hashes.SHA256())
    )
    pem = authority.certificate.public_bytes(Encoding.PEM) + old.public_bytes(Encoding.PEM)
    (tmp_path / "crl.pem").write_bytes(pem)
    with pytest.raises(CertificateError, match="is revoked"):
        Revocations(tmp_path / "crl.pem", lambda: roots(authority)).check(found)
    assert "should have been renewed by" in caplog.text


# Rotation


def test_a_new_issuing_ca_leaves_old_certificates_valid_and_can_revoke_them(
    authority: Authority, tmp_path: Path
) -> None:
    old = chain(enrolled(authority, tmp_path / "kiso"))
    revoke(authority)
    new = replace_issuing(authority.folder, authority.folder / "ca.key")
    assert load_authority(authority.folder).certificate == new.certificate != authority.certificate
    young = chain(enrolled(new, tmp_path / "ise", ISE), "ise")
    for found, who in ((old, KISO), (young, ISE)):
        assert check_chain(found, roots(authority), Role.PLANT, "it") == who
    revoke(new, ["kiso"])
    revocations = Revocations(authority.folder / "crl.pem", lambda: roots(authority))
    revocations.check(young)
    with pytest.raises(CertificateError, match="of CN=kiso is revoked"):
        revocations.check(old)


def test_a_compromised_issuing_ca_takes_all_that_it_signed_with_it(authority: Authority, tmp_path: Path) -> None:
    old = chain(enrolled(authority, tmp_path / "kiso"))
    revoke(authority)
    new = replace_issuing(authority.folder, authority.folder / "ca.key", compromised=True)
    revoke(new)
    revocations = Revocations(authority.folder / "crl.pem", lambda: roots(authority))
    with pytest.raises(CertificateError, match=r"issuing .* is revoked"):
        revocations.check(old)
    revocations.check(chain(enrolled(new, tmp_path / "ise", ISE), "ise"))


def test_only_the_root_makes_a_new_issuing_ca(authority: Authority, tmp_path: Path) -> None:
    other = create_authority(tmp_path / "other", "other")
    with pytest.raises(CertificateError, match="does not belong to"):
        replace_issuing(authority.folder, other.folder / "ca.key")
    assert load_authority(authority.folder).certificate == authority.certificate


def test_credentials_follow_their_files_and_keep_what_they_have_while_those_are_wrong(
    authority: Authority, tmp_path: Path
) -> None:
    home, troubles = enrolled(authority, tmp_path / "kiso"), list[str]()
    live = LiveCredentials(files(home, "kiso"), Role.PLANT, troubles.append)
    first = live.current
    assert not live.renew()
    whole = (home / "kiso.pem").read_bytes()
    (home / "kiso.pem").write_bytes(b"half a certif")
    assert not live.renew()
    assert not live.renew()  # and says so once
    assert (live.current, len(troubles)) == (first, 1)
    (home / "kiso.pem").write_bytes(whole)
    assert not live.renew()  # they are the same as before
    issue(authority, ISE, tmp_path / "ise")
    for suffix in ("pem", "key"):
        (tmp_path / "ise" / f"ise.{suffix}").replace(home / f"kiso.{suffix}")
    assert not live.renew()
    assert "urn:fedsparse:plant:ise's, not urn:fedsparse:plant:kiso's" in troubles[-1]
    issue(authority, KISO, home)
    assert live.renew()
    assert live.current.chain[0].serial_number != first.chain[0].serial_number


def test_a_new_root_beside_the_old_one_lets_both_generations_in(authority: Authority, tmp_path: Path) -> None:
    other = create_authority(tmp_path / "next", "test")
    homes = [enrolled(authority, tmp_path / "kiso"), enrolled(other, tmp_path / "ise", ISE)]
    both = [authority.root, other.root]
    for home, who in zip(homes, (KISO, ISE), strict=True):
        assert check_chain(chain(home, who.name), both, Role.PLANT, "it") == who


# What goes wrong on the way


def test_a_record_that_a_crash_cut_short_is_no_obstacle(authority: Authority, tmp_path: Path) -> None:
    enrolled(authority, tmp_path / "kiso")
    record = authority.folder / "issued.jsonl"
    with record.open("a") as file:
        file.write('{"serial": "12')
    assert [one["name"] for one in read_record(authority.folder)] == ["kiso"]
    enrolled(authority, tmp_path / "ise", ISE)
    assert [one["name"] for one in read_record(authority.folder)] == ["kiso", "ise"]
    assert len(revoke(authority, ["kiso", "ise"])) == 2


def test_a_damaged_record_stops_revoking_by_name_and_not_renewing(authority: Authority) -> None:
    (authority.folder / "issued.jsonl").write_text('{"name": "kiso"}\n')
    with pytest.raises(CertificateError, match=r"issued\.jsonl is damaged"):
        revoke(authority, ["kiso"])
    revoke(authority)


def test_what_the_root_revoked_stays_so_when_the_list_is_renewed(authority: Authority, tmp_path: Path) -> None:
    """A rotation that was interrupted leaves the root's list behind the old CA's."""
    old = chain(enrolled(authority, tmp_path / "kiso"))
    revoke(authority)
    replace_issuing(authority.folder, authority.folder / "ca.key", compromised=True)
    revoke(authority)  # by the old CA, which has not gone yet
    with pytest.raises(CertificateError, match=r"issuing .* is revoked"):
        Revocations(authority.folder / "crl.pem", lambda: roots(authority)).check(old)


def test_a_working_pair_is_not_replaced_by_one_of_a_ca_that_the_site_does_not_trust(
    authority: Authority, tmp_path: Path
) -> None:
    home = enrolled(authority, tmp_path / "kiso")
    before = load_credentials(files(home, "kiso"), Role.PLANT)
    other = create_authority(tmp_path / "other", "other")
    sign_request(other, KISO, request_certificate(KISO, home), tmp_path / "strange")
    with pytest.raises(CertificateError, match="was not issued by the given CA"):
        adopt_certificate(tmp_path / "strange" / "kiso.pem", other.folder / "ca.pem", KISO, home)
    assert load_credentials(files(home, "kiso"), Role.PLANT) == before


def test_a_key_whose_certificate_is_awaited_is_thrown_away_only_on_demand(tmp_path: Path) -> None:
    first = request_certificate(KISO, tmp_path).read_bytes()
    with pytest.raises(CertificateError, match=r"kiso\.next\.key still waits for its certificate"):
        request_certificate(KISO, tmp_path)
    assert (tmp_path / "kiso.csr").read_bytes() == first
    assert request_certificate(KISO, tmp_path, again=True).read_bytes() != first


def test_a_certificate_never_outlives_its_issuer(authority: Authority, tmp_path: Path) -> None:
    issue(authority, KISO, tmp_path, life=timedelta(days=5000))
    leaf, issuing = chain(tmp_path)
    assert leaf.not_valid_after_utc <= issuing.not_valid_after_utc


def test_a_request_for_a_wildcard_is_signed_only_if_the_operator_says_so(
    authority: Authority, tmp_path: Path
) -> None:
    request = request_certificate(HUB, tmp_path, ("*.com",))
    with pytest.raises(CertificateError, match=r"asks for the hosts \*\.com.*--host"):
        sign_request(authority, HUB, request, tmp_path / "back")
    sign_request(authority, HUB, request, tmp_path / "back", ("hub.example",))


def test_a_key_that_is_mended_in_place_is_taken_up(authority: Authority, tmp_path: Path) -> None:
    home, troubles = enrolled(authority, tmp_path / "kiso"), list[str]()
    live = LiveCredentials(files(home, "kiso"), Role.PLANT, troubles.append)
    issue(authority, KISO, home)
    (home / "kiso.key").chmod(0o644)
    assert not live.renew()
    assert not live.renew()
    assert [trouble for trouble in troubles if "chmod 600" in trouble] == troubles[:1] == troubles
    (home / "kiso.key").chmod(0o600)
    assert live.renew()


def test_a_list_that_came_before_its_ca_counts_once_the_ca_is_there(authority: Authority, tmp_path: Path) -> None:
    other = create_authority(tmp_path / "next", "test")
    found, trusted = chain(enrolled(other, tmp_path / "kiso")), [authority.root]
    revoke(authority)
    path = tmp_path / "crl.pem"
    path.write_bytes((authority.folder / "crl.pem").read_bytes())
    revocations = Revocations(path, lambda: trusted)
    revoke(other, ["kiso"])
    path.write_bytes((other.folder / "crl.pem").read_bytes())
    revocations.check(found)  # its CA is nobody here yet
    trusted.append(other.root)
    with pytest.raises(CertificateError, match="is revoked"):
        revocations.check(found)


@pytest.mark.parametrize("form", ["rsa", "authority"])
def test_a_leaf_of_another_form_is_nobody(authority: Authority, form: str) -> None:
    from fedsparse.security.authority import builder

    key = rsa.generate_private_key(65537, 2048) if form == "rsa" else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kiso")])
    leaf = (
        builder(subject, authority.certificate.subject, key.public_key(), timedelta(days=1))  # type: ignore[arg-type]
        .add_extension(x509.BasicConstraints(ca=form == "authority", path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(KISO.uri)]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    why = "another kind of key than P-256" if form == "rsa" else "is a CA's"
    with pytest.raises(CertificateError, match=why):
        check_chain([leaf, authority.certificate], roots(authority), Role.PLANT, "it")
