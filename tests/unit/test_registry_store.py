from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from safetensors.numpy import load, save

from fedsparse.delta import SparseDelta, apply, digest
from fedsparse.errors import CertificateError, DeltaError, RegistryError, SpaceMismatchError
from fedsparse.registry import AdapterVersion, Contribution, Registry
from fedsparse.security import Role, verify
from tests.unit.samples import NOTHING, OTHER_SPACE, SPACE, Hub, delta, state

FIRST = state({0: {1: 0.5, 3: -1.0}, 1: dict.fromkeys(range(6), 1.0)})
SECOND = state({0: {1: 0.25}, 2: {1999: 2.0}})


def unsigned(data: bytes) -> bytes:
    return b"signature"


def commit(
    registry: Registry,
    new: SparseDelta,
    *,
    number: int = 1,
    metrics: Mapping[str, float] | None = None,
    sign: Callable[[bytes], bytes] = unsigned,
) -> AdapterVersion:
    return registry.commit(
        new,
        round=number,
        rule="shrunk",
        contributions=(Contribution("a" * 64, samples=40, nnz=3),),
        metrics=metrics or {"accuracy": 0.75},
        sign=sign,
        certificate=b"certificate",
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", SPACE)


@pytest.fixture
def folder(registry: Registry, tmp_path: Path) -> Path:
    """Return the folder of a committed version 1."""
    commit(registry, FIRST)
    return tmp_path / "registry" / "versions" / "000001"


def test_a_new_registry_is_empty(registry: Registry) -> None:
    assert (registry.head(), registry.versions()) == (0, [])


def test_what_was_committed_is_loaded_bit_for_bit(registry: Registry) -> None:
    version = commit(registry, FIRST)
    assert registry.load(1) == (version, FIRST)
    assert version.state_sha256 == digest(FIRST, SPACE).hex()
    assert (version.base_fingerprint, version.space_fingerprint) == (
        bytes(range(32)).hex(),
        SPACE.fingerprint.hex(),
    )
    assert (version.rule, dict(version.metrics)) == ("shrunk", {"accuracy": 0.75})


def test_an_empty_state_can_be_committed(registry: Registry) -> None:
    commit(registry, NOTHING)
    assert registry.load(1)[1] == NOTHING


def test_versions_form_a_chain(registry: Registry) -> None:
    for number, new in enumerate((FIRST, SECOND, FIRST), start=1):
        commit(registry, new, number=number)
    versions = registry.versions()
    assert [(v.number, v.parents, v.round) for v in versions] == [(1, (), 1), (2, (1,), 2), (3, (2,), 3)]
    assert registry.head() == 3


def test_a_delta_leads_from_any_version_to_any_other(registry: Registry) -> None:
    commit(registry, FIRST)
    commit(registry, SECOND)
    states = (NOTHING, FIRST, SECOND)
    for held, old in enumerate(states):
        for target, new in enumerate(states):
            assert apply(old, registry.delta(held, target)) == new


def test_a_registry_is_opened_without_knowing_its_space(registry: Registry, tmp_path: Path) -> None:
    commit(registry, FIRST)
    opened = Registry.open(tmp_path / "registry")
    assert (opened.space, opened.load(1)) == (SPACE, registry.load(1))


def test_a_registry_of_another_space_is_refused_naming_it(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(SpaceMismatchError, match=OTHER_SPACE.fingerprint.hex()[:16]):
        Registry(tmp_path / "registry", OTHER_SPACE)


def test_a_folder_without_a_registry_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="holds no registry"):
        Registry.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"base_fingerprint": "00", "tensors": []}'])
def test_a_space_file_that_is_none_is_named(registry: Registry, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "registry" / "space.json").write_bytes(content)
    with pytest.raises(RegistryError, match=r"space\.json does not describe an adapter space"):
        Registry.open(tmp_path / "registry")


@pytest.mark.parametrize("number", [0, -1, 2, 7])
def test_a_missing_version_is_refused_saying_which_is_the_newest(registry: Registry, number: int) -> None:
    commit(registry, FIRST)
    for read in (registry.load, registry.manifest, registry.signature):
        with pytest.raises(RegistryError, match=f"there is no version {number}") as caught:
            read(number)
        assert caught.value.remedy.startswith("The newest is 1;")


def test_a_committed_version_is_never_replaced(registry: Registry, tmp_path: Path) -> None:
    late = Registry(tmp_path / "registry", SPACE)

    def commit_another_first(data: bytes) -> bytes:
        commit(registry, FIRST)
        return b"signature"

    with pytest.raises(RegistryError, match="version 1 cannot be committed"):
        commit(late, SECOND, sign=commit_another_first)
    assert registry.load(1)[1] == FIRST
    assert [entry.name for entry in (tmp_path / "registry" / "versions").iterdir()] == ["000001"]


def test_the_signature_over_the_manifest_is_kept_and_holds(registry: Registry, hub: Hub) -> None:
    commit(registry, FIRST, sign=hub.sign)
    signer = verify(hub.certificate, hub.authority, Role.HUB, registry.manifest(1), registry.signature(1))
    assert signer.name == "hub"
    altered = registry.manifest(1).replace(b"0.75", b"0.95")
    with pytest.raises(CertificateError, match="does not match"):
        verify(hub.certificate, hub.authority, Role.HUB, altered, registry.signature(1))


