"""Bytes on the cable beside bytes in the ledger: two machines, one cable, every frame kept and explained.

Needs root, for network namespaces. The plant runs real rounds by the README's commands; afterwards every byte that
it sent is put into a class, and what TLS carried is compared with the messages that the ledger says were sent.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.auditing.capture import OUTGOING, read_frames
from benchmarks.auditing.part import Part
from benchmarks.auditing.streams import explain
from benchmarks.report import Claim
from fedsparse.audit import LEFT, EntryKind, Evidence, parse_entry, read_folder
from fedsparse.audit.merkle import completed, consistency_proof, inclusion_proof, leaf_hash
from fedsparse.v1 import ledger_pb2, link_pb2
from tests.integration.hosts import HUB, cable_name, enrol, fedsparse, settle, two_hosts
from tests.integration.hosts import run as command

ROUNDS = 4
_PORT = 9443
_SIGNATURE_BYTES = 71  # of ECDSA on P-256 in DER: 70 to 72
_MESSAGE_HEAD = 5  # of gRPC
_LONGEST_SECONDS = 400


def run(folder: Path) -> Part:
    """Run a federation of one plant over one cable, and account for what it sent."""
    plant = _run_rounds(folder)
    sent = [frame for direction, frame in read_frames(folder / "plant.frames") if direction == OUTGOING]
    explained = explain(sent)
    evidence = read_folder(plant / "state" / "ledger")
    payloads, envelopes = _messages(evidence)
    classes = dict(explained.classes)
    inside = classes.pop("inside TLS", 0)
    classes["gRPC and HTTP/2: frames, headers, pings, flow control"] = inside - payloads - envelopes
    classes["our envelopes: task, ledger hash, checkpoint, proofs"] = envelopes
    classes["payloads, as in the ledger"] = payloads
    total = sum(map(len, sent))
    rows = [
        {"bytes for": name, "bytes": count, "share": f"{count / total:.2%}"} for name, count in classes.items()
    ]
    rows.append({"bytes for": "sent in all", "bytes": total, "share": "100.00%"})
    strangers = sum(count for peer, count in explained.peers.items() if peer != f"{HUB} {_PORT}")
    unexplained = classes.get("anything else", 0) + abs(total - sum(classes.values()))
    counted = _counted(evidence)
    claims = [
        Claim("packets to any address but the hub's", strangers, "0", "packets", strangers == 0),
        Claim("bytes sent that belong to no class", unexplained, "0", "bytes", unexplained == 0),
        Claim("bytes sent ÷ bytes in the ledger", total / payloads, "stated", "×", payloads > 0),
        Claim(
            "sent by the interface's own counters, as the ledger noted them, ÷ bytes captured",
            counted / total,
            "0.9 to 1: the last count comes before the last packets",
            "×",
            0.9 <= counted / total <= 1,
        ),
    ]
    settings = {"rounds": ROUNDS, "connections": explained.connections, "frames": len(sent)}
    return Part("wire", settings, rows, claims)


def _run_rounds(folder: Path) -> Path:
    """Run the federation, keeping what the plant sends; return the plant's folder."""
    route = f'\n[site.route]\ninterface = "{cable_name()}b"\n'
    hub, plant = settle(folder, ROUNDS, route)
    with two_hosts() as hosts, contextlib.ExitStack() as stack:
        enrol(hosts, folder, hub, plant)
        command(*hosts["plant"], *fedsparse("client", "approve", "--config", plant / "site.toml", "--yes"))
        listening = folder / "listening"
        module = (sys.executable, "-m", "benchmarks.auditing.capture")
        words = [*hosts["plant"], *module, str(folder / "plant.frames"), str(listening)]
        _start(stack, words, folder / "capture.out")
        _wait_for(listening)
        started = []
        for who, verb, settings in (
            ("hub", "server", hub / "federation.toml"),
            ("plant", "client", plant / "site.toml"),
        ):
            words = [*hosts[who], *map(str, fedsparse(verb, "up", "--config", settings))]
            started.append(_start(stack, words, folder / f"{who}.out"))
        end = time.monotonic() + _LONGEST_SECONDS
        while all(one.poll() is None for one in started) and time.monotonic() < end:
            time.sleep(0.2)
        if started[0].poll() != 0:
            raise RuntimeError(f"the rounds did not end: see {folder}/*.out")
    return plant


def _start(stack: contextlib.ExitStack, words: list[str], out: Path) -> subprocess.Popen[bytes]:
    log = stack.enter_context(out.open("wb"))
    process = subprocess.Popen(words, stdout=log, stderr=log)
    stack.callback(process.wait, 60)
    stack.callback(process.terminate)
    return process


def _wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        if time.monotonic() > end:
            raise RuntimeError(f"{path} did not appear")
        time.sleep(0.05)


def _messages(evidence: Evidence) -> tuple[int, int]:
    """Return the bytes of all payloads that the ledger says left, and of what is sent around them.

    A message is put together again as the gateway did it; only the lengths matter.
    """
    payloads = envelopes = old_size = 0
    nodes = _nodes(evidence)
    for row in evidence.rows:
        entry = parse_entry(row.entry)
        if entry is None or entry.kind not in LEFT or row.sequence not in evidence.receipts:
            continue
        body = link_pb2.Receipt.FromString(evidence.receipts[row.sequence]).body
        digits = len(str(body.checkpoint_size)) - len(str(len(evidence.rows)))
        update = link_pb2.Update(
            task_id=entry.task_id,
            round_update=evidence.payload(entry.payload_sha256),
            ledger_hash=row.hash,
            checkpoint=link_pb2.Checkpoint(
                note=bytes(len(evidence.checkpoint) + digits),
                ledger_key=body.ledger_key,
                key_signature=bytes(_SIGNATURE_BYTES),
                entry=row.sequence,
                inclusion=inclusion_proof(nodes, row.sequence - 1, body.checkpoint_size),
                old_size=old_size,
                consistency=consistency_proof(nodes, old_size, body.checkpoint_size),
            ),
        )
        payloads += entry.payload_bytes
        envelopes += update.ByteSize() - entry.payload_bytes + _MESSAGE_HEAD
        old_size = body.checkpoint_size
    return payloads, envelopes


def _nodes(evidence: Evidence) -> Any:
    nodes: dict[tuple[int, int], bytes] = {}

    def node(level: int, place: int) -> bytes:
        return nodes[level, place]

    for size, row in enumerate(evidence.rows):
        nodes |= {(level, place): one for level, place, one in completed(node, size, leaf_hash(row.entry))}
    return node


def _counted(evidence: Evidence) -> int:
    """Return how many bytes the route's counters rose by, from the first count in the ledger to the last."""
    counts = list(_route_counts(evidence))
    return counts[-1] - counts[0] if counts else 0


def _route_counts(evidence: Evidence) -> Iterator[int]:
    for row in evidence.rows:
        entry = parse_entry(row.entry)
        if entry is not None and int(entry.kind) == EntryKind.ROUTE:
            yield ledger_pb2.RouteCount.FromString(evidence.payload(entry.payload_sha256)).sent_bytes
