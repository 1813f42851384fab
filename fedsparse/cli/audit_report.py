"""`fedsparse audit report|explain`: one page for the auditor, a dozen sentences for everybody else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from fedsparse.audit import read_record
from fedsparse.audit.conservation import Finding
from fedsparse.audit.report import Gathered, Lang, Pair, Sources, explain, gather, read_facts, render
from fedsparse.audit.report.verdicts import headline
from fedsparse.cli.audit_evidence import open_evidence
from fedsparse.cli.audit_stamps import Tokens, read_stamps
from fedsparse.cli.authority import read_authority
from fedsparse.errors import LedgerError
from fedsparse.files import write_atomic


@dataclass(frozen=True)
class Options:
    """What a report is made from.

    Attributes:
        ledger: folder or bundle.
        authority: the federation's CA certificate.
        hub_receipts: the hub's own record of this plant.
        payload_key: what payloads are sealed with.
        site_facts: what the site states itself.
        timing_ms: the smallest difference in time that an observer is taken to see.
        tokens: time-stamps.
    """

    ledger: Path
    authority: Path | None = None
    hub_receipts: Path | None = None
    payload_key: Path | None = None
    site_facts: Path | None = None
    timing_ms: int | None = None
    tokens: Tokens = field(default_factory=Tokens)


def write_report(options: Options, lang: str, out: Path, console: Console) -> Finding:
    """Write the page; print the verdict, and return it."""
    found, language = _gather(options), Lang(lang)
    try:
        write_atomic(out, render(found, language).encode(errors="replace"))
    except OSError as error:
        raise LedgerError(f"the report {out} cannot be written: {error.strerror}") from None
    head = headline(found)
    _say(head.sentence, language, console)
    console.print(str(out), markup=False, highlight=False, soft_wrap=True)
    return head.finding


def print_explanation(options: Options, lang: str, console: Console) -> Finding:
    """Print the sentences; return the verdict."""
    found = _gather(options)
    for sentence in explain(found):
        _say(sentence, Lang(lang), console)
    return headline(found).finding


def _say(sentence: Pair, lang: Lang, console: Console) -> None:
    # Japanese may be broken anywhere but at the blanks around figures, where a console would.
    console.print(sentence.to(lang), markup=False, highlight=False, soft_wrap=lang is Lang.JA)


def _gather(options: Options) -> Gathered:
    authority = None if options.authority is None else read_authority(options.authority)
    record = None if options.hub_receipts is None else read_record(options.hub_receipts)
    facts = None if options.site_facts is None else read_facts(options.site_facts)
    sources = Sources(
        ledger=options.ledger.name,
        authority=_name(options.authority),
        hub_receipts=_name(options.hub_receipts),
        hub_cut=record is not None and record.cut,
        stamps=tuple(path.name for path in options.tokens.replies),
        stamp_roots=_name(options.tokens.roots),
        payload_key=_name(options.payload_key),
        site_facts=_name(options.site_facts),
    )
    evidence = open_evidence(options.ledger, options.payload_key)
    stamps = read_stamps(options.tokens, evidence)
    kept = None if record is None else record.receipts
    return gather(evidence, sources, authority, kept, facts, options.timing_ms, stamps)


def _name(path: Path | None) -> str:
    return "" if path is None else path.name
