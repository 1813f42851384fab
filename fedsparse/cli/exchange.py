"""`fedsparse peft`: saved adapters to and from the folders of Hugging Face PEFT."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast, get_args

from rich.console import Console

from fedsparse.adapters import Task, build_adapter, load_base
from fedsparse.adapters.interchange import export_peft, import_peft
from fedsparse.adapters.saved import SavedAdapter, open_adapter, save_adapter
from fedsparse.cli.progress import say
from fedsparse.config import BUILT_IN_MODELS, AdapterSettings, BaseModelSettings
from fedsparse.errors import ConfigError

_FACTORY = re.compile(r"\w+(\.\w+)*:\w+")


def run_export(adapter: Path, out: Path, base: str | None, console: Console) -> None:
    """Write a saved adapter as a PEFT folder; see the command's help."""
    model, opened = open_adapter(adapter, None if base is None else base_settings(base))
    export_peft(opened, model, out)
    say(console, f"{out} holds the adapter for PEFT; its README.md says how to use it")


def run_import(folder: Path, out: Path, base: str, task: str, classes: Sequence[str], console: Console) -> None:
    """Save what a PEFT folder holds as an adapter; see the command's help."""
    chosen = _task(task, classes)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty", "Name a new folder")
    settings = base_settings(base)
    model = load_base(settings, AdapterSettings(), classes, chosen)
    spec, state = import_peft(folder, model)
    built = build_adapter(model, spec)
    saved = SavedAdapter(
        base=settings,
        settings=spec,
        task=chosen,
        classes=tuple(classes),
        space=built.space,
        state=state,
        figures={},
        created=datetime.now(UTC),
    )
    try:
        save_adapter(out, saved)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}", "Name another folder") from None
    say(console, f"{out} holds a {spec.kind} adapter with {state.nnz:,} values in {len(state.tensors)} tensors")
    if classes and not {part.tensor for part in state.tensors} & built.dense:
        say(console, "there is no head in the PEFT folder: every class is equally likely until one is trained")


def base_settings(base: str) -> BaseModelSettings:
    """Return the base model that a name of ours, a folder or a factory ("package.module:function") says.

    Raises:
        ConfigError: it is none of them.
    """
    if base in BUILT_IN_MODELS:
        return BaseModelSettings(model=base)
    if _FACTORY.fullmatch(base):
        return BaseModelSettings(model=_name(base), factory=base)
    try:
        known = Path(base).is_dir()
    except OSError:  # too long for a name, or in a folder that is closed to us
        known = False
    if not known:
        raise ConfigError(
            f"--base = {base[:200]!r} is no folder and none of {', '.join(BUILT_IN_MODELS)}",
            'Name the folder of a Hugging Face model, or "package.module:function"',
        )
    folder = Path(base).resolve()
    return BaseModelSettings(model=_name(folder.name), folder=folder)


def _name(text: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63]
    return name if name and name not in BUILT_IN_MODELS else "base"


def _task(task: str, classes: Sequence[str]) -> Task:
    known = get_args(Task)
    if task not in known:
        raise ConfigError(f"there is no task {task!r}", f"It is one of {', '.join(known)}")
    if task == "causal-lm" and classes:
        raise ConfigError("causal-lm has no classes", "Leave --class out")
    if task != "causal-lm" and not 2 <= len(set(classes)) == len(classes):
        raise ConfigError(
            f"{task} needs two classes or more, each named once, not {', '.join(classes) or 'none'}",
            "Repeat --class, in the order of the head's rows",
        )
    return cast(Task, task)
