"""Putting the certificates in a time-stamp's reply into DER's order, which some authorities do not keep.

RFC 5652 (CMS), section 5.1: they are a SET OF, outside what is signed. The library that checks replies reads DER
alone, and OpenSSL writes them in the order of its settings.
"""

from __future__ import annotations

_CERTIFICATES = 0xA0  # [0] IMPLICIT in SignedData
_LONG = 0x80
_MOST_LENGTH_BYTES = 4


def with_sorted_certificates(reply: bytes) -> bytes:
    """Return a TimeStampResp (RFC 3161, section 2.4.2) with nothing but the order of its certificates changed.

    Raises:
        ValueError: it is none, or has no token.
    """
    _, token = _children(reply, *_inside(reply, 0))[:2]
    _, content = _children(reply, *_inside(reply, token[0]))[:2]
    (signed,) = _children(reply, *_inside(reply, content[0]))
    for start, end in _children(reply, *_inside(reply, signed[0])):
        if reply[start] == _CERTIFICATES:
            first, last = _inside(reply, start)
            certificates = sorted(reply[one:other] for one, other in _children(reply, first, last))
            return reply[:first] + b"".join(certificates) + reply[end:]
    return reply


def _children(data: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """Return where each element begins and ends that lies one after the other in a stretch of bytes."""
    found = []
    while start < end:
        _, after = _inside(data, start)
        found.append((start, after))
        start = after
    if start != end:
        raise ValueError("an element is longer than what it is in")
    return found


def _inside(data: bytes, start: int) -> tuple[int, int]:
    """Return where the content of the element at ``start`` begins and ends."""
    head = data[start : start + 2]
    if len(head) < 2:
        raise ValueError("an element is cut short")
    length, begin = head[1], start + 2
    if length >= _LONG:
        size = length - _LONG
        if not 1 <= size <= _MOST_LENGTH_BYTES:
            raise ValueError("an element has a length that DER has not")
        length, begin = int.from_bytes(data[begin : begin + size], "big"), begin + size
    if begin + length > len(data):
        raise ValueError("an element is cut short")
    return begin, begin + length
