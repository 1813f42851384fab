"""Runs attacks one after another, and after each looks at the attacked process and the honest plants."""

from __future__ import annotations

import re
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

from benchmarks.attacking import raw
from benchmarks.attacking.attack import Attack, Outcome
from benchmarks.attacking.federation import HONEST, Federation, Log

MOST_ANSWER_SECONDS = 2.0
_LOG_SECONDS = 9.0  # the hub waits five seconds for a call, and looks every two


def run(federation: Federation, attack: Attack, stage: Any, watched: Log) -> Outcome:
    """Do ``attack`` and judge what became of it.

    Args:
        stage: what its ``run`` is given.
        watched: the attacked process.
    """
    since, losses = 0 if watched.fresh else watched.size(), _losses(federation)
    raw.dialled.clear()
    started = time.monotonic()
    told = _limited(attack, stage)
    seconds = time.monotonic() - started
    logged = _logged(attack, watched, since)
    served, answer = _served(federation, losses)
    return Outcome(
        attack,
        told,
        bool(re.search(attack.answer, told, re.DOTALL)),
        logged,
        _alive(attack, watched),
        served,
        answer,
        seconds,
    )


def _limited(attack: Attack, stage: Any) -> str:
    found: list[str] = []

    def work() -> None:
        try:
            found.append(attack.run(stage))
        except Exception as error:  # whatever it is, it is no verdict of the attacked process
            found.append(f"the attack itself failed: {error!r} {traceback.format_exc(limit=-2)}")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(attack.limit)
    return found[0] if found else f"no verdict within {attack.limit:.0f} s"


def _logged(attack: Attack, watched: Log, since: int) -> bool | None:
    if attack.log is None:
        return None
    pattern = attack.log.replace("{port}", f"({'|'.join(map(str, raw.dialled))})")
    end = time.monotonic() + _LOG_SECONDS
    while not (found := re.search(pattern, watched.told(since))) and time.monotonic() < end:
        time.sleep(0.05)
    return found is not None


def _alive(attack: Attack, watched: Log) -> bool:
    return watched.exit_code in (None, attack.ends)  # one that goes on where it must not is not refused


def _losses(federation: Federation) -> Sequence[int]:
    return [plant.ask("state")["lost"] for plant in federation.honest]


def _served(federation: Federation, losses: Sequence[int]) -> tuple[bool, float]:
    """Tell whether the hub lives, the honest plants never lost it, and it answers one of them in time."""
    answer = federation.honest[0].ask("describe")
    stayed = _losses(federation) == losses and federation.present() >= set(HONEST)
    quick = not answer["trouble"] and answer["seconds"] <= MOST_ANSWER_SECONDS
    return federation.hub.exit_code is None and stayed and quick, float(answer["seconds"])
