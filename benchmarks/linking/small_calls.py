"""What a small call costs: on bare Flower's way to the SuperLink, and on ours by gateway, TLS and hub."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from fedsparse_client.gateway.link import Link
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from benchmarks.linking.waiting import percentile

_WARM_UP = 20


@dataclass(frozen=True)
class SmallCalls:
    """Seconds of each call, one of every kind in turn.

    Attributes:
        bare: SuperNode's client to the SuperLink.
        gateway: the same client to the gateway.
        hub: the gateway's Link to the hub.
    """

    bare: list[float]
    gateway: list[float]
    hub: list[float]

    @property
    def added(self) -> list[float]:
        """What gateway and hub add to a call: from the hub on it is one of bare Flower's."""
        return [one + other for one, other in zip(self.gateway, self.hub, strict=True)]

    def rows(self) -> list[dict[str, object]]:
        """Return what the table shows, in milliseconds."""
        named = (
            ("bare Flower: SuperNode to SuperLink, HTTP", self.bare),
            ("SuperNode to gateway, HTTP", self.gateway),
            ("gateway to hub, gRPC over mutual TLS", self.hub),
            ("added: both of these", self.added),
        )
        return [
            {
                "what": what,
                "calls": len(found),
                "p50_ms": round(1000 * percentile(found, 50), 2),
                "p99_ms": round(1000 * percentile(found, 99), 2),
            }
            for what, found in named
        ]


def measure(superlink: str, gateway: str, link: Link, calls: int) -> SmallCalls:
    """Make ``calls`` of each kind in turn."""
    found = SmallCalls([], [], [])
    with _heartbeats(superlink) as bare, _heartbeats(gateway) as ours:
        kinds = ((bare, found.bare), (ours, found.gateway), (link.describe, found.hub))
        for number in range(_WARM_UP + calls):
            for call, times in kinds:
                start = time.perf_counter()
                call()
                if number >= _WARM_UP:
                    times.append(time.perf_counter() - start)
    return found


@contextmanager
def _heartbeats(address: str) -> Iterator[Callable[[], object]]:
    """Register a node as SuperNode does, and yield its heartbeat."""
    private, public = generate_key_pairs()
    key = public_key_to_bytes(public)
    client = FleetHttpClient.from_server_address(
        address,
        insecure=True,
        root_certificates=None,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(private, public),
        ],
    )
    interval = HEARTBEAT_DEFAULT_INTERVAL
    client.RegisterNode(RegisterNodeFleetRequest(public_key=key))
    node = client.ActivateNode(ActivateNodeRequest(public_key=key, heartbeat_interval=interval)).node_id
    request = SendNodeHeartbeatRequest(node=Node(node_id=node), heartbeat_interval=interval)
    try:
        yield partial(client.SendNodeHeartbeat, request)
    finally:
        client.DeactivateNode(DeactivateNodeRequest(node_id=node))
        client.UnregisterNode(UnregisterNodeFleetRequest(node_id=node))
        client.close()
