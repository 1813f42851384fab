"""The counters of the only route on which this site may send: what the ledger is weighed against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedsparse.config import RouteSettings
from fedsparse.errors import ConfigError
from fedsparse.v1 import ledger_pb2

_INTERFACES = Path("/sys/class/net")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def count_route(settings: RouteSettings, interfaces: Path = _INTERFACES) -> ledger_pb2.RouteCount:
    """Return what the route has carried so far.

    Args:
        settings: where the counters are.
        interfaces: folder of the system's network interfaces.

    Raises:
        ConfigError: there is no such counter, or it cannot be read.
    """
    try:
        since = _BOOT.read_text().strip()
        if settings.interface is not None:
            return _count_interface(settings.interface, interfaces, since)
        assert settings.counter is not None  # noqa: S101 # the settings name one of the two
        return _count_rule(settings.counter, settings.name, since)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"the counters of site.route cannot be read: {error!r}",
            "Name an interface under /sys/class/net, or a file that holds what `nft -j list counters` prints",
        ) from None


def _count_interface(name: str, interfaces: Path, since: str) -> ledger_pb2.RouteCount:
    def read(counter: str) -> int:
        return int((interfaces / name / "statistics" / counter).read_text())

    return ledger_pb2.RouteCount(
        route=f"interface {name}",
        since=since,
        sent_bytes=read("tx_bytes"),
        sent_packets=read("tx_packets"),
        received_bytes=read("rx_bytes"),
        received_packets=read("rx_packets"),
    )


def _count_rule(path: Path, name: str, since: str) -> ledger_pb2.RouteCount:
    """Read one counter of nftables; it counts what is sent only."""
    listed: list[dict[str, Any]] = json.loads(path.read_bytes())["nftables"]
    found = [item["counter"] for item in listed if item.get("counter", {}).get("name") == name]
    if len(found) != 1:
        raise ValueError(f"{path} has {len(found)} counters named {name!r}")
    return ledger_pb2.RouteCount(
        route=f"nftables counter {name}",
        since=since,
        sent_bytes=int(found[0]["bytes"]),
        sent_packets=int(found[0]["packets"]),
    )
