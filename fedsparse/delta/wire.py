"""The few forms of Protocol Buffers that a delta uses, read strictly and without copies.

A general parser builds an object for whatever a stranger nests, at many times the size of the bytes, before
anybody can look at it; this one knows the fields in advance and refuses the first byte that does not belong.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from fedsparse.errors import DeltaError

_VARINT, _LENGTH = 0, 2
_MOST = 1 << 64


def varint(number: int) -> bytes:
    """Return the shortest base-128 varint of a number from 0 to 2^64 - 1."""
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def read_varint(data: memoryview, start: int) -> tuple[int, int]:
    """Return a varint and where it ends.

    Raises:
        DeltaError: it has no end, or a shorter form.
    """
    number = 0
    for position in range(start, min(start + 10, len(data))):
        number |= (data[position] & 0x7F) << 7 * (position - start)
        if data[position] < 0x80:
            if number >= _MOST or (data[position] == 0 and position > start):
                break
            return number, position + 1
    raise DeltaError(f"at byte {start}: a number is cut off, too large, or longer than it need be")


def field(number: int, value: int | bytes) -> bytes:
    """Return one field, or nothing where its value is 0 or empty."""
    if not value:
        return b""
    if isinstance(value, int):
        return varint(number << 3 | _VARINT) + varint(value)
    return field_head(number, len(value)) + value


def field_head(number: int, size: int) -> bytes:
    """Return how a field of ``size`` bytes begins, which follow as they are."""
    return varint(number << 3 | _LENGTH) + varint(size)


def fields(data: memoryview, kinds: Mapping[int, type]) -> dict[int, Any]:
    """Return the values of a message by field number: int, or memoryview for bytes.

    Args:
        data: the whole message.
        kinds: of the fields that it may have, each once: int or bytes.

    Raises:
        DeltaError: another field or form, a field out of order, twice, or written though it is 0 or empty.
    """
    found: dict[int, Any] = {}
    for number, value in walk(data):
        require(number, value, kinds, max(found, default=0))
        found[number] = value
    return found


def require(number: int, value: memoryview | int, kinds: Mapping[int, type], last: int) -> None:
    """Check that a field belongs to a message in which ``last`` came before.

    Raises:
        DeltaError: it does not.
    """
    if isinstance(value, int) != (kinds.get(number) is int) or number not in kinds:
        raise DeltaError(f"field {number} does not belong here")
    if number <= last:
        raise DeltaError(f"field {number} is out of order, or there twice")
    if (value if isinstance(value, int) else len(value)) == 0:
        raise DeltaError(f"field {number} is written though it is empty")


def walk(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield the fields of a message as they come: number, and int or memoryview.

    Raises:
        DeltaError: a field has another form, or is cut off.
    """
    position = 0
    while position < len(data):
        tag, position = read_varint(data, position)
        value, position = read_varint(data, position)
        if tag & 7 == _VARINT:
            yield tag >> 3, value
        elif tag & 7 == _LENGTH and value <= len(data) - position:
            yield tag >> 3, data[position : position + value]
            position += value
        else:
            raise DeltaError(f"before byte {position}: a field has another form, or is cut off")


def stream(source: BinaryIO, most: int) -> Iterator[tuple[int, memoryview | int]]:
    """Yield the fields of a message of at most ``most`` bytes, reading no further than the field at hand.

    Raises:
        DeltaError: as :func:`walk`, or there are more bytes.
    """
    while (first := source.read(1)) != b"":
        tag, size = _next_varint(source, first)
        value, width = _next_varint(source, source.read(1))
        most -= size + width
        if tag & 7 == _VARINT:
            yield tag >> 3, value
        elif tag & 7 == _LENGTH and value <= most:
            most -= value
            data = source.read(value)
            if len(data) < value:
                raise DeltaError("the bytes end before their time")
            yield tag >> 3, memoryview(data)
        else:
            raise DeltaError("a field has another form, or goes on beyond the limit of bytes")
        if most < 0:
            raise DeltaError("there are more bytes than the limit")


def _next_varint(source: BinaryIO, octets: bytes) -> tuple[int, int]:
    while octets and octets[-1] > 0x7F and len(octets) < 10 and (one := source.read(1)):
        octets += one
    return read_varint(memoryview(octets), 0)
