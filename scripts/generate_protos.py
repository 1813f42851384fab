"""Generate fedsparse/v1 from protos/; `--check` only says whether what is committed is fresh."""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
BIN = Path(sys.executable).parent  # the plugins lie beside this Python, on PATH or not
PACKAGE = Path("fedsparse") / "v1"


def generate(target: Path) -> None:
    """Write the messages, their type stubs and the gRPC stubs below ``target``."""
    sources = sorted((PROTOS / PACKAGE).glob("*.proto"))
    services = [source for source in sources if "\nservice " in source.read_text()]
    for kinds, files in (
        (("python_out", "mypy_out"), sources),
        (("grpc_python_out", "mypy_grpc_out"), services),
    ):
        options = [f"--plugin=protoc-gen-{name}={BIN / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
        options += [f"--{kind}={'quiet:' * kind.startswith('mypy')}{target}" for kind in kinds]
        if protoc.main(["protoc", f"-I{PROTOS}", *options, *map(str, files)]) != 0:
            raise SystemExit("protoc failed: see the lines above")
    (target / PACKAGE / "__init__.py").write_text(
        '"""Generated from protos/fedsparse/v1 by scripts/generate_protos.py: never edit."""\n'
    )


def stale(committed: Path) -> list[str]:
    """Return the generated files that differ from ``committed``, or exist on one side only."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = Path(scratch) / PACKAGE
        names = {p.name for p in fresh.iterdir()} | {
            p.name for p in committed.iterdir() if p.suffix in (".py", ".pyi")
        }
        _, mismatch, errors = filecmp.cmpfiles(fresh, committed, sorted(names), shallow=False)
        return sorted(mismatch + errors)


def main() -> None:
    """Generate, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 if the committed code is stale")
    if parser.parse_args().check:
        if differing := stale(ROOT / PACKAGE):
            sys.exit(f"stale: {', '.join(differing)}; run `make protos`")
    else:
        generate(ROOT)


if __name__ == "__main__":
    main()
