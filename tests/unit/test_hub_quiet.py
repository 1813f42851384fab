from __future__ import annotations

import pytest
from fedsparse_server import quiet as quiet_module
from fedsparse_server.quiet import QUIET_SECONDS, QuietClients

KISO, ISE = "ipv4:10.0.0.1:1000", "ipv4:10.0.0.2:2000"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def clients(clock: Clock) -> QuietClients:
    return QuietClients(clock)


def test_a_client_that_makes_no_call_is_told_of_once_and_not_too_early(
    clients: QuietClients, clock: Clock
) -> None:
    clients.shook_hands(KISO)
    clock.now += QUIET_SECONDS
    assert clients.take() == []
    clock.now += 0.1
    assert clients.take() == [KISO]
    assert clients.take() == []


def test_a_client_that_calls_is_not_told_of(clients: QuietClients, clock: Clock) -> None:
    clients.shook_hands(KISO)
    clients.shook_hands(ISE)
    clients.spoke(ISE)
    clock.now += QUIET_SECONDS + 0.1
    assert clients.take() == [KISO]


def test_a_handshake_that_is_read_off_the_log_after_the_call_counts_as_followed_by_it(
    clients: QuietClients, clock: Clock
) -> None:
    clients.spoke(KISO)
    clients.shook_hands(KISO)
    clock.now += QUIET_SECONDS + 0.1
    assert clients.take() == []


def test_a_call_excuses_no_later_connection_from_the_same_port(clients: QuietClients, clock: Clock) -> None:
    clients.spoke(KISO)
    clock.now += QUIET_SECONDS + 0.1
    clients.take()
    clients.shook_hands(KISO)
    clock.now += QUIET_SECONDS + 0.1
    assert clients.take() == [KISO]


def test_a_flood_of_clients_is_told_of_from_its_oldest_and_not_kept(
    clients: QuietClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet_module, "_MOST", 2)
    for number in range(5):
        clients.shook_hands(f"ipv4:10.0.0.9:{number}")
        clients.spoke(f"ipv4:10.0.0.8:{number}")
    assert clients.take() == [f"ipv4:10.0.0.9:{number}" for number in range(3)]
