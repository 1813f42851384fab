"""One trained adapter in a folder: what it is for, what it goes on, and its state; read strictly (needs torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel as Fields
from pydantic import ConfigDict, FiniteFloat, ValidationError, model_validator

from fedsparse.adapters.adapter import Adapter
from fedsparse.adapters.bases import BaseModel, ImageReader, Task, load_base
from fedsparse.adapters.build import build_adapter
from fedsparse.config import AdapterSettings, BaseModelSettings
from fedsparse.delta import AdapterSpace, Operation, SparseDelta, TensorSpec, ValueCoding, decode, encode
from fedsparse.errors import DeltaError, ModelError, SpaceMismatchError
from fedsparse.files import write_atomic

MANIFEST = "adapter.json"
_TOLD_AT_MOST = 5


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter with all that is needed to serve it, given the base model.

    Attributes:
        base: where the base model comes from.
        settings: what kind of adapter it is, and how samples become inputs.
        task: what it answers.
        classes: label names in the order of its answers; none for causal-lm.
        space: its adapter space.
        state: operation SET against the untouched base.
        figures: its quality by name, as measured when it was saved.
        created: when that was.

    Raises:
        SpaceMismatchError: the state belongs to another space.
        DeltaError: the state is an addition.
    """

    base: BaseModelSettings
    settings: AdapterSettings
    task: Task
    classes: tuple[str, ...]
    space: AdapterSpace
    state: SparseDelta
    figures: Mapping[str, float]
    created: datetime

    def __post_init__(self) -> None:
        if self.state.space != self.space.fingerprint:
            raise SpaceMismatchError(
                f"the state's adapter space is {self.state.space.hex()[:16]}, "
                f"the adapter's is {self.space.fingerprint.hex()[:16]}"
            )
        if self.state.operation is not Operation.SET:
            raise DeltaError("an adapter is saved as a SET delta against the untouched base, not as an ADD")


def settled(settings: AdapterSettings, base: BaseModel) -> AdapterSettings:
    """Return the settings with what the base model chose by itself, so that later defaults change nothing."""
    reader = base.reader
    chosen = {"image_size": reader.size} if isinstance(reader, ImageReader) else {"max_tokens": reader.max_tokens}
    return settings.model_copy(update={**chosen, "cut": base.cut})


class _Strict(Fields):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Tensor(_Strict):
    name: str
    shape: tuple[int, ...]


class _State(_Strict):
    file: str
    sha256: str


class _Manifest(_Strict):
    """What adapter.json says, key by key."""

    format: Literal[1]
    created: datetime
    task: Task
    classes: tuple[str, ...]
    base: BaseModelSettings
    base_fingerprint: str
    adapter: AdapterSettings
    space_fingerprint: str
    tensors: tuple[_Tensor, ...]
    state: _State
    figures: dict[str, FiniteFloat]

    @model_validator(mode="after")
    def _classes_of_the_task(self) -> Self:
        names = self.classes
        if self.task == "causal-lm" and names:
            raise ValueError("classes: causal-lm has none")
        if self.task != "causal-lm" and not 2 <= len(set(names)) == len(names):
            raise ValueError(f"classes: {self.task} needs two or more, each named once")
        return self


