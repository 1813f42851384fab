"""The loops that take most of a codec's and a merge's time, compiled where installing found a C compiler.

Both forms give the same bits; the compiled one checks every index against its array's bounds, at the place or once
before its loop, because what runs here comes from strangers. Nothing in here knows what is valid: see
:mod:`fedsparse.delta` and its neighbours.
"""

from __future__ import annotations

try:
    from fedsparse.kernels import _compiled as _loops
except ImportError:
    from fedsparse.kernels import plain as _loops  # type: ignore[no-redef]

COMPILED = _loops.__name__.endswith("_compiled")
"""Whether the compiled form runs."""

Scatter = _loops.Scatter
digits = _loops.digits
gap_quotients = _loops.gap_quotients
gaps = _loops.gaps
histogram = _loops.histogram
increasing = _loops.increasing
joined = _loops.joined
quotients = _loops.quotients
rans_decode = _loops.rans_decode
rans_encode = _loops.rans_encode
rice_decode = _loops.rice_decode
row_counts = _loops.row_counts
row_quotients = _loops.row_quotients
scaled = _loops.scaled
squares = _loops.squares
steps = _loops.steps
unary = _loops.unary
unusual = _loops.unusual
where_held = _loops.where_held

__all__ = [
    "COMPILED",
    "Scatter",
    "digits",
    "gap_quotients",
    "gaps",
    "histogram",
    "increasing",
    "joined",
    "quotients",
    "rans_decode",
    "rans_encode",
    "rice_decode",
    "row_counts",
    "row_quotients",
    "scaled",
    "squares",
    "steps",
    "unary",
    "unusual",
    "where_held",
]
