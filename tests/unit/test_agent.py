from __future__ import annotations

import os
from pathlib import Path

import pytest
from fedsparse_client.agent import Agent
from fedsparse_client.gateway.calls import HELD_FILE

from fedsparse import config
from fedsparse.errors import NotAdmittedError
from fedsparse.processes import Child
from tests.unit.federation_samples import eventually

SITE = """
[site]
name = "kiso"
hub = "127.0.0.1:9"

[site.identity]
certificate = "kiso.pem"
key = "kiso.key"
authority = "ca.pem"

[data]
path = "nowhere"
"""


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def agent(tmp_path: Path, said: list[str]) -> Agent:
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    (tmp_path / "state").mkdir()
    return Agent(path, config.load(path, config.SiteConfig), said.append)


def ended(folder: Path, words: str, status: int) -> Child:
    child = Child("gateway", ["sh", "-c", f"echo '{words}'; exit {status}"], folder / "gateway.log")
    eventually(lambda: child.exit_code is not None, "its end")
    return child


def test_a_gateway_that_is_refused_for_good_is_not_started_again(
    agent: Agent, said: list[str], tmp_path: Path
) -> None:
    why = "this site's own policy does not let the plant attend at the hub (rule kind): allowed are: none"
    agent._children["gateway"] = ended(tmp_path, f"error: {why}".replace("'", "'\\''"), os.EX_NOPERM)
    with pytest.raises(NotAdmittedError) as caught:
        agent.run()
    assert str(caught.value) == why
    assert said == []


def test_what_keeps_the_plant_from_the_hub_is_said_once_and_so_is_its_end(
    agent: Agent, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tmp_path / "state" / HELD_FILE
    held.write_text("the limit is 7")
    steps = iter([lambda: held.write_text("the limit is still 7"), held.unlink, lambda: None])

    def sleep(_: float) -> None:
        next(steps, _interrupt)()

    monkeypatch.setattr("fedsparse_client.agent.time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        agent.run()
    assert said == ["the limit is 7", "this site's own policy lets the plant call the hub again"]


def _interrupt() -> None:
    raise KeyboardInterrupt
