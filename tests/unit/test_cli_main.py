"""The command as people type it: exit codes and what is printed, in-process but through the real entry point."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedsparse import __version__, config
from fedsparse.audit import Checkpoint, Ledger, receipt_line
from fedsparse.audit.merkle import includes, leaf_hash
from fedsparse.bundle import bundle_sha256
from fedsparse.cli.demo_site import federation_text
from fedsparse.cli.main import main
from fedsparse.delta import AdapterSpace, Operation, SparseDelta, TensorDelta
from fedsparse.delta import TensorSpec as Spec
from fedsparse.kernels import COMPILED
from fedsparse.registry import Contribution, Registry
from fedsparse.security import Role, load_authority, load_credentials
from fedsparse.v1 import link_pb2
from tests.unit.federation_samples import files, settings
from tests.unit.samples import LEFT, Hub, cell, tamper

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return exit code, stdout and stderr of one command line."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedsparse", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), printed.out, printed.err

    return call


@pytest.mark.parametrize(
    ("arguments", "taught"),
    [
        ((), "Federated, on-prem fine-tuning"),
        (("demo",), "Run a whole federation on this machine"),
        (("train",), "Train a sparse adapter on this machine's own samples"),
        (("predict",), "Apply a saved adapter to samples"),
        (("peft",), "Adapters to and from Hugging Face PEFT"),
        (("peft", "export"), "Write a saved adapter as a PEFT folder"),
        (("peft", "import"), "Save what a PEFT folder holds"),
        (("server",), "The operator's side"),
        (("server", "up"), "Start the hub and run the federation's rounds"),
        (("client",), "The plant's side"),
        (("client", "up"), "Start this plant"),
        (("audit",), "What left a site"),
        (("audit", "verify"), "Check a ledger"),
        (("registry",), "Adapter versions"),
        (("registry", "list"), "List adapter versions"),
        (("registry", "show"), "Show one adapter version"),
        (("pki",), "Certificates for hub and plants"),
        (("pki", "init"), "Create a certificate authority"),
        (("pki", "issue"), "Make key and certificate in one go"),
        (("pki", "sign"), "Sign a request that was made where the key stays"),
        (("pki", "revoke"), "Revoke certificates"),
        (("pki", "refresh"), "Write CA/crl.pem anew"),
        (("pki", "list"), "List every certificate that was issued"),
        (("pki", "rotate"), "Replace the issuing CA"),
        (("client", "enroll"), "Make this plant's key, which never leaves it"),
        (("client", "adopt"), "Put a certificate into use"),
        (("server", "enroll"), "Make the hub's key, which never leaves it"),
        (("server", "adopt"), "Put a certificate into use"),
    ],
)
def test_every_command_teaches_itself(run: Run, arguments: tuple[str, ...], taught: str) -> None:
    code, out, err = run(*arguments, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: fedsparse {' '.join(arguments)}".strip() in out
    assert taught in out


def test_the_help_explains_arguments_and_options(run: Run) -> None:
    _, out, _ = run("pki", "issue", "--help")
    assert "hub or plant." in out
    assert "Folder of the CA." in out


def test_the_version_can_be_asked(run: Run) -> None:
    form = "loops compiled" if COMPILED else "loops in NumPy"
    assert run("--version") == (0, f"fedsparse {__version__} ({form})\n", "")


@pytest.mark.parametrize("arguments", [(), ("registry",), ("pki",)])
def test_a_command_without_its_sub_command_shows_what_there_is(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert code in {0, 2}
    assert "Commands" in out + err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("registry", "lst"), "No such command 'lst'"),
        (("audit", "verify"), "Missing argument 'LEDGER'"),
        (("pki", "issue", "plant", "kiso"), "Missing option '--ca'"),
        (("audit", "verify", "x", "--nonsense"), "No such option"),
        (("registry", "show", "x", "zero"), "'zero' is not a valid int"),
        (("registry", "show", "x", "0"), "0 is not in the range x>=1"),
        (("demo", "--rounds", "0"), "0 is not in the range"),
        (("registry", "list", "a", "b"), "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_told_with_the_way_to_help_and_exits_2(
    run: Run, arguments: tuple[str, ...], told: str
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert "Usage: fedsparse" in err
    assert "--help" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("role", ["server", "client"])
def test_bad_settings_are_told_without_a_traceback(run: Run, tmp_path: Path, role: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[hub\n")
    code, out, err = run(role, "up", "--config", path)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {path} cannot be read as TOML")


def test_a_value_in_brackets_is_printed_as_it_stands(run: Run, tmp_path: Path) -> None:
    path = settings(tmp_path)
    path.write_text(path.read_text().replace('listen = "127.0.0.1:0"', 'listen = "[red]nowhere[/red]"'))
    code, _, err = run("server", "up", "--config", path)
    assert code == 1
    assert "[red]nowhere[/red]" in err


def test_the_installed_command_ends_with_the_same_codes() -> None:
    command = str(Path(sys.executable).parent / "fedsparse")
    for arguments, code in ((["--version"], 0), (["nonsense"], 2), (["registry", "list", "/nowhere"], 1)):
        result = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
        assert (result.returncode, "Traceback" in result.stderr) == (code, False)


def test_ctrl_c_ends_a_command_with_the_usual_status(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedsparse.cli.inspect.list_versions", interrupt)
    code, _, err = run("registry", "list", "x")
    assert (code, "Traceback" in err) == (130, False)


# audit


@pytest.fixture
def authority(hub: Hub, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(hub.authority)
    return path


def test_a_ledger_that_verifies_exits_0_and_says_what_was_not_checked(
    run: Run, ledger_folder: Path, authority: Path
) -> None:
    code, out, err = run("audit", "verify", ledger_folder, "--ca", authority)
    assert (code, err) == (0, "")
    assert "6 entries: 2 updates left, 1 refused, 3 receipts filed" in out
    assert out.splitlines()[1] == "the hub has witnessed the first 5 entries"
    assert "not compared with the hub's record" in out
    assert out.endswith("\nverified\n")


def test_without_the_ca_nobody_can_tell_whose_ledger_it_is(run: Run, ledger_folder: Path) -> None:
    code, out, err = run("audit", "verify", ledger_folder)
    assert (code, err) == (3, "")
    assert "receipts name the first 5 entries as witnessed by the hub, which was not checked\n" in out
    verdict = out.splitlines()[-1]
    assert verdict.startswith(
        "CANNOT TELL: the ledger fits together and is signed by its own key, but whose it is"
    )
    assert verdict.endswith("was not checked: name the federation's CA certificate with --ca")
    assert "verified" not in out
    assert "has witnessed" not in out


def test_of_an_empty_ledger_nobody_can_tell_anything(run: Run, tmp_path: Path, authority: Path) -> None:
    with Ledger(tmp_path / "new", bytes(32), "ise"):
        pass
    code, out, _ = run("audit", "verify", tmp_path / "new", "--ca", authority)
    assert (code, out.endswith("CANNOT TELL: the ledger has no entries\n")) == (3, True)
    for command in (("explain",), ("report", "--out", tmp_path / "page.html")):
        code, out, _ = run("audit", *command, tmp_path / "new", "--ca", authority)
        assert (code, out.startswith("Cannot tell: the ledger has no entries.\n")) == (3, True)


def test_a_hubs_record_that_was_cut_short_is_told(
    run: Run, ledger_folder: Path, authority: Path, tmp_path: Path
) -> None:
    receipts = [link_pb2.Receipt.FromString(cell(ledger_folder, "receipts", "receipt", number)) for number in LEFT]
    kept = tmp_path / "ise.jsonl"
    lines = [*map(receipt_line, receipts)]
    for content, reach, lacking in (
        (lines, "3 receipts, the last of 2", []),
        (lines[:2], "2 receipts, the last of 2", [5]),
        ([*lines[:2], lines[2][:-1]], "2 receipts, the last of 2", [5]),
        ([], "no receipts\n", [2, 4, 5]),
    ):
        kept.write_bytes(b"".join(content))
        code, out, _ = run("audit", "verify", ledger_folder, "--ca", authority, "--hub-receipts", kept)
        assert code == bool(lacking)
        assert f"compared with the hub's record, which has {reach}" in out
        assert ("the last line of the hub's record is cut short" in out) == (len(content) == 3 and bool(lacking))
        named = [line for line in out.splitlines() if line.endswith("is older than this receipt, or not whole")]
        assert [int(line.split()[1][:-1]) for line in named] == lacking


def test_a_record_that_has_no_receipt_for_what_is_under_way_verifies_and_says_so(
    run: Run, ledger_folder: Path, authority: Path, tmp_path: Path
) -> None:
    receipts = [link_pb2.Receipt.FromString(cell(ledger_folder, "receipts", "receipt", number)) for number in LEFT]
    kept = tmp_path / "ise.jsonl"
    kept.write_bytes(b"".join(map(receipt_line, receipts[:2])))
    tamper(ledger_folder, "DELETE FROM receipts WHERE sequence > 2")
    code, out, _ = run("audit", "verify", ledger_folder, "--ca", authority, "--hub-receipts", kept)
    assert (code, out.splitlines()[-1]) == (0, "verified")
    assert "the hub has witnessed the first 4 entries" in out
    assert "no receipt is filed for 4, but the hub's record has them" in out
    assert "no receipt for 5, filed or in the hub's record: under way, or never delivered" in out


def test_a_file_that_is_no_certificate_is_the_auditors_mistake(
    run: Run, ledger_folder: Path, tmp_path: Path
) -> None:
    for content in ("", "no certificate"):
        (tmp_path / "none.pem").write_text(content)
        for command in (("verify",), ("explain",), ("report", "--out", tmp_path / "page.html")):
            code, out, err = run("audit", *command, ledger_folder, "--ca", tmp_path / "none.pem")
            assert (code, out, err) == (1, "", f"error: {tmp_path / 'none.pem'} is not a PEM certificate\n")
    assert not (tmp_path / "page.html").exists()


def test_a_ledger_that_was_altered_exits_1_and_names_the_entry(run: Run, ledger_folder: Path) -> None:
    for payload in (ledger_folder / "payloads").iterdir():
        payload.write_bytes(b"other bytes")
    code, out, err = run("audit", "verify", ledger_folder)
    assert (code, err) == (1, "")
    assert "entry 2: its payload was altered" in out
    assert out.endswith("CONTRADICTED\n")


def test_a_bundle_is_written_once_and_verifies_elsewhere(
    run: Run, ledger_folder: Path, authority: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "kiso.tar"
    assert run("audit", "export", ledger_folder, bundle)[0] == 0
    code, out, _ = run("audit", "verify", bundle, "--ca", authority)
    assert (code, out.endswith("verified\n")) == (0, True)
    code, _, err = run("audit", "export", ledger_folder, bundle)
    assert (code, "is there already" in err) == (1, True)


def test_an_entry_is_shown_with_what_left(run: Run, ledger_folder: Path) -> None:
    out = run("audit", "show", ledger_folder, 2)[1]
    assert "UPDATE" in out
    assert "conv.weight" in out
    assert "loss = 0.25" in out
    assert "urn:fedsparse:plant:ise" in run("audit", "show", ledger_folder, 6)[1]
    code, _, err = run("audit", "show", ledger_folder, 7)
    assert (code, "there is no entry 7: this ledger has 6" in err) == (1, True)


def test_an_entry_is_proved_to_whoever_sees_no_other(run: Run, ledger_folder: Path) -> None:
    told = json.loads(run("audit", "prove", ledger_folder, 3)[1])
    entry, proof = b64decode(told["entry"]), [b64decode(one) for one in told["inclusion_proof"]]
    root = Checkpoint.parse(told["checkpoint"].rpartition("\n\n")[0] + "\n").root
    assert includes(leaf_hash(entry), told["leaf_index"], told["tree_size"], proof, root)


def test_a_folder_without_a_ledger_exits_1_with_an_error(run: Run, tmp_path: Path) -> None:
    code, out, err = run("audit", "verify", tmp_path)
    assert (code, out) == (1, "")
    assert err == f"error: {tmp_path} holds no ledger. Name a folder with a ledger.db\n"


def test_a_ca_that_is_not_there_exits_1_with_an_error(run: Run, ledger_folder: Path, tmp_path: Path) -> None:
    code, _, err = run("audit", "verify", ledger_folder, "--ca", tmp_path / "ca.pem")
    assert code == 1
    assert err.startswith("error: cannot read the CA certificate")


# registry


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    space = AdapterSpace(bytes(32), (Spec("conv[red]", (10, 10)), Spec("head", (4,))))
    registry = Registry(tmp_path / "registry", space)
    for number in (1, 2):
        values = np.full(5 * number, 0.5, np.float32)
        state = SparseDelta(
            space.fingerprint, Operation.SET, (TensorDelta(0, np.arange(5 * number, dtype=np.int64), values),)
        )
        registry.commit(
            state,
            round=number,
            rule="shrunk",
            contributions=(Contribution("ab" * 32, samples=40, nnz=5),),
            metrics={"balanced_accuracy": 0.7512} if number == 2 else {},
            sign=lambda manifest: b"signature",
            certificate=b"certificate",
        )
    return tmp_path / "registry"


def test_versions_are_listed_with_round_rule_and_quality(run: Run, registry: Path) -> None:
    code, out, _ = run("registry", "list", registry)
    rows = [line.split() for line in out.splitlines()[1:]]
    assert code == 0
    assert [(row[0], row[1], *row[-3:]) for row in rows] == [
        ("1", "1", "shrunk", "1", "-"),
        ("2", "2", "shrunk", "1", "0.751"),
    ]


def test_a_version_is_shown_with_its_lineage_contributions_and_tensors(run: Run, registry: Path) -> None:
    code, out, _ = run("registry", "show", registry, 2)
    assert code == 0
    assert "version 2, round 2" in out
    assert "parents 1\n" in out
    assert "(matches its manifest)" in out
    assert "balanced_accuracy 0.7512" in out
    assert f"from 40 samples, 5 values, update {'ab' * 32}" in out
    assert out.splitlines()[-1].split() == ["conv[red]", "10", "10.00%"]


def test_the_first_version_says_that_it_stands_on_the_base(run: Run, registry: Path) -> None:
    assert "parents none: the untouched base" in run("registry", "show", registry, 1)[1]


def test_a_version_that_is_not_there_exits_1_and_names_the_newest(run: Run, registry: Path) -> None:
    code, _, err = run("registry", "show", registry, 3)
    assert code == 1
    assert err.startswith("error: there is no version 3. The newest is 2")


def test_a_version_that_was_altered_exits_1(run: Run, registry: Path) -> None:
    folder = registry / "versions"
    state = (folder / "000001" / "adapter.safetensors").read_bytes()
    (folder / "000002" / "adapter.safetensors").write_bytes(state)
    code, _, err = run("registry", "show", registry, 2)
    assert code == 1
    assert "error: version 2 was altered" in err


def test_a_folder_without_a_registry_exits_1_with_an_error(run: Run, tmp_path: Path) -> None:
    code, _, err = run("registry", "list", tmp_path / "nowhere")
    assert (code, err) == (
        1,
        f"error: {tmp_path / 'nowhere'} holds no registry. Name a folder with a space.json\n",
    )


# pki


def test_certificates_can_be_made_from_the_command_line_and_load(run: Run, tmp_path: Path) -> None:
    ca, home = tmp_path / "ca", tmp_path / "home"
    code, out, _ = run("pki", "init", ca, "--name", "demo")
    assert code == 0
    assert f"{ca / 'ca.key'}: the root's key. Move it to a safe" in out
    hosts = ("--host", "hub.example", "--host", "10.0.0.1")
    assert run("pki", "issue", "hub", "main", "--ca", ca, "--out", home, *hosts)[0] == 0
    code, out, _ = run("pki", "issue", "plant", "kiso", "--ca", ca, "--out", home)
    assert (code, out) == (0, f"created {home / 'kiso'}.pem and {home / 'kiso'}.key\n")
    for role, name in ((Role.HUB, "main"), (Role.PLANT, "kiso")):
        load_credentials(files(home, name), role)
    assert "demo" in load_authority(ca).certificate.subject.rfc4514_string()


def test_an_authority_is_not_created_twice(run: Run, tmp_path: Path) -> None:
    run("pki", "init", tmp_path)
    code, _, err = run("pki", "init", tmp_path)
    assert code == 1
    assert "already holds a certificate authority" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("king", "x"), "error: no such role: 'king'. Use hub or plant"),
        (("plant", "Kiso"), "error: 'Kiso' is no name for a plant"),
        (("hub", "main"), "error: a hub's certificate needs the names at which plants dial it. Add --host"),
        (("hub", "main", "--host", "hub:8443"), "error: 'hub:8443' is no host name or IP address"),
        (("plant", "ca"), "error: the name 'ca' is the CA's own"),
    ],
)
def test_what_cannot_be_issued_is_told(run: Run, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    run("pki", "init", tmp_path / "ca")
    code, _, err = run("pki", "issue", *arguments, "--ca", tmp_path / "ca", "--out", tmp_path / "out")
    assert code == 1
    assert err.startswith(told)
    assert not (tmp_path / "out").exists()


def test_a_missing_authority_is_told_with_the_command_that_makes_one(run: Run, tmp_path: Path) -> None:
    code, _, err = run("pki", "issue", "plant", "kiso", "--ca", tmp_path / "no", "--out", tmp_path / "out")
    assert code == 1
    assert "fedsparse pki init" in err


def test_revoking_asks_for_the_role_only_where_a_hub_and_a_plant_share_a_name(run: Run, tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    run("pki", "init", ca)
    for role, name in (("hub", "kiso"), ("plant", "kiso"), ("plant", "ise")):
        hosts = ("--host", "hub.example") if role == "hub" else ()
        assert run("pki", "issue", role, name, "--ca", ca, "--out", tmp_path / role, *hosts)[0] == 0
    code, out, _ = run("pki", "revoke", "ise", "--ca", ca)
    assert (code, out.startswith("revoked ")) == (0, True)
    code, _, err = run("pki", "revoke", "kiso", "--ca", ca)
    assert (code, "'kiso' is the name of a hub and of a plant here" in err) == (1, True)
    code, _, err = run("pki", "revoke", "kiso", "--role", "auditor", "--ca", ca)
    assert (code, "no such role: 'auditor'. Use hub or plant" in err) == (1, True)
    assert run("pki", "revoke", "kiso", "--role", "plant", "--ca", ca)[0] == 0
    _, out, _ = run("pki", "list", "--ca", ca)
    states = {tuple(line.split()[1:4:2]): "revoked" in line for line in out.splitlines() if "│" in line}
    assert states == {("kiso", "hub"): False, ("kiso", "plant"): True, ("ise", "plant"): True}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "demo.toml cannot be read as TOML: "),
        ("[adapter\n", "demo.toml cannot be read as TOML: "),
        (
            "[rounds]\ncount = 2\n[hub]\n",
            "demo.toml sets hub, rounds, which the demo decides itself. Keep to adapter, ",
        ),
        ("state = 'x'\n", "demo.toml sets state, which the demo decides itself"),
        (
            "[adapter]\nkind = 'prefix'\n",
            "adapter.kind = 'prefix': input should be 'delta', 'lora' or 'bottleneck'",
        ),
        ("training.denisty = 0.1\n", "training.denisty: unknown key; did you mean density?"),
        ("training = 3\n", "training = 3: must be a table"),
    ],
)
def test_the_demo_refuses_settings_before_an_earlier_run_goes(
    run: Run, tmp_path: Path, text: str | None, told: str
) -> None:
    earlier = tmp_path / "runs"
    earlier.mkdir()
    for name in (".fedsparse-demo", "summary.json"):
        (earlier / name).write_text("earlier")
    if text is not None:
        (tmp_path / "demo.toml").write_text(text)
    code, out, err = run("demo", "--folder", earlier, "--settings", tmp_path / "demo.toml")
    assert (code, out) == (1, "")
    assert told in err
    assert (earlier / "summary.json").read_text() == "earlier"


def test_the_demo_takes_tables_and_dotted_keys_alike() -> None:
    text = federation_text("127.0.0.1:1", 3, "training.density = 0.02\n[adapter]\nkind = 'lora'\n")
    settings = config.from_options(config.FederationConfig, tomllib.loads(text))
    assert (settings.training.density, settings.adapter.kind, settings.rounds.count) == (0.02, "lora", 3)


def test_an_error_steers_no_terminal_whatever_is_named_in_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "\x1b[31mred").mkdir()
    code, _, err = run("predict", tmp_path / "\x1b[31mred", tmp_path)
    assert code == 1
    assert "\N{REPLACEMENT CHARACTER}[31mred holds no adapter.json" in err
    assert "\x1b" not in err


# client approve


def _site(folder: Path, approved: str = 'approved = "approved"') -> Path:
    path = folder / "site.toml"
    path.write_text(
        f'[site]\nname = "kiso"\nhub = "hub:1"\n{approved}\n[site.identity]\ncertificate = "c"\nkey = "k"\n'
        'authority = "a"\n[data]\npath = "d"\n'
    )
    return path


def test_an_app_bundle_is_shown_before_it_is_approved_and_once(run: Run, tmp_path: Path) -> None:
    path = _site(tmp_path)
    code, out, _ = run("client", "approve", "--config", path, "--yes")
    assert code == 0
    assert "this bundle is new:" in out
    assert "+from fedsparse_client" in out  # the code itself
    assert [one.stem for one in (tmp_path / "approved").iterdir()] == [bundle_sha256()]
    assert "is approved already" in run("client", "approve", "--config", path)[1]


def test_nothing_is_approved_where_the_site_keeps_no_list(run: Run, tmp_path: Path) -> None:
    code, _, err = run("client", "approve", "--config", _site(tmp_path, ""), "--yes")
    assert code == 1
    assert 'Add approved = "approved" under [site]' in err
