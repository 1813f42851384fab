"""Valid messages gone wrong: changes of single fields that keep the rest in order, and blind changes of bytes.

A change of a field repairs the lengths around it, so that a reader gets as far as the field itself; some changes
are of lengths. Everything is drawn from one generator: the same generator gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

Schema: TypeAlias = dict[int, "Schema"]
"""Which fields of a message are messages themselves."""

DELTA: Schema = {6: {1: {}}}
TASK: Schema = {6: DELTA, 10: {}}
UPDATE: Schema = {5: DELTA, 7: {}}

_VARINT, _FIXED64, _LENGTH = 0, 1, 2
_EDGES = (0, 1, 2, 7, 127, 128, 255, 1 << 16, 1 << 20, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63, (1 << 64) - 1)
_TOO_LARGE = 1 << 64


@dataclass
class Field:
    """One field of a message, with what is wrong with it.

    Attributes:
        number: as in the tag.
        wire: type on the wire: 0, 1 or 2.
        value: number, bytes, or the fields of a message.
        length: written instead of the true one.
        padding: bytes by which the last varint before the value is longer than it need be.
    """

    number: int
    wire: int
    value: int | bytes | list[Field]
    length: int | None = None
    padding: int = 0

    @property
    def content(self) -> bytes:
        """The bytes of a value that is not a varint."""
        assert not isinstance(self.value, int)
        return self.value if isinstance(self.value, bytes) else write(self.value)

    @property
    def true_length(self) -> int:
        """Bytes that its length ought to count; 0 for a varint."""
        return 0 if isinstance(self.value, int) else len(self.content)

    def write(self) -> bytes:
        """Return tag and value."""
        tag = varint(self.number << 3 | self.wire)
        if isinstance(self.value, int):
            return tag + varint(self.value, self.padding)
        if self.wire == _FIXED64:
            return tag + self.content
        length = self.true_length if self.length is None else self.length
        return tag + varint(length, self.padding) + self.content


def varint(number: int, padding: int = 0) -> bytes:
    """Return a base-128 varint, ``padding`` bytes longer than it need be."""
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    if padding:
        octets[-1] |= 0x80
        octets += b"\x80" * (padding - 1) + b"\x00"
    return bytes(octets)


def read(data: bytes, schema: Schema) -> list[Field]:
    """Return the fields of a valid message, those of messages within it included."""
    fields, position = [], 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = _read_varint(data, position)
            fields.append(Field(number, wire, value))
            continue
        size, position = (8, position) if wire == _FIXED64 else _read_varint(data, position)
        content = data[position : position + size]
        position += size
        inside = read(content, schema[number]) if number in schema else content
        fields.append(Field(number, wire, inside))
    return fields


def write(fields: Sequence[Field]) -> bytes:
    """Return the bytes of a message."""
    return b"".join(one.write() for one in fields)


def mutate(data: bytes, other: bytes, schema: Schema, draw: Random) -> bytes:
    """Return bytes unlike ``data``, after one to four changes.

    Args:
        data: a valid message.
        other: another, to take parts from.
        schema: of both.
    """
    changed = data
    while changed == data:
        way = draw.random()
        if way < 0.7:
            changed = _mutate_fields(data, other, schema, draw)
        elif way < 0.99:
            changed = blindly(data, other, draw, _several(draw))
        else:
            changed = draw.randbytes(draw.randrange(200))
    return changed


def _several(draw: Random) -> int:
    return draw.choice((1, 1, 1, 1, 2, 2, 3, 4))


# --- changes of fields ---


def _mutate_fields(data: bytes, other: bytes, schema: Schema, draw: Random) -> bytes:
    fields, others = read(data, schema), list(_places(read(other, schema)))
    for _ in range(_several(draw)):
        if not (places := list(_places(fields))):
            break
        (place,) = draw.choices(places, [place.weight for place in places])
        if draw.random() < 0.2:
            _graft(place, [one.field for one in others if one.path == place.path], draw)
        else:
            draw.choice(_FIELD_CHANGES)(place, draw)
    return write(fields)


@dataclass(frozen=True)
class _Place:
    """Where a field is: the message it lies in, its position there, and the numbers that lead to it."""

    message: list[Field]
    at: int
    path: tuple[int, ...]

    @property
    def field(self) -> Field:
        return self.message[self.at]

    @property
    def weight(self) -> int:
        """How often it is changed: deep ones more often than those that are read first, and bytes than numbers."""
        return len(self.path) ** 2 * (4 if isinstance(self.field.value, bytes) else 1)

    def inside(self, draw: Random) -> _Place | None:
        """Return a place within the field, where it is a message with fields."""
        message = self.field.value
        if not isinstance(message, list) or not message:
            return None
        at = draw.randrange(len(message))
        return _Place(message, at, (*self.path, message[at].number))


def _places(message: list[Field], path: tuple[int, ...] = ()) -> Iterator[_Place]:
    for at, one in enumerate(message):
        here = (*path, one.number)
        yield _Place(message, at, here)
        if isinstance(one.value, list):
            yield from _places(one.value, here)


_FieldChange = Callable[[_Place, Random], None]


def _graft(place: _Place, kin: Sequence[Field], draw: Random) -> None:
    """Put a field of the same kind from another message in its place."""
    if kin:
        place.message[place.at] = deepcopy(draw.choice(kin))


def _change_value(place: _Place, draw: Random) -> None:
    """Change a number a little or to an edge, or bytes by a byte; of a message, one of its fields."""
    value = place.field.value
    if isinstance(value, int):
        near = max(0, value + draw.choice((-8, -2, -1, 1, 2, 8)))
        place.field.value = draw.choice((near, draw.choice(_EDGES), draw.getrandbits(draw.randrange(1, 65))))
    elif isinstance(value, bytes):
        place.field.value = blindly(value, value, draw, 1)
    elif inner := place.inside(draw):
        _change_value(inner, draw)


def _exchange(place: _Place, draw: Random) -> None:
    """Exchange bits or bytes within a value, so that their number stays."""
    value = place.field.value
    if isinstance(value, bytes):
        place.field.value = draw.choice((_exchange_bits, _exchange_octets))(value, draw)
    elif inner := place.inside(draw):
        _exchange(inner, draw)


def _swap(place: _Place, draw: Random) -> None:
    """Exchange two fields of a message."""
    there = draw.randrange(len(place.message))
    place.message[place.at], place.message[there] = place.message[there], place.message[place.at]


def _repeat(place: _Place, draw: Random) -> None:
    place.message.insert(draw.randrange(len(place.message) + 1), deepcopy(place.field))


def _remove(place: _Place, draw: Random) -> None:
    del place.message[place.at]


def _rename(place: _Place, draw: Random) -> None:
    """Give a field another number, now and then a huge one."""
    place.field.number = draw.choice((draw.randrange(12), draw.randrange(12), draw.getrandbits(61)))


def _pad(place: _Place, draw: Random) -> None:
    """Write a number or a length longer than it need be."""
    place.field.padding = draw.choice((1, 2, 5, 9, 10))


def _overflow(place: _Place, draw: Random) -> None:
    """Write a number or a length beyond 64 bits."""
    number = _TOO_LARGE + draw.choice((0, 1, 5, _TOO_LARGE))
    if isinstance(place.field.value, int):
        place.field.value = number
    else:
        place.field.length = number


def _lie(place: _Place, draw: Random) -> None:
    """Write another length than the true one; those around it count what is really there."""
    true = place.field.true_length
    place.field.length = draw.choice((max(0, true - 1), true + 1, true + draw.randrange(64), draw.choice(_EDGES)))


def _keep_lengths(place: _Place, draw: Random) -> None:
    """Make a value shorter or longer, and leave its own length and those of the messages it lies in as they were.

    Only messages from ``place`` on inwards are kept; those further out count what is really there.
    """
    place.field.length = place.field.true_length
    value = place.field.value
    if isinstance(value, bytes):
        place.field.value = draw.choice((_insert, _remove_octets, _repeat_octets))(value, draw)
    elif inner := place.inside(draw):
        _keep_lengths(inner, draw)


_FIELD_CHANGES: tuple[_FieldChange, ...] = (
    *(_change_value,) * 8,
    *(_exchange,) * 4,
    _swap,
    _repeat,
    _remove,
    _rename,
    _pad,
    _overflow,
    _lie,
    _keep_lengths,
)


# --- changes of bytes ---


def blindly(data: bytes, other: bytes, draw: Random, times: int) -> bytes:
    """Return ``data`` after some changes of bytes; ``other`` is what splices take from."""
    for _ in range(times):
        if draw.randrange(16) == 0:
            data = data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]
        else:
            data = draw.choice(_OCTET_CHANGES)(data, draw)
    return data


_OctetChange = Callable[[bytes, Random], bytes]


def _flip(data: bytes, draw: Random) -> bytes:
    at = draw.randrange(8 * len(data) or 1)
    return _replaced(data, at // 8, lambda octet: octet ^ 1 << at % 8)


def _set(data: bytes, draw: Random) -> bytes:
    octet = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
    return _replaced(data, draw.randrange(len(data) or 1), lambda _: octet)


def _replaced(data: bytes, at: int, change: Callable[[int], int]) -> bytes:
    return data[:at] + bytes(change(octet) for octet in data[at : at + 1]) + data[at + 1 :]


def _insert(data: bytes, draw: Random) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.randbytes(draw.choice((1, 1, 2, 4, 16))) + data[at:]


def _remove_octets(data: bytes, draw: Random) -> bytes:
    start, end = _run(data, draw)
    return data[:start] + data[end:]


def _repeat_octets(data: bytes, draw: Random) -> bytes:
    start, end = _run(data, draw)
    return data[:end] + data[start:]


def _truncate(data: bytes, draw: Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _run(data: bytes, draw: Random) -> tuple[int, int]:
    start = draw.randrange(len(data) + 1)
    return start, start + draw.choice((1, 1, 2, 4, 8, 64))


def _lengthen_varint(data: bytes, draw: Random) -> bytes:
    """Write a byte as if it were a varint and had a longer form."""
    at = draw.randrange(len(data) + 1)
    padding = draw.choice((1, 2, 8, 9))
    return data[:at] + b"".join(varint(octet & 0x7F, padding) for octet in data[at : at + 1]) + data[at + 1 :]


def _huge_varint(data: bytes, draw: Random) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + varint(draw.choice((*_EDGES, _TOO_LARGE))) + data[at + 1 :]


def _huge_word(data: bytes, draw: Random) -> bytes:
    """Write an edge over four bytes, such as a length or a count of words is."""
    at = draw.randrange(len(data) + 1)
    return data[:at] + (draw.choice(_EDGES) & 0xFFFFFFFF).to_bytes(4, "little") + data[at + 4 :]


def _exchange_octets(data: bytes, draw: Random) -> bytes:
    octets = bytearray(data)
    if octets:
        one, two = draw.randrange(len(octets)), draw.randrange(len(octets))
        octets[one], octets[two] = octets[two], octets[one]
    return bytes(octets)


def _exchange_bits(data: bytes, draw: Random) -> bytes:
    octets = bytearray(data)
    if octets:
        one, two = draw.randrange(8 * len(octets)), draw.randrange(8 * len(octets))
        if (octets[one // 8] >> one % 8 ^ octets[two // 8] >> two % 8) & 1:
            octets[one // 8] ^= 1 << one % 8
            octets[two // 8] ^= 1 << two % 8
    return bytes(octets)


_OCTET_CHANGES: tuple[_OctetChange, ...] = (
    *(_flip,) * 6,
    *(_set,) * 3,
    _insert,
    _remove_octets,
    _repeat_octets,
    _truncate,
    _lengthen_varint,
    _huge_varint,
    _huge_word,
    _exchange_octets,
    _exchange_bits,
)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        octet = data[position]
        number |= (octet & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if octet < 0x80:
            return number, position
