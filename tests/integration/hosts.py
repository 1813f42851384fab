"""Two machines on one: network namespaces joined by one cable, a hub on one, a plant on the other."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fedsparse.cli.demo_site import lay_out

HUB, PLANT = "10.231.77.1", "10.231.77.2"
_MORE = """
[adapter]
image_size = 32

[training]
density = 0.02
"""


def run(*command: object) -> str:
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=90, check=False)
    if result.returncode:
        raise RuntimeError(f"{command}: {result.stdout}{result.stderr}")
    return result.stdout


def cable_name() -> str:
    """Return the name of the cable; its end at the plant is called so with a "b"."""
    return f"fs{os.getpid()}"[:12]


@contextlib.contextmanager
def two_hosts() -> Iterator[dict[str, tuple[str, ...]]]:
    """Yield, for "hub" and "plant", the command that runs another on that machine.

    Raises:
        RuntimeError: there can be no namespaces here.
    """
    names = {who: f"fs-{who}-{os.getpid()}" for who in ("hub", "plant")}
    cable = cable_name()
    try:
        for name in names.values():
            run("ip", "netns", "add", name)
        run("ip", "link", "add", f"{cable}a", "netns", names["hub"], "type", "veth", "peer", "name", f"{cable}b",
             "netns", names["plant"])  # fmt: skip
        for who, end, address in (("hub", "a", HUB), ("plant", "b", PLANT)):
            inside = ("ip", "-n", names[who])
            run(*inside, "addr", "add", f"{address}/24", "dev", f"{cable}{end}")
            run(*inside, "link", "set", f"{cable}{end}", "up")
            run(*inside, "link", "set", "lo", "up")
            other = PLANT if who == "hub" else HUB
            run(*inside, "route", "add", "default", "via", other)  # whatever else is dialled shows on the cable
            resolver = Path("/etc/netns") / names[who] / "resolv.conf"
            resolver.parent.mkdir(parents=True)
            resolver.write_text(f"nameserver {other}\n")  # and whoever asks for a name as well
        yield {who: ("ip", "netns", "exec", name) for who, name in names.items()}
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)


def fedsparse(*arguments: object) -> tuple[object, ...]:
    return (str(Path(sys.executable).parent / "fedsparse"), *arguments)


def settle(folder: Path, rounds: int = 2, more: str = "") -> tuple[Path, Path]:
    """Lay out two machines' folders with data and settings, but without any certificate."""
    layout = lay_out(folder / "made", rounds, thin=24, more=_MORE)
    hub, plant = folder / "hub", folder / "kiso"
    for source, home in ((layout.federation.parent, hub), (layout.sites["kiso"].parent, plant)):
        shutil.copytree(source, home, ignore=shutil.ignore_patterns("identity", "approved"))
    shutil.copy(folder / "made" / "test.csv", folder)
    address = f"{HUB}:9443"
    federation, site = hub / "federation.toml", plant / "site.toml"
    told = re.sub('listen = ".*"', f'listen = "{address}"', federation.read_text())
    federation.write_text(
        told.replace(f"count = {rounds}", f"count = {rounds}\nmin_plants = 1").replace("gather_", "# gather_")
    )
    site.write_text(re.sub('hub = ".*"', f'hub = "{address}"', site.read_text()) + more)
    return hub, plant


def enrol(hosts: dict[str, tuple[str, ...]], folder: Path, hub: Path, plant: Path) -> None:
    """Make the certificates as the README says; files are carried between machines by hand."""
    ca, signed = folder / "ca-machine" / "pki", folder / "ca-machine" / "signed"
    run(*fedsparse("pki", "init", ca, "--name", "solar-cells"))
    run(*hosts["hub"], *fedsparse("server", "enroll", "hub", "--host", HUB, "--identity", hub / "identity"))
    run(*hosts["plant"], *fedsparse("client", "enroll", "kiso", "--identity", plant / "identity"))
    for role, name, home in (("hub", "hub", hub), ("plant", "kiso", plant)):
        request = shutil.copy(home / "identity" / f"{name}.csr", folder / "ca-machine")
        run(*fedsparse("pki", "sign", role, name, request, "--ca", ca, "--out", signed, "--yes"))
        for file in (f"{name}.pem", "ca.pem"):
            shutil.copy(signed / file, home)
        command = "server" if role == "hub" else "client"
        adopt = fedsparse(command, "adopt", name, home / f"{name}.pem", "--ca", home / "ca.pem")
        run(*hosts[role], *adopt, "--identity", home / "identity")
    shutil.copy(ca / "crl.pem", hub / "identity")
