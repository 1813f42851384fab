"""The warm trainer: keeps the base model in memory between rounds and answers on a Unix-domain socket."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from cryptography import x509
from pydantic import ValidationError

from fedsparse import config
from fedsparse.delta import AdapterSpace, RoundTask, decode_task, encode_update
from fedsparse.errors import CertificateError, ConfigError, FedsparseError, ModelError, SpaceMismatchError
from fedsparse.files import write_atomic
from fedsparse.security import Revocations, Role, read_pem_chain, verify
from fedsparse.v1 import link_pb2, trainer_pb2, trainer_pb2_grpc
from fedsparse_client.agent import PROGRESS_FILE
from fedsparse_client.leakage import build_guard
from fedsparse_client.rounds import RoundRunner
from fedsparse_client.versions import HeldVersion

if TYPE_CHECKING:
    from fedsparse.adapters import BaseModel
    from fedsparse.training import LocalTrainer
    from fedsparse.training.manifest import PinnedData

_MAX_TASK_BYTES = 1 << 30
_ASK = "Ask the operator, and install the same release of fedsparse"
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_log = logging.getLogger("trainer")


class _Service(trainer_pb2_grpc.TrainerServicer):
    def __init__(self, runner: RoundRunner) -> None:
        self._runner = runner

    def Train(  # noqa: N802 - gRPC's naming
        self, request: trainer_pb2.TrainRequest, context: grpc.ServicerContext
    ) -> trainer_pb2.TrainReply:
        task = decode_task(request.round_task, max_bytes=_MAX_TASK_BYTES)
        return trainer_pb2.TrainReply(round_update=encode_update(self._runner.answer(task)))


@dataclass(frozen=True)
class Site:
    """What a plant trains with.

    Attributes:
        base: the frozen base model.
        trainer: the warm local trainer on the plant's data.
        pinned: what notices that the data change; None where site.toml pins nothing.
    """

    base: BaseModel
    trainer: LocalTrainer
    pinned: PinnedData | None


def build_trainer(settings: config.SiteConfig, federation: link_pb2.Federation) -> LocalTrainer:
    """Return the trainer alone; see :func:`open_site`."""
    return open_site(settings, federation).trainer


def open_site(settings: config.SiteConfig, federation: link_pb2.Federation) -> Site:
    """Load base model and data, and check both before anything is trained.

    Raises:
        ModelError: this site's base model is not the federation's, naming both fingerprints, or what the hub asks
            for cannot be.
        ConfigError: the adapter does not fit the base model, or the site's augmentation does not fit the task.
        SpaceMismatchError: the adapter settings lead to another space here.
        DataError: the data folder is absent or holds something unusable, or other files than site.toml pins.
    """
    import torch

    from fedsparse.adapters import build_adapter, load_base
    from fedsparse.training import LocalTrainer, load_labelled, prepare
    from fedsparse.training.manifest import verify_data

    described, spec = _federation_settings(federation), _adapter_settings(federation)
    task, classes = described.task, described.classes
    if task != "image-classification" and (settings.augmentation.mixup or settings.augmentation.cutmix):
        raise ConfigError(
            f"augmentation.mixup and augmentation.cutmix are for images, but the federation's task is {task}",
            "Leave them out of site.toml",
        )
    pinned = verify_data(settings.data, _log_quarters())
    samples = load_labelled(settings.data, task, classes)
    if pinned is not None:
        pinned.require_same_files()  # what was loaded is what was verified
    base = load_base(_base_settings(settings, federation.base_model), spec, classes, task)
    with (settings.state / "base_model_loads").open("a") as file:
        file.write(f"{time.time():.0f} {base.fingerprint.hex()}\n")
    if base.fingerprint != federation.base_fingerprint:
        raise ModelError(
            f"this site's {federation.base_model} has the fingerprint {base.fingerprint.hex()[:16]}, "
            f"the federation trains on {federation.base_fingerprint.hex()[:16]}",
            "Install the same base model, in the same release, as the operator",
        )
    adapter = build_adapter(base, spec)
    space = adapter.space
    expected = AdapterSpace.from_proto(federation.space)
    if space.fingerprint != expected.fingerprint:
        raise SpaceMismatchError(
            f"this site derives the adapter space {space.fingerprint.hex()[:16]}, "
            f"the federation trains {expected.fingerprint.hex()[:16]}",
            "Install the same release of fedsparse as the operator",
        )
    torch.set_num_threads(settings.trainer.threads)
    folder = settings.state / "trainer"
    inputs = prepare(base, samples, folder, settings.augmentation, _progress_in(settings.state / PROGRESS_FILE))
    return Site(base, LocalTrainer(adapter, samples, inputs, settings.augmentation), pinned)


def _federation_settings(federation: link_pb2.Federation) -> config.FederationSettings:
    """Read what the hub says of the federation as the settings that it came from."""
    try:
        return config.FederationSettings(
            name=federation.name,
            task=federation.task,  # type: ignore[arg-type] # validated by pydantic
            classes=tuple(federation.classes),
        )
    except ValidationError as error:
        raise ModelError(f"the hub describes a federation that cannot be: {_problems(error)}", _ASK) from None


def _adapter_settings(federation: link_pb2.Federation) -> config.AdapterSettings:
    """Read what the hub asks for as the settings that it came from."""
    told = federation.adapter
    try:
        return config.AdapterSettings(
            kind=told.kind,  # type: ignore[arg-type] # validated by pydantic
            include=tuple(told.include),
            dense=tuple(told.dense),
            cut=told.cut,
            image_size=told.image_size or None,
            max_tokens=told.max_tokens or None,
            rank=told.rank,
            alpha=told.alpha,
            width=told.width,
            factors=told.factors or "both",  # type: ignore[arg-type] # validated by pydantic
        )
    except ValidationError as error:
        raise ModelError(f"the hub asks for an adapter that cannot be: {_problems(error)}", _ASK) from None


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, one['loc']))} = {str(one['input'])[:40]!r}: {one['msg']}" for one in error.errors()
    )


def _base_settings(settings: config.SiteConfig, name: str) -> config.BaseModelSettings:
    """Return where this site has the federation's base model; the hub names it, but never says where code lies."""
    if settings.base is not None and settings.base.model == name:
        return settings.base
    if name in config.BUILT_IN_MODELS:
        return config.BaseModelSettings(model=name)
    raise ModelError(
        f"the federation trains the base model {name!r}, which this site does not have",
        "Say in site.toml, under [base], in which folder it lies here",
    )


