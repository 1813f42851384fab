"""`fedsparse audit timestamp request`: its command; what it does is in the module beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

timestamp = typer.Typer(
    no_args_is_help=True,
    help="Time-stamps (RFC 3161) of a ledger's checkpoint, by an authority outside the federation.",
)


@timestamp.callback()
def _group() -> None:
    """Keep `request` a command of its own, although it is the only one."""


@timestamp.command("request")
def request(
    ledger: Annotated[Path, typer.Argument(help="A plant's ledger folder, or an evidence bundle.")],
    out: Annotated[Path, typer.Option(help="New file for the request, e.g. kiso.tsq.")],
) -> None:
    """Write a request for a time-stamp of the checkpoint, on any machine, offline.

    Whoever reaches a time-stamp's authority sends it there; `fedsparse audit verify --timestamp` checks the reply.
    """
    from fedsparse.cli.audit_stamps import write_request

    write_request(ledger, out, Console())