def test_an_altered_value_is_found(registry: Registry, folder: Path) -> None:
    file = folder / "adapter.safetensors"
    arrays = load(file.read_bytes())
    arrays["conv.weight.values"] = arrays["conv.weight.values"] * 2
    file.write_bytes(save(arrays))
    with pytest.raises(RegistryError, match="version 1 was altered: its state is not what its manifest says"):
        registry.load(1)


def test_an_added_tensor_is_found(registry: Registry, folder: Path) -> None:
    file = folder / "adapter.safetensors"
    arrays = load(file.read_bytes())
    file.write_bytes(save(arrays | {"notes": arrays["conv.weight.values"]}))
    with pytest.raises(RegistryError, match=r"version 1 was altered: it holds notes"):
        registry.load(1)


def test_an_index_beyond_the_space_is_found(registry: Registry, folder: Path) -> None:
    file = folder / "adapter.safetensors"
    arrays = load(file.read_bytes())
    arrays["conv.weight.indices"] = arrays["conv.weight.indices"] + 100
    file.write_bytes(save(arrays))
    with pytest.raises(RegistryError, match="version 1 was altered"):
        registry.load(1)


def test_every_flipped_byte_of_a_state_is_found_or_harmless(registry: Registry, folder: Path) -> None:
    file = folder / "adapter.safetensors"
    original = file.read_bytes()
    header = 8 + int.from_bytes(original[:8], "little")
    for position in range(len(original)):
        mask = 1 << position % 8
        file.write_bytes(original[:position] + bytes([original[position] ^ mask]) + original[position + 1 :])
        try:
            found = registry.load(1)[1]
        except RegistryError:
            continue
        assert position < header
        assert found == FIRST


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"number":1', b'"number":2'), (b'"state_sha256":"', b'"state_sha256":"0'), (b'"round":1', b'"round":-1')],
)
def test_an_altered_manifest_is_found(registry: Registry, folder: Path, old: bytes, new: bytes) -> None:
    file = folder / "manifest.json"
    assert old in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old, new))
    with pytest.raises(RegistryError):
        registry.load(1)


@pytest.mark.parametrize("name", ["adapter.safetensors", "manifest.json"])
def test_a_version_with_a_file_gone_says_which(registry: Registry, folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(RegistryError, match=f"version 1 was altered: {name}"):
        registry.load(1)


def test_two_versions_that_changed_places_are_found(registry: Registry, folder: Path) -> None:
    commit(registry, SECOND)
    for source, target in (("000001", "x"), ("000002", "000001"), ("x", "000002")):
        folder.with_name(source).rename(folder.with_name(target))
    for number in (1, 2):
        with pytest.raises(RegistryError):
            registry.load(number)


def test_a_state_that_is_none_is_not_committed(registry: Registry) -> None:
    for no_state in (delta({0: {1: 0.5}}), state({0: {1: 0.0}})):
        with pytest.raises(DeltaError):
            commit(registry, no_state)
    with pytest.raises(SpaceMismatchError):
        commit(registry, SparseDelta.empty(OTHER_SPACE.fingerprint, FIRST.operation))
    with pytest.raises(RegistryError, match="metrics"):
        commit(registry, FIRST, metrics={"accuracy": float("nan")})
    assert registry.head() == 0


def test_what_a_crash_left_behind_is_no_version(registry: Registry, tmp_path: Path) -> None:
    commit(registry, FIRST)
    scratch = tmp_path / "registry" / "versions" / ".commit-abc123"
    scratch.mkdir()
    (scratch / "manifest.json").write_bytes(b"half")
    assert registry.head() == 1
    assert commit(registry, SECOND).number == 2
    assert registry.load(2)[1] == SECOND


def test_a_full_disk_commits_nothing_and_leaves_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(registry, FIRST)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RegistryError, match=r"version 2 cannot be committed: .*No space left"):
            commit(registry, SECOND)
    assert [entry.name for entry in (tmp_path / "registry" / "versions").iterdir()] == ["000001"]
    assert commit(registry, SECOND).number == 2


def test_a_disk_too_full_for_even_a_folder_is_told_as_a_registry_error(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, mode: int = 0o777) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(RegistryError, match="No space left"):
        commit(registry, FIRST)


@pytest.mark.parametrize("call", range(1, 7))
def test_a_commit_killed_at_any_sync_is_there_whole_or_not_at_all(
    registry: Registry, tmp_path: Path, call: int
) -> None:
    commit(registry, FIRST)
    child = os.fork()
    if child == 0:
        _die_at_sync(call)
        commit(registry, SECOND)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    after = Registry(tmp_path / "registry", SPACE)
    assert after.head() == (2 if call == 6 else 1)  # the sixth sync is that of the folder after the rename
    assert after.load(after.head())[1] == (SECOND if call == 6 else FIRST)
    assert commit(after, SECOND).number == after.head()


def _die_at_sync(call: int) -> None:
    """Make this process kill itself, as a power cut would, when it syncs the given time."""
    sync, calls = os.fsync, iter(range(1, call + 1))

    def dying(descriptor: int) -> None:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = dying
