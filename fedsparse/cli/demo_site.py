"""What the demo's federation is made of: certificates, plants' data, settings files."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsparse import config
from fedsparse.approval import approve
from fedsparse.bundle import build_bundle
from fedsparse.errors import DataError
from fedsparse.processes import free_port
from fedsparse.security import Identity, Role, create_authority, issue, revoke

CLASSES = ("intact", "defective")
PLANTS = ("kiso", "suzuka", "tenryu")
SEED = 7
# Share of each stratum (class, cell type) that each plant sees: every plant has its own products and defect rate.
SHARES = {
    ("intact", "poly"): (0.10, 0.65, 0.25),
    ("intact", "mono"): (0.70, 0.10, 0.20),
    ("defective", "poly"): (0.10, 0.20, 0.70),
    ("defective", "mono"): (0.25, 0.65, 0.10),
}
_TEST_SHARE = 0.25


@dataclass(frozen=True)
class Layout:
    """Where the demo's files lie.

    Attributes:
        federation: the operator's federation.toml.
        sites: each plant's site.toml.
        authority: the CA's certificate.
        plants: what each plant has, for people to see.
    """

    federation: Path
    sites: dict[str, Path]
    authority: Path
    plants: dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One electroluminescence image of a solar cell."""

    path: Path
    label: str
    kind: str


def federation_text(hub: str, rounds: int, more: str = "") -> str:
    """Return the demo's federation.toml; ``more`` comes first, so that its keys end up in no table but its own."""
    plants = ", ".join(f'"{name}"' for name in PLANTS)
    return f"{more}\n{_FEDERATION.format(hub=hub, plants=plants, rounds=rounds)}"


def lay_out(folder: Path, rounds: int, *, thin: int = 1, more: str = "") -> Layout:
    """Write everything the demo's processes read.

    Args:
        folder: an empty folder.
        rounds: rounds of the federation.
        thin: take every ``thin``-th image only.
        more: further tables of federation.toml.

    Raises:
        DataError: the package with the images is not installed.
        ConfigError: the further tables are not right.
    """
    address = f"127.0.0.1:{free_port()}"
    authority = create_authority(folder / "pki", "demo")
    issue(authority, Identity(Role.HUB, "hub"), folder / "hub" / "identity", hosts=("127.0.0.1", "localhost"))
    revoke(authority)
    shutil.copy(folder / "pki" / "crl.pem", folder / "hub" / "identity")
    test, parts = _split(read_cells()[::thin])
    write_manifest(folder / "test.csv", test)
    sites = {}
    for name, cells in zip(PLANTS, parts, strict=True):
        home = folder / "plants" / name
        issue(authority, Identity(Role.PLANT, name), home / "identity")
        write_manifest(home / "data.csv", cells)
        sites[name] = home / "site.toml"
    federation = folder / "hub" / "federation.toml"
    federation.write_text(federation_text(address, rounds, more), encoding="utf-8")
    density = config.load(federation, config.FederationConfig).training.density
    allowed = max(config.EgressSettings().max_density, density)
    for name, path in sites.items():
        path.write_text(_SITE.format(name=name, hub=address, density=allowed), encoding="utf-8")
        approve(build_bundle(), path.parent / "approved")
    return Layout(
        federation,
        sites,
        folder / "pki" / "ca.pem",
        {
            name: {
                "samples": len(cells),
                "classes": dict(sorted(Counter(cell.label for cell in cells).items())),
                "groups": dict(sorted(Counter(cell.kind for cell in cells).items())),
            }
            for name, cells in zip(PLANTS, parts, strict=True)
        },
    )


def read_cells() -> list[Cell]:
    """Read the list of images that the elpv-dataset package carries (labels.csv: path, probability, type)."""
    try:
        import elpv_dataset
    except ImportError:
        raise DataError(
            "the package elpv-dataset is not installed",
            "Install the demo's data: pip install 'fedsparse[demo]'",
        ) from None
    folder = Path(elpv_dataset.__file__).parent / "data"
    cells = []
    for line in (folder / "labels.csv").read_text().splitlines():
        path, probability, kind = line.split()
        # The protocol of Deitsch et al. 2019: defective where the experts' probability is at least one half.
        label = CLASSES[float(probability) >= 0.5]
        cells.append(Cell(folder / path, label, kind))
    return cells


def _split(cells: Sequence[Cell]) -> tuple[list[Cell], list[list[Cell]]]:
    """Return the common test set and each plant's share of the rest."""
    from fedsparse.training.partition import hold_out, partition

    strata = [(cell.label, cell.kind) for cell in cells]
    rest, test = hold_out(strata, _TEST_SHARE, SEED)
    parts = partition([strata[i] for i in rest], SHARES, SEED)
    return [cells[i] for i in test], [[cells[rest[i]] for i in part] for part in parts]


def write_manifest(path: Path, cells: Sequence[Cell]) -> None:
    """Name the images where their package has them; nothing is copied."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows((str(cell.path), cell.label) for cell in cells)


_SITE = """\
# One plant of the demo. For your own: point data.path at a folder with one sub-folder per class.
state = "state"

[site]
name = "{name}"
hub = "{hub}"
approved = "approved"

[site.identity]
certificate = "identity/{name}.pem"
key = "identity/{name}.key"
authority = "identity/ca.pem"

[data]
path = "data.csv"

[egress]
max_density = {density}
"""

_FEDERATION = """\
# The demo's operator.
[federation]
name = "demo"
classes = ["intact", "defective"]

[hub]
listen = "{hub}"
plants = [{plants}]

[hub.identity]
certificate = "identity/hub.pem"
key = "identity/hub.key"
authority = "identity/ca.pem"
revoked = "identity/crl.pem"

[rounds]
count = {rounds}

[evaluation]
path = "../test.csv"
"""
