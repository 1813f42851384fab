"""`fedsparse client probe`: what an update that left, or is to leave, tells of the site's own samples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedsparse import config
from fedsparse.audit import EntryKind, parse_entry, read_folder, read_payload_key
from fedsparse.delta import Operation, RoundUpdate, SparseDelta, decode, decode_update
from fedsparse.errors import ConfigError, DataError, FedsparseError, LedgerError
from fedsparse.files import write_atomic
from fedsparse.leakage import (
    SCORES,
    Membership,
    Probe,
    Reconstruction,
    others_needed,
    probe_images,
    probe_membership,
)
from fedsparse.training import LocalTrainer
from fedsparse.training.local import HELD_OUT, SPLIT_SEED
from fedsparse.v1 import link_pb2

_UNLIMITED = 1 << 40  # our own files


@dataclass(frozen=True)
class Options:
    """What the command line says; see the command's help."""

    config: Path
    update: Path | None
    entry: int | None
    limit: float | None
    samples: int
    attempts: int
    steps: int
    output: Path | None


def run_probe(options: Options, console: Console) -> bool:
    """Print and write what an update tells; return whether it is within the limit, if there is one.

    Raises:
        ConfigError: the options contradict each other, or the result cannot be written.
        LedgerError: there is no such update.
        FedsparseError: base model, data or update cannot be read.
    """
    settings = config.load(options.config, config.SiteConfig)
    where, update = _update(settings, options)
    console.print(f"{where}: round {update.round}, from version {update.version}", highlight=False)
    try:
        probe = _probe(settings, update, options)
    except _CannotTellError as error:
        _write(options, settings, {"update": where, "cannot_tell": str(error)}, console)
        console.print(f"cannot tell: {error}", style="bold", markup=False, highlight=False)
        return options.limit is None
    console.print(_table(probe.membership))
    for line in _attempt(probe.reconstruction, probe.not_attempted):
        console.print(line, highlight=False, markup=False)
    within = options.limit is None or probe.highest <= options.limit
    told = {"update": where, "round": update.round, "version": update.version, **probe.to_json()}
    _write(options, settings, {**told, "limit": options.limit, "within_limit": within}, console)
    if options.limit is not None:
        verdict = "within" if within else "ABOVE"
        console.print(
            f"{verdict} the limit: the advantage may be {probe.highest:.3f}, the limit is {options.limit:g}",
            style="bold",
            highlight=False,
        )
    return within


class _CannotTellError(FedsparseError):
    """What is needed to judge the update is not at hand."""


def _update(settings: config.SiteConfig, options: Options) -> tuple[str, RoundUpdate]:
    """Return the update to be probed, with what to call it."""
    if options.update is not None:
        if options.entry is not None:
            raise ConfigError("--update and --entry name two updates", "Name one of them")
        try:
            data = options.update.read_bytes()
        except OSError as error:
            raise ConfigError(f"{options.update} cannot be read: {error.strerror}") from None
        return str(options.update), _read(data, str(options.update))
    key = settings.site.payload_key
    evidence = read_folder(settings.state / "ledger", None if key is None else read_payload_key(key))
    entries = [entry for row in evidence.rows if (entry := parse_entry(row.entry)) is not None]
    kinds = (EntryKind.UPDATE, EntryKind.REFUSED) if options.entry else (EntryKind.UPDATE,)
    fitting = [e for e in entries if int(e.kind) in kinds and options.entry in (None, e.sequence)]
    if not fitting:
        wanted = "an update" if options.entry is None else f"an update as entry {options.entry}"
        raise LedgerError(f"the ledger {settings.state / 'ledger'} has not {wanted}")
    where = f"entry {fitting[-1].sequence}"
    try:
        return where, _read(evidence.payload(fitting[-1].payload_sha256), where)
    except LedgerError as error:
        raise LedgerError(f"{where}: its payload {error}") from None


def _read(data: bytes, where: str) -> RoundUpdate:
    update = decode_update(data, max_bytes=_UNLIMITED)
    if not update.delta:
        raise DataError(f"{where} holds no delta, but the reason {update.reason.name}", "Name an update")
    return update