def _progress_in(path: Path) -> Callable[[int, int], None]:
    """Return a function that tells others through a file how far the reading of the images is."""

    def tell(done: int, total: int) -> None:
        write_atomic(path, f"{done} {total}".encode())

    return tell


def _log_quarters() -> Callable[[int, int], None]:
    """Return a function that logs each quarter of the data that is verified."""
    quarter = 0

    def tell(done: int, total: int) -> None:
        nonlocal quarter
        if total and 4 * done // total > quarter:
            quarter = 4 * done // total
            _log.info("verified %d of %d bytes of the pinned data", done, total)

    return tell


def build_runner(
    settings: config.SiteConfig, trainer: LocalTrainer, pinned: PinnedData | None = None
) -> RoundRunner:
    """Put the trainer together with the adapter version that this plant holds, and with the data it has pinned."""
    identity = settings.site.identity

    def roots() -> list[x509.Certificate]:
        return read_pem_chain(identity.authority.read_bytes(), str(identity.authority))

    revocations = Revocations(identity.revoked, roots)

    def verify_manifest(task: RoundTask, created: datetime) -> None:
        check = partial(
            verify,
            task.hub_certificate,
            identity.authority.read_bytes(),  # each time: CAs are replaced while plants run
            Role.HUB,
            task.manifest,
            task.manifest_signature,
            revocations=revocations,
        )
        try:
            check()
        except CertificateError:  # the signer's certificate may have ended since
            check(at=created)

    folder = settings.state / "trainer"
    held = HeldVersion(folder / "version", trainer.space, verify_manifest)
    guard = build_guard(settings.probe, trainer, folder)
    return RoundRunner(trainer, held, folder, settings.egress, guard, pinned)


def serve(settings: config.SiteConfig, federation: link_pb2.Federation) -> None:
    """Serve until killed."""
    site = open_site(settings, federation)
    trainer = site.trainer
    runner = build_runner(settings, trainer, site.pinned)
    socket = settings.state / "trainer.sock"
    socket.unlink(missing_ok=True)
    os.umask(0o077)  # only the plant's own user may hand it tasks
    server = grpc.server(ThreadPoolExecutor(max_workers=1), options=_UNLIMITED)
    trainer_pb2_grpc.add_TrainerServicer_to_server(_Service(runner), server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    write_atomic(settings.state / "trainer.ready", trainer.space.fingerprint.hex().encode())
    _log.info("ready: %d samples, %d coordinates", len(trainer.samples), trainer.space.size)
    threading.Event().wait()


def main() -> None:
    """Run as a process of the agent's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    settings = config.load(options.config, config.SiteConfig)
    federation = link_pb2.Federation.FromString((settings.state / "federation.pb").read_bytes())
    try:
        serve(settings, federation)
    except FedsparseError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
