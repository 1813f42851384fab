"""Writes down to whom a machine's packets go: run inside its network namespace until it is terminated."""

from __future__ import annotations

import ipaddress
import signal
import socket
import sys
from pathlib import Path

_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806
_OUTGOING = 4  # packet type of what this machine sends (packet(7))
_EVERY_PROTOCOL = 3


def addressee(frame: bytes) -> str:
    """Return "protocol address port" of an Ethernet frame's addressee."""
    kind, packet = int.from_bytes(frame[12:14], "big"), frame[14:]
    if kind == _IPV4:
        protocol, address, body = packet[9], packet[16:20], packet[4 * (packet[0] & 15) :]
    elif kind == _IPV6:
        protocol, address, body = packet[6], packet[24:40], packet[40:]
    else:
        return "arp" if kind == _ARP else f"ethertype {kind:#06x}"
    port = int.from_bytes(body[2:4], "big") if protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP) else 0
    return f"{protocol} {ipaddress.ip_address(address)} {port}"


def main() -> None:
    """Sniff every interface but loopback; print each addressee once."""
    found: set[str] = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL)) as sniffer:
        Path(sys.argv[1]).touch()
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        while True:
            frame, (interface, _, direction, *_) = sniffer.recvfrom(65536)
            if interface != "lo" and direction == _OUTGOING and (to := addressee(frame)) not in found:
                found.add(to)
                print(to, flush=True)


if __name__ == "__main__":
    main()
