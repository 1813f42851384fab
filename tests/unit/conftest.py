from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.samples import Hub, copied, fill_ledger


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    return Hub.create(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="session")
def untouched_ledger(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Path:
    folder = tmp_path_factory.mktemp("ledger") / "ledger"
    fill_ledger(folder, hub)
    return folder


@pytest.fixture
def ledger_folder(untouched_ledger: Path, tmp_path: Path) -> Path:
    """Return a fresh copy of a filled ledger, to tamper with."""
    return copied(untouched_ledger, tmp_path / "ledger")