def save_adapter(folder: Path, saved: SavedAdapter) -> None:
    """Write an adapter into ``folder``, created if absent; after a crash the earlier one is there or this one.

    The state's file is named by its content, and adapter.json, replaced at once, says which one counts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = encode(saved.state, saved.space, ValueCoding.FP32)
    digest = sha256(data).hexdigest()
    path = folder / f"state-{digest[:16]}.delta"
    write_atomic(path, data)
    manifest = _Manifest(
        format=1,
        created=saved.created.astimezone(UTC),
        task=saved.task,
        classes=saved.classes,
        base=saved.base,
        base_fingerprint=saved.space.base_fingerprint.hex(),
        adapter=saved.settings,
        space_fingerprint=saved.space.fingerprint.hex(),
        tensors=tuple(_Tensor(name=tensor.name, shape=tensor.shape) for tensor in saved.space.tensors),
        state=_State(file=path.name, sha256=digest),
        figures=dict(saved.figures),
    )
    write_atomic(folder / MANIFEST, manifest.model_dump_json(indent=1).encode() + b"\n")
    for stale in folder.glob("state-*.delta"):
        if stale != path:
            stale.unlink()


def load_adapter(folder: Path) -> SavedAdapter:
    """Read an adapter and check it against what it says of itself; the base model is not loaded.

    Raises:
        ModelError: there is none, or adapter.json has a key or value that this release does not know.
        DeltaError: the state is not the one that adapter.json names, or is damaged.
        SpaceMismatchError: the tensors are not those of the space that adapter.json names.
    """
    path = folder / MANIFEST
    manifest = _read_manifest(path)
    space = _space(path, manifest)
    if space.fingerprint != _digest(path, manifest.space_fingerprint):
        raise SpaceMismatchError(
            f"{path} names the adapter space {manifest.space_fingerprint[:16]}, "
            f"but its tensors make up {space.fingerprint.hex()[:16]}",
            "The file was altered: copy the adapter again, or train it again",
        )
    return SavedAdapter(
        base=manifest.base,
        settings=manifest.adapter,
        task=manifest.task,
        classes=manifest.classes,
        space=space,
        state=_read_state(folder, manifest.state, space),
        figures=manifest.figures,
        created=manifest.created,
    )


def open_adapter(folder: Path, base: BaseModelSettings | None = None) -> tuple[BaseModel, Adapter]:
    """Load an adapter and its base model, ready to answer: `adapter.network` is base + adapter.

    Args:
        base: where the base model lies on this machine, if elsewhere than where the adapter was trained. One that
            a factory builds has to be named here: no file decides which code is run.

    Raises:
        ModelError: as :func:`load_adapter`, or the base model cannot be read, is another one, or would have to be
            built by a factory that only the file names.
        SpaceMismatchError: as :func:`load_adapter`, or this release derives another adapter space.
        DeltaError: as :func:`load_adapter`.
    """
    saved = load_adapter(folder)
    if base is None and saved.base.factory is not None:
        raise ModelError(
            f"the adapter in {folder} has its base model built by {saved.base.factory!r}, "
            "but a file does not decide which code is run",
            "If you trust that code, name it yourself with --base",
        )
    model = load_base(base or saved.base, saved.settings, saved.classes, saved.task)
    if model.fingerprint != saved.space.base_fingerprint:
        raise ModelError(
            f"the base model {model.name} here has the fingerprint {model.fingerprint.hex()[:16]}, "
            f"the adapter in {folder} was trained on {saved.space.base_fingerprint.hex()[:16]}",
            "Install the base model that it was trained on",
        )
    return model, build_adapter(model, saved.settings).load(saved.state)


def _read_manifest(path: Path) -> _Manifest:
    try:
        return _Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        inside = path.parent / "adapter"  # of a folder that `fedsparse train` wrote to
        remedy = f"Name {inside}" if (inside / MANIFEST).is_file() else "Name the folder of a saved adapter"
        raise ModelError(f"{path.parent} holds no {MANIFEST}", remedy) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        told = "; ".join(_told(problem) for problem in error.errors()[:_TOLD_AT_MOST])
        raise ModelError(f"{path} is not valid: {told}", "It needs the release that wrote it") from None


def _told(problem: Mapping[str, object]) -> str:
    place = problem["loc"]
    told = str(problem["msg"]).removeprefix("Value error, ")
    if not isinstance(place, tuple) or not place:
        return told
    key = ".".join(str(part) for part in place)[:100]
    return f"{key}: unknown key" if problem["type"] == "extra_forbidden" else f"{key}: {told}"


def _space(path: Path, manifest: _Manifest) -> AdapterSpace:
    base = _digest(path, manifest.base_fingerprint)
    try:
        return AdapterSpace(base, tuple(TensorSpec(tensor.name, tensor.shape) for tensor in manifest.tensors))
    except DeltaError as error:
        raise ModelError(f"{path} is not valid: {error}") from None


def _digest(path: Path, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ModelError(f"{path} is not valid: {text[:20]!r} is no fingerprint") from None


def _read_state(folder: Path, state: _State, space: AdapterSpace) -> SparseDelta:
    path = folder / Path(state.file).name  # a manifest names no file elsewhere
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that holds a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise DeltaError(f"the adapter's state {path} cannot be read: {reason}", "Copy it again") from None
    if (found := sha256(data).hexdigest()) != state.sha256:
        raise DeltaError(
            f"{path} has the digest {found[:16]}, but {MANIFEST} names {state.sha256[:16]}",
            "The file was altered: copy the adapter again, or train it again",
        )
    return decode(data, space, max_bytes=len(data))
