"""The report: one HTML page that requests nothing and runs nothing, the same for the same evidence."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from fedsparse import __version__
from fedsparse.audit import budget, route
from fedsparse.audit.conservation import Finding
from fedsparse.audit.report.chart import HEIGHT, WIDTH, by_rounds, chart_of
from fedsparse.audit.report.control import control_sentence
from fedsparse.audit.report.exceptions import exceptions_in
from fedsparse.audit.report.gathering import Gathered
from fedsparse.audit.report.mapping import standards
from fedsparse.audit.report.mapping_security import clock
from fedsparse.audit.report.stamps import stamp_sentence
from fedsparse.audit.report.translation import told
from fedsparse.audit.report.verdicts import budget_sentence, count_lines, headline
from fedsparse.audit.report.words import (
    FINDINGS,
    Lang,
    Pair,
    count,
    day,
    lines_of,
    plural,
    printable,
    size,
    some,
    when,
    why_of,
)

_MOST_PROBLEMS = 20
_MOST_NAMES = 60
_POLICY_CHARACTERS = 6000


def render(found: Gathered, lang: Lang) -> str:
    """Return the page in one language; every name in it is escaped."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "count": count,
        "size": size,
        "when": when,
        "day": day,
        "some": some,
        "printable": printable,
        "told": lambda problem: told(problem).to(lang),
        "why": lambda line: why_of(line).to(lang),
        "text": lambda text: lines_of(text, _POLICY_CHARACTERS),
        "of": plural,
    }
    template = environment.from_string(
        files("fedsparse.audit.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    rounds = by_rounds(found.budget.rounds)
    return template.render(
        g=found,
        lang=lang.value,
        t=lambda pair: pair.to(lang),
        _=lambda en, ja: Pair(en, ja).to(lang),
        findings={finding: FINDINGS[finding].to(lang) for finding in FINDINGS},
        bounds=_bounds(),
        unknown=Finding.UNKNOWN,
        head=headline(found),
        lead=budget_sentence(found),
        counts=tuple(count_lines(found)),
        rounds=rounds,
        chart=chart_of(rounds),
        width=WIDTH,
        height=HEIGHT,
        clock=clock(found),
        control=control_sentence(found.control),
        stamps=tuple(map(stamp_sentence, found.stamps)),
        standards=tuple(standards(found)),
        exceptions=tuple(exceptions_in(found)),
        commands=tuple(commands(found, lang)),
        most_problems=_MOST_PROBLEMS,
        most_names=_MOST_NAMES,
        version=__version__,
    )


def commands(found: Gathered, lang: Lang) -> Iterator[str]:
    """Yield the commands by which anybody can check what the page says."""
    sources = found.sources
    ledger = _quoted(sources.ledger)
    ca = _option("ca", sources.authority)
    key = _option("payload-key", sources.payload_key)
    rest = "".join(
        (
            _option("hub-receipts", sources.hub_receipts),
            key,
            *(_option("timestamp", one) for one in sources.stamps),
            _option("tsa-roots", sources.stamp_roots),
        )
    )
    more = _option("site-facts", sources.site_facts) + _option("timing-ms", str(found.budget.resolution_ms or ""))
    yield f"fedsparse audit verify {ledger}{ca or ' --ca ca.pem'}{rest}"
    if sources.hub_receipts:
        yield f"fedsparse audit compare {ledger} {_quoted(sources.hub_receipts)}{key}"
    left = next((entry.sequence for entry in reversed(found.entries) if entry and entry.kind in (1, 2)), 1)
    yield f"fedsparse audit show {ledger} {left}{key}"
    yield f"fedsparse audit prove {ledger} {left}{key}"
    yield f"fedsparse audit report {ledger}{ca}{rest}{more} --lang {lang.value}"


def _bounds() -> dict[str, object]:
    return {
        "describe": budget.DESCRIBE_BYTES,
        "attend": budget.ATTEND_BYTES,
        "route": (
            f"{100 * (route.PER_BYTE - 1):.3g}",
            count(route.PER_MESSAGE_BYTES),
            count(route.PER_CONNECTION_BYTES),
            f"{route.PER_SECOND_BYTES:g}",
            f"{100 * route.PER_RECEIVED_BYTE:.3g}",
        ),
    }


def _option(name: str, value: str) -> str:
    return f" --{name} {_quoted(value)}" if value else ""


def _quoted(name: str) -> str:
    return shlex.quote(printable(name))
