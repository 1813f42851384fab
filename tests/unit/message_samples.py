"""Every message that verifying evidence can give, as templates, read from the code that defines them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import fedsparse

ROOT = Path(fedsparse.__file__).parent
VERIFIER: Mapping[str, frozenset[str]] = {
    "audit/bundle.py": frozenset(
        {"write_bundle", "read_bundle", "parse_bundle", "_unpack", "_split", "_numbered"}
    ),
    "audit/control.py": frozenset({"_items"}),
    "audit/notes.py": frozenset({"require_name"}),
    "audit/opening.py": frozenset(),
    "audit/payloads.py": frozenset({"put", "remove", "recover", "read_payload_key"}),
    "audit/policies.py": frozenset({"unread_policies"}),
    "audit/receipt.py": frozenset({"read_record", "_parse_line"}),
    "audit/said.py": frozenset(),
    "audit/verify.py": frozenset(),
    "delta/codec.py": frozenset({"encode", "_write_tensor"}),
    "delta/entropy.py": frozenset(),
    "delta/indices.py": frozenset(),
    "delta/rice.py": frozenset(),
    "delta/rounds.py": frozenset({"RoundTask"}),
    "delta/rows.py": frozenset(),
    "delta/value.py": frozenset(),
    "delta/values.py": frozenset(),
    "delta/wire.py": frozenset(),
    "security/chains.py": frozenset(),
    "security/identity.py": frozenset(),
    "security/signing.py": frozenset({"sign"}),
}
"""Modules whose messages reach a verdict, and what of them is never called in order to reach one."""
_AUDIT = (
    "__init__ budget conservation der entry evidence keys ledger merkle norm proof record route table timestamp "
    "views witness"
)
_DELTA = "__init__ feedback settings shared sorted space state"
_SECURITY = "__init__ authority credentials enrolment handshakes issuing keys revocation tls"
ELSEWHERE: Mapping[str, frozenset[str]] = {
    "audit": frozenset(_AUDIT.split()),
    "delta": frozenset(_DELTA.split()),
    "security": frozenset(_SECURITY.split()),
}
"""Modules whose messages are never in a verdict: they write, refuse before there is one, or have another form."""


def templates() -> dict[str, str]:
    """Return every message, with ``{}`` for each value in it, and where it is defined."""
    found: dict[str, str] = {}
    for name, apart in VERIFIER.items():
        for template, line in _messages(ast.parse((ROOT / name).read_text(encoding="utf-8")), apart):
            found.setdefault(template, f"{name}:{line}")
    return found


def _messages(node: ast.AST, apart: frozenset[str]) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name in apart:
            continue
        for said in _said(child):
            if (template := _template(said)) is not None and any(map(str.isalpha, template)):
                yield template, said.lineno
        yield from _messages(child, apart)


def _said(node: ast.AST) -> list[ast.expr]:
    """Return the expressions that are a message: yielded, given to an error, or added to the problems."""
    if isinstance(node, ast.Yield) and node.value is not None:
        return [node.value]
    if isinstance(node, ast.YieldFrom):
        return [one.elt for one in ast.walk(node.value) if isinstance(one, ast.ListComp | ast.GeneratorExp)]
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name.endswith("Error") or name == "problems.append":
            return node.args
    if isinstance(node, ast.AugAssign) and ast.unparse(node.target) == "problems":
        return [one.elt for one in ast.walk(node.value) if isinstance(one, ast.ListComp | ast.GeneratorExp)]
    return []


def _template(said: ast.expr) -> str | None:
    if isinstance(said, ast.Constant) and isinstance(said.value, str):
        return said.value
    if isinstance(said, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in said.values)
    return None