def _probe(settings: config.SiteConfig, update: RoundUpdate, options: Options) -> Probe:
    from fedsparse_client.trainer import open_site

    path = settings.state / "federation.pb"
    if not path.exists():
        raise _CannotTellError(f"{path} is absent: this plant has not been told of its federation yet")
    site = open_site(settings, link_pb2.Federation.FromString(path.read_bytes()))
    base, trainer = site.base, site.trainer
    delta = decode(update.delta, trainer.space, max_bytes=_UNLIMITED)
    state = _start(settings, trainer, update)
    try:
        probe = probe_membership(trainer, state, delta, options.samples)
    except DataError as error:
        raise _CannotTellError(str(error)) from None
    if not options.attempts:
        return replace(probe, not_attempted="not asked for")
    try:
        found = probe_images(
            base, trainer, state, delta, attempts=options.attempts, steps=options.steps, most=options.samples
        )
    except DataError as error:
        return replace(probe, not_attempted=str(error))
    return replace(probe, reconstruction=found)


def _start(settings: config.SiteConfig, trainer: LocalTrainer, update: RoundUpdate) -> SparseDelta:
    """Return the state that the update started from, if it and the data of then are here."""
    from fedsparse_client.versions import HeldVersion

    training, _ = trainer.samples.split(HELD_OUT, SPLIT_SEED)
    if len(training) != update.samples:
        raise _CannotTellError(
            f"the update was trained on {update.samples} samples, of the present data that would be "
            f"{len(training)}: they are others"
        )
    if update.version == 0:
        return SparseDelta.empty(trainer.space.fingerprint, Operation.SET)
    held = HeldVersion(settings.state / "trainer" / "version", trainer.space, _accept_nothing)
    if held.number != update.version:
        raise _CannotTellError(
            f"the update starts from version {update.version}, but this plant holds version {held.number}: "
            "of earlier ones it keeps nothing"
        )
    return held.state


def _accept_nothing(*_: object) -> None:
    raise AssertionError("a probe takes no new version")


def _table(membership: Mapping[str, Membership]) -> Table:
    sizes = next(iter(membership.values()))
    rates = list(sizes.found)
    table = Table(
        f"who was among {sizes.members} trained on, who among {sizes.others} held out",
        "advantage (95 %)",
        "AUC (95 %)",
        *(f"found at {rate:.1%} false alarms" for rate in rates),
        box=None,
    )
    for name, found in membership.items():
        told = (found.found[rate] for rate in rates)
        cells = [
            f"cannot tell: {others_needed(rate)} held out needed" if one is None else str(one)
            for rate, one in zip(rates, told, strict=True)
        ]
        table.add_row(escape(SCORES[name]), *map(escape, (str(found.advantage), str(found.auc), *cells)))
    return table


def _attempt(found: Reconstruction | None, why: str) -> Iterable[str]:
    if found is None:
        yield f"reconstruction not attempted: {why}"
        return
    yield (
        f"reconstruction, {found.attempts} images in {found.steps} steps: nearer to images trained on than to "
        f"those held out by {found.advantage}; looks like one by {found.looks:.2f} of 1"
    )
    if found.evidence is not None:
        yield f"membership by nearness to what was found: {found.evidence.advantage}, AUC {found.evidence.auc}"
    yield (
        f"known images from their own gradient: {found.control} found, chance is {found.control_chance:.3f}; "
        f"they look alike by {found.control_looks:.2f} of 1"
    )
    if not found.is_telling:
        yield "cannot tell: the attack finds not even single known images here, so its failure means nothing"


def _write(options: Options, settings: config.SiteConfig, told: dict[str, object], console: Console) -> None:
    path = options.output or settings.state / "probe.json"
    try:
        write_atomic(path, json.dumps(told, indent=1).encode() + b"\n", 0o600)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", "Name another with --output") from None
    console.print(f"written: {path}; it is about your data, and does not leave by itself", highlight=False)
