"""The loops that take most of a codec's and a merge's time, compiled where installing found a C compiler.

Both forms give the same bits; the compiled one checks every index against its array's bounds, because what runs
here comes from strangers. Nothing in here knows what is valid: see :mod:`fedsparse.delta` and its neighbours.
"""

from __future__ import annotations

try:
    from fedsparse.kernels._compiled import (
        add_weighted,
        digits,
        from_gaps,
        gaps,
        histogram,
        planes,
        quotients,
        rans_decode,
        rans_encode,
        row_counts,
        row_quotients,
        scaled,
        squares,
        unary,
        where_held,
    )

    COMPILED = True
except ImportError:
    from fedsparse.kernels.plain import (
        add_weighted,
        digits,
        from_gaps,
        gaps,
        histogram,
        planes,
        quotients,
        rans_decode,
        rans_encode,
        row_counts,
        row_quotients,
        scaled,
        squares,
        unary,
        where_held,
    )

    COMPILED = False
"""Whether the compiled form runs."""

__all__ = [
    "COMPILED",
    "add_weighted",
    "digits",
    "from_gaps",
    "gaps",
    "histogram",
    "planes",
    "quotients",
    "rans_decode",
    "rans_encode",
    "row_counts",
    "row_quotients",
    "scaled",
    "squares",
    "unary",
    "where_held",
]
