"""`fedsparse audit policy check|explain|diff|dry-run`: what a site lets leave, before and after it has left."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from fedsparse import config
from fedsparse.cli.figures import printable
from fedsparse.errors import ConfigError
from fedsparse.files import read_at_most

_MOST_BYTES = 4 << 20
policy = typer.Typer(no_args_is_help=True, help="What may leave a site: egress.toml, checked and put into words.")

_WHAT = (
    "egress.toml; or a site.toml, for the policy that it holds or names; or the payload of a policy's entry in a "
    "ledger."
)
PolicyArgument = Annotated[Path, typer.Argument(help=_WHAT)]
LangOption = Annotated[Literal["en", "ja"], typer.Option(help="English or Japanese.")]


@policy.command("check")
def check(file: PolicyArgument) -> None:
    """Say whether a policy is valid, and by which digest every entry of the ledger will name it.

    Each mistake is told with its key, its value, and what would be right.
    """
    from fedsparse.audit import EgressPolicy

    settings = read_policy(file)
    _print(f"{file} is valid: {settings.name or 'without a name'}, revision {settings.revision}")
    _print(f"SHA-256 {EgressPolicy(settings).sha256.hex()}")


@policy.command("explain")
def explain(file: PolicyArgument, lang: LangOption = "en") -> None:
    """Say in plain words what may leave, as a works council reads it."""
    from fedsparse.audit.policy import explain as in_words

    for line in in_words(read_policy(file), lang):
        _print(line)


@policy.command("diff")
def diff(
    old: Annotated[Path, typer.Argument(help="The policy before; any of the files that `check` takes.")],
    new: Annotated[Path, typer.Argument(help="The policy now.")],
    lang: LangOption = "en",
) -> None:
    """Say what a new policy changes, and of each change whether more may leave or less."""
    from fedsparse.audit.policy import changes_between, explain_change

    changes = changes_between(read_policy(old), read_policy(new))
    for change in changes:
        _print(explain_change(change, lang))
    if not changes:
        _print("they are the same" if lang == "en" else "違いはありません")


@policy.command("dry-run")
def dry_run(
    file: PolicyArgument,
    ledger: Annotated[Path, typer.Argument(help="A plant's ledger folder, or an evidence bundle.")],
    payload_key: Annotated[
        Path | None, typer.Option(help="The key of sealed payloads, site.payload_key; a bundle needs none.")
    ] = None,
) -> None:
    """Say which messages that have left this policy would have refused, and by which rules.

    Judges everything in the ledger as if the policy had been in force from its first entry on. Exits with 1 where
    something would have been refused, or cannot be judged because its payload is gone.
    """
    from fedsparse.audit.policy import rehearse
    from fedsparse.cli.audit_evidence import open_evidence

    found = rehearse(read_policy(file), open_evidence(ledger, payload_key))
    for one in found.refused:
        _print(f"entry {one.sequence}, {one.kind.name.lower()} of round {one.round}:")
        for refusal in one.refusals:
            _print(f"  {refusal.rule}: {refusal.what}")
    for sequence, why in found.unknown:
        _print(f"entry {sequence} cannot be judged: {why}")
    _print(f"{found.judged} messages judged, {len(found.refused)} of them would have been refused")
    if found.refused or found.unknown:
        raise typer.Exit(1)


def read_policy(path: Path) -> config.EgressSettings:
    """Read a policy from its own file, from a site's settings, or from what the ledger keeps of it.

    Raises:
        ConfigError: there is none, or it is not valid; names every key that is wrong.
    """
    from fedsparse.audit.policy import parse_policy

    try:
        data = read_at_most(path, _MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "Name an existing egress.toml") from None
    if data.startswith(b"{"):  # canonical; TOML cannot begin so
        return parse_policy(data)
    if _is_site(data):
        return config.load(path, config.SiteConfig).egress
    return config.load(path, config.EgressSettings)


def _is_site(data: bytes) -> bool:
    try:
        return "site" in tomllib.loads(data.decode())
    except (ValueError, RecursionError):  # told of by whoever reads it as settings
        return False


def _print(line: str) -> None:
    """Print a line that may hold a stranger's words: of a policy, or of messages in a ledger."""
    Console().print(printable(line), markup=False, highlight=False, soft_wrap=True)
