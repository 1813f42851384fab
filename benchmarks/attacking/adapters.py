"""Attacks on the adapter that a plant is handed: the real checks, called in this process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
from fedsparse_client.rounds import RoundRunner
from fedsparse_client.trainer import build_runner

from benchmarks.attacking.attack import TRAINER, Attack
from benchmarks.attacking.federation import Federation
from benchmarks.attacking.messages import DENSITY, SPACE
from benchmarks.attacking.site import write_settings
from fedsparse import config
from fedsparse.delta import Operation, RoundTask, SparseDelta, TensorDelta, TrainingSettings, ValueCoding, encode
from fedsparse.registry import AdapterVersion
from fedsparse.security import Credentials, Role, sign
from fedsparse.training import LocalTrainer

_GROUP = "the adapter that a plant is handed"
_TRAINING = TrainingSettings(DENSITY, 1, 8, 1e-3, 1e-3, 7)


@dataclass
class Stage:
    """A plant's trainer without its model: it verifies, and would then train.

    Attributes:
        hub: the federation's.
        log: what the trainer's log says.
    """

    federation: Federation
    hub: Credentials
    log: Path
    runner: RoundRunner

    def answer(self, task: RoundTask) -> str:
        """Return the reason that the plant gives."""
        return f"reason {self.runner.answer(task).reason.name}"

    def task(self, version: int, signer: Credentials | None = None, **said: object) -> RoundTask:
        """Return the task to train from a version, whose manifest says what is given."""
        whole = encode(_state(version), SPACE, ValueCoding.FP32)
        fields: dict[str, object] = {
            "number": version,
            "parents": (),
            "base_fingerprint": SPACE.base_fingerprint.hex(),
            "space_fingerprint": SPACE.fingerprint.hex(),
            "state_sha256": sha256(whole).hexdigest(),
            "round": version,
            "rule": "shrunk",
            "contributions": (),
            "metrics": {},
            "created_unix_ms": time.time_ns() // 1_000_000,
        }
        manifest = AdapterVersion(**{**fields, **said}).to_bytes()  # type: ignore[arg-type]
        who = signer or self.hub
        signature = sign(who.key, manifest)
        return RoundTask(
            version + 1, SPACE.fingerprint, version, 0, (whole,), manifest, signature, who.der, _TRAINING
        )


def _state(version: int) -> SparseDelta:
    part = TensorDelta(0, np.array([1, 5]), np.array([version, -version], np.float32))
    return SparseDelta(SPACE.fingerprint, Operation.SET, (part,))


def begin(federation: Federation) -> Stage:
    """Return a plant that holds version 2."""
    settings = config.load(write_settings(federation, "warm", "127.0.0.1:9"), config.SiteConfig)
    log = federation.folder / "trainer.log"
    logger = logging.getLogger("trainer")
    logger.addHandler(logging.FileHandler(log))
    logger.propagate = False
    trainer = cast(LocalTrainer, SimpleNamespace(space=SPACE, train=_stop))
    runner = build_runner(settings, trainer)
    stage = Stage(federation, federation.pki.credentials(Role.HUB, "hub-2", "127.0.0.1"), log, runner)
    told = stage.answer(stage.task(2))
    assert told == "reason TRAINING_FAILED", told  # it verified, and there is nothing to train
    return stage


def _stop(*_: object) -> None:
    raise RuntimeError("there is no model here")


def attacks() -> list[Attack]:
    """Return them in the order in which they are run."""

    def tampered(stage: Stage) -> str:
        other = encode(_state(9), SPACE, ValueCoding.FP32)
        return stage.answer(replace(stage.task(3), deltas=(other,)))

    def altered(stage: Stage) -> str:
        task = stage.task(3)
        return stage.answer(replace(task, manifest=task.manifest.replace(b'"rule":"shrunk"', b'"rule":"median"')))

    def replayed(stage: Stage) -> str:
        hub = stage.federation.other.credentials(Role.HUB, "hub", "127.0.0.1")
        return stage.answer(stage.task(3, hub))

    def by_a_plant(stage: Stage) -> str:
        return stage.answer(stage.task(3, stage.federation.credentials("mallory")))

    def by_a_revoked_hub(stage: Stage) -> str:
        hub = stage.federation.pki.credentials(Role.HUB, "gone-too", "127.0.0.1")
        stage.federation.pki.revoke("gone-too")
        stage.federation.copy_revoked()
        return stage.answer(stage.task(3, hub))

    def twice(stage: Stage) -> str:
        return stage.answer(stage.task(2, round=7))

    return [
        _attack("an adapter whose values were altered", "its manifest says state", tampered),
        _attack("a manifest altered after it was signed", "signature .* does not match|canonical", altered),
        _attack("an older version than the one held (downgrade)", "no way back",
                lambda stage: stage.answer(stage.task(1))),
        _attack("the untouched base again (downgrade to 0)", "no way back", lambda stage: stage.answer(
            RoundTask(1, SPACE.fingerprint, 0, 0, (), b"", b"", b"", _TRAINING))),
        _attack("a version of another base model", "its manifest says base",
                lambda stage: stage.answer(stage.task(3, base_fingerprint="0" * 64))),
        _attack("a version of another number than the task's", "its manifest says number",
                lambda stage: stage.answer(stage.task(3, number=4))),
        _attack("a version signed by another federation's hub (replay)", "was not issued by the given CA",
                replayed),
        _attack("a version signed by a plant", "a hub's is needed", by_a_plant),
        _attack("a version signed by a revoked hub", "is revoked", by_a_revoked_hub),
        _attack("another version under a number that is held", "was signed twice with different content", twice),
        _attack("a task of another adapter space", "the task is of the adapter space", lambda stage: stage.answer(
            replace(stage.task(3), space=bytes(32))), "SPACE_MISMATCH"),
    ]  # fmt: skip


def _attack(does: str, log: str, run: Callable[[Stage], str], reason: str = "VERSION_UNVERIFIED") -> Attack:
    return Attack(_GROUP, does, f"the reason {reason}", f"^reason {reason}$", log, run, TRAINER)
