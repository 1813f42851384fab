"""A second decoder of sparse deltas, written from docs/format.md alone and with the standard library alone.

It is slow and plain on purpose: lists of integers, lists of single bits. Where the page says that the encoder
takes the shortest form, this decoder builds all forms and compares.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

FORMAT = 2
ALL, BITMAP, GAPS, ROWS, TILES, ROW_RATES = range(1, 7)
FP32, BF16, INT8, INT4, TERNARY = range(1, 6)
PACKED, ENTROPY = range(2)

SEGMENT = 1 << 20  # coordinates that end a segment
BLOCK = 128  # values that share a scale
SIDES = (4, 8, 16, 32)
LARGEST = {INT8: 127, INT4: 7, TERNARY: 1}
ALPHABET = {INT8: 256, INT4: 16, TERNARY: 3}
OFFSET = {INT8: 128, INT4: 8, TERNARY: 1}
PER_BYTE = {256: 1, 16: 2, 3: 5}

Tensor = tuple[int, list[int]]  # position in the space, flat indices


@dataclass(frozen=True)
class Decoded:
    """What the bytes say; every tensor is its position, its flat indices and its values."""

    operation: int
    coding: int
    tensors: tuple[tuple[int, tuple[int, ...], tuple[float, ...]], ...]


class Refused(ValueError):  # noqa: N818 — the word of the page
    """The bytes break a rule of the page."""


def require(holds: bool, rule: str) -> None:
    if not holds:
        raise Refused(rule)


def decode(
    data: bytes, fingerprint: bytes, shapes: list[tuple[int, ...]], known: dict[int, list[int]] | None = None
) -> Decoded:
    """The delta that `data` says.

    Args:
        data: The bytes.
        fingerprint: The space's, 32 bytes.
        shapes: The shape of every tensor of the space, in its order.
        known: A known support, the rising indices by the tensor's position; None if there is none.

    Raises:
        Refused: The bytes are not those that the page prescribes for any delta.
    """
    numbers, strings = message(data, numbers=(1, 3, 4), strings=(2, 5), repeated=(6,))
    require(numbers.get(1) == FORMAT, f"format {numbers.get(1)} is not {FORMAT}")
    require(strings.get(2) == [fingerprint], "the delta is of another space")
    operation, coding = numbers.get(3, 0), numbers.get(4, 0)
    require(operation in (1, 2), "no such operation")
    require(coding in range(FP32, TERNARY + 1), "no such coding of values")

    read = [message(segment, strings=(2,), repeated=(1,))[1] for segment in strings.get(6, [])]
    shared = None if known is None else [(at, list(known[at])) for at in sorted(known) if known[at]]
    if 5 in strings:
        if shared is None or strings[5] != [support_digest(fingerprint, shared)]:
            raise Refused("the support is not known")
        require(not any(1 in segment for segment in read), "indices beside a known support")
        segments = list(segmented(shared))
        require(len(segments) == len(read), "not the segments of the support")
    else:
        segments = [[tensor(indices, shapes) for indices in segment.get(1, [])] for segment in read]
        tensors = [named for segment in segments for named in segment]
        require(all(a[0] < b[0] for a, b in pairwise(tensors)), "tensors do not rise")
        require(segments == list(segmented(tensors)), "segments end elsewhere")
        require(tensors != shared, "a known support is spelled out")

    decoded = []
    for named, segment in zip(segments, read, strict=True):
        numbers_of_values = [len(indices) for _, indices in named]
        all_values = iter(values(segment.get(2, [b""])[0], coding, numbers_of_values))
        decoded += [(at, tuple(indices), tuple(next(all_values) for _ in indices)) for at, indices in named]
    return Decoded(operation, coding, tuple(decoded))


def segmented(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    segment: list[Tensor] = []
    for named in tensors:
        segment.append(named)
        if sum(len(indices) for _, indices in segment) >= SEGMENT:
            yield segment
            segment = []
    if segment:
        yield segment


def support_digest(fingerprint: bytes, support: list[Tensor]) -> bytes:
    digest = hashlib.sha256(b"fedsparse support 1\0" + fingerprint)
    for at, indices in support:
        digest.update(struct.pack(">IQ", at, len(indices)) + struct.pack(f"<{len(indices)}Q", *indices))
    return digest.digest()


# ---- Messages, bytes and bits


class Reader:
    """Takes bytes from the front."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        require(size <= self.left(), "the bytes end too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            require(value < 1 << 64, "a varint of more than 64 bits")
            if byte < 0x80:
                require(byte > 0 or shift == 7, "a varint that is not the shortest")
                return value


def message(
    data: bytes, numbers: tuple[int, ...] = (), strings: tuple[int, ...] = (), repeated: tuple[int, ...] = ()
) -> tuple[dict[int, int], dict[int, list[bytes]]]:
    """The fields by their number: the varints, and the strings of bytes."""
    varints: dict[int, int] = {}
    contents: dict[int, list[bytes]] = {}
    reader, last = Reader(data), 0
    while reader.left():
        field, wire = divmod(reader.varint(), 8)
        require(field > last or (field == last and field in repeated), "fields out of order")
        last = field
        if wire == 0 and field in numbers:
            varints[field] = reader.varint()
            require(varints[field] != 0, "a zero is written")
        else:
            require(wire == 2 and field in strings + repeated, "no such field")
            contents.setdefault(field, []).append(reader.take(reader.varint()))
            require(contents[field][-1] != b"", "an empty field is written")
    return varints, contents


def bits_of(data: bytes) -> Iterator[int]:
    return (byte >> i & 1 for byte in data for i in range(8))


def bytes_of(bits: list[int]) -> bytes:
    return bytes(sum(bit << i for i, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))


def next_bit(bits: Iterator[int]) -> int:
    bit = next(bits, -1)
    require(bit >= 0, "the bits end too early")
    return bit


# ---- Rice codes: every number has a parameter, which is the same for all except in ROW_RATES


def rice_written(numbers: list[int], parameters: list[int]) -> bytes:
    bits = []
    for plane in range(max(parameters, default=0)):
        bits += [g >> plane & 1 for g, k in zip(numbers, parameters, strict=True) if k > plane]
    for g, k in zip(numbers, parameters, strict=True):
        bits += [0] * (g >> k) + [1]
    return bytes_of(bits)


def rice_read(data: bytes, parameters: list[int]) -> list[int]:
    bits, numbers = bits_of(data), [0] * len(parameters)
    for plane in range(max(parameters, default=0)):
        for i, k in enumerate(parameters):
            if k > plane:
                numbers[i] |= next_bit(bits) << plane
    for i, k in enumerate(parameters):
        while next_bit(bits) == 0:
            numbers[i] += 1 << k
    return numbers


def best_parameter(numbers: list[int]) -> int:
    largest = min(40, max(numbers, default=0).bit_length())  # beyond, all quotients are 0
    return min(range(largest + 1), key=lambda k: len(numbers) * (k + 1) + sum(g >> k for g in numbers))


def best_rice(numbers: list[int]) -> bytes:
    k = best_parameter(numbers)
    return bytes([k]) + rice_written(numbers, [k] * len(numbers))


def gaps_of(rising: list[int]) -> list[int]:
    return [after - before - 1 for before, after in pairwise([-1, *rising])]


def rising_of(gaps: list[int]) -> list[int]:
    rising, last = [], -1
    for gap in gaps:
        last += gap + 1
        rising.append(last)
    return rising


# ---- Indices


def tensor(data: bytes, shapes: list[tuple[int, ...]]) -> Tensor:
    numbers, strings = message(data, numbers=(1, 2, 3), strings=(4,))
    at, nnz, coding, code = numbers.get(1, 0), numbers.get(2, 0), numbers.get(3, 0), strings.get(4, [b""])[0]
    require(at < len(shapes), "no such tensor")
    size = size_of(shapes[at])
    require(1 <= nnz <= size, "a number of coordinates that the tensor cannot have")
    indices = indices_read(coding, code, shapes[at], nnz)
    require(len(indices) == nnz and indices[-1] < size, "coordinates outside the tensor")
    shortest = min(index_codes(shapes[at], indices), key=lambda candidate: len(candidate[1]))
    require(shortest == (coding, code), "not the shortest indices")
    return at, indices


def size_of(shape: tuple[int, ...]) -> int:
    size = 1
    for axis in shape:
        size *= axis
    return size


def indices_read(coding: int, code: bytes, shape: tuple[int, ...], nnz: int) -> list[int]:
    """The rising indices. Whether they are in the tensor, and the code the shortest, is left to the caller."""
    if coding == ALL:
        return list(range(size_of(shape)))
    if coding == BITMAP:
        return [i for i, bit in enumerate(bits_of(code)) if bit]
    if coding == GAPS:
        return rising_rice(code, nnz)
    require(coding in (ROWS, TILES, ROW_RATES), "no such coding of indices")
    require(len(shape) >= 2, "a tensor of fewer than two axes has no rows")
    rows, columns = shape[0], size_of(shape) // shape[0]
    if coding == ROWS:
        return [row * columns + i for row in rising_rice(code, nnz // columns) for i in range(columns)]
    if coding == ROW_RATES:
        return row_rates_read(code, rows, columns)
    side = code[0] if code else 0
    require(side in SIDES and rows % side == 0 and columns % side == 0, "tiles that do not fit")
    tiles = rising_rice(code[1:], nnz // side**2)
    return sorted(i for tile in tiles for i in tile_indices(tile, side, columns))


def rising_rice(code: bytes, count: int) -> list[int]:
    reader = Reader(code)
    k = reader.number(1)
    return rising_of(rice_read(reader.take(reader.left()), [k] * count))


def tile_indices(tile: int, side: int, columns: int) -> Iterator[int]:
    row, column = (side * x for x in divmod(tile, columns // side))
    return ((row + i) * columns + column + j for i in range(side) for j in range(side))


def row_rates_read(code: bytes, rows: int, columns: int) -> list[int]:
    reader = Reader(code)
    k, size = reader.number(1), reader.number(4)
    counts = rice_read(reader.take(size), [k] * rows)
    require(max(counts) <= columns, "more coordinates than columns")
    parameters = [row_parameter(count, columns) for count in counts for _ in range(count)]
    gaps = iter(rice_read(reader.take(reader.left()), parameters))
    indices = []
    for row, count in enumerate(counts):
        named = rising_of([next(gaps) for _ in range(count)])
        require(not named or named[-1] < columns, "a column outside its row")
        indices += [row * columns + column for column in named]
    return indices


def row_parameter(count: int, columns: int) -> int:
    k = 0
    while (1 << k + 17) * count < 31537 * (2 * columns - count):
        k += 1
    return k


def index_codes(shape: tuple[int, ...], indices: list[int]) -> Iterator[tuple[int, bytes]]:
    """All possible forms; the one to be preferred among equals comes first."""
    size, nnz = size_of(shape), len(indices)
    if nnz == size:
        yield ALL, b""
        return
    named = set(indices)
    yield BITMAP, bytes_of([int(i in named) for i in range(size)])
    yield GAPS, best_rice(gaps_of(indices))
    if len(shape) < 2:
        return
    rows, columns = shape[0], size // shape[0]
    whole = sorted({i // columns for i in indices})
    if len(whole) * columns == nnz:
        yield ROWS, best_rice(gaps_of(whole))
    for side in SIDES:
        if rows % side == 0 and columns % side == 0:
            tiles = sorted({i // columns // side * (columns // side) + i % columns // side for i in indices})
            if len(tiles) * side**2 == nnz:
                yield TILES, bytes([side]) + best_rice(gaps_of(tiles))
    if 1 < rows <= 2 * nnz:
        yield ROW_RATES, row_rates_written(indices, rows, columns)


def row_rates_written(indices: list[int], rows: int, columns: int) -> bytes:
    by_row: list[list[int]] = [[] for _ in range(rows)]
    for i in indices:
        by_row[i // columns].append(i % columns)
    counts = best_rice([len(row) for row in by_row])
    gaps = [gap for row in by_row for gap in gaps_of(row)]
    parameters = [row_parameter(len(row), columns) for row in by_row for _ in row]
    return counts[:1] + struct.pack("<I", len(counts) - 1) + counts[1:] + rice_written(gaps, parameters)


# ---- Values


def values(data: bytes, coding: int, sizes: list[int]) -> list[float]:
    """The values of a segment whose tensors have `sizes` coordinates."""
    reader = Reader(data)
    found = scaled(reader, coding, sizes) if coding in LARGEST else plain(reader, coding, sum(sizes))
    require(reader.left() == 0, "bytes after the values")
    return found


def plain(reader: Reader, coding: int, total: int) -> list[float]:
    planes = [plane(reader, 256, total) for _ in range(4 if coding == FP32 else 2)]
    low = b"" if coding == FP32 else b"\0\0"
    return [binary32(low + bytes(symbols)) for symbols in zip(*planes, strict=True)]


def binary32(four: bytes) -> float:
    bits = int.from_bytes(four, "little")
    require(bits >> 23 & 0xFF != 0xFF, "a value that is not finite")
    require(bits != 1 << 31, "a negative zero")
    return float(struct.unpack("<f", four)[0])


def scaled(reader: Reader, coding: int, sizes: list[int]) -> list[float]:
    blocks = [min(BLOCK, size - start) for size in sizes for start in range(0, size, BLOCK)]
    scales = [binary32(b"\0\0" + reader.take(2)) for _ in blocks]
    symbols = iter(plane(reader, ALPHABET[coding], sum(sizes)))
    found: list[float] = []
    for block, scale in zip(blocks, scales, strict=True):
        quanta = [next(symbols) - OFFSET[coding] for _ in range(block)]
        largest = max(abs(q) for q in quanta)
        require(largest == (LARGEST[coding] if scale else 0), "a block that does not use its scale")
        require(0 <= scale * largest < 2.0**128, "a scale that is negative or too large")
        found += [q * scale for q in quanta]
    return found


# ---- Planes of symbols


def plane(reader: Reader, alphabet: int, total: int) -> list[int]:
    form = reader.number(1)
    require(form in (PACKED, ENTROPY), "no such form of a plane")
    symbols = packed(reader, alphabet, total) if form == PACKED else entropy_coded(reader, alphabet, total)
    require(form == best_form(symbols, alphabet), "not the form of the plane that is estimated to be shorter")
    return symbols


def packed(reader: Reader, alphabet: int, total: int) -> list[int]:
    per_byte, symbols = PER_BYTE[alphabet], []
    for byte in reader.take(-(-total // per_byte)):
        require(byte < alphabet**per_byte, "a symbol outside the alphabet")
        symbols += [byte // alphabet**i % alphabet for i in range(per_byte)]
    require(not any(symbols[total:]), "the last byte is not filled up with zeros")
    return symbols[:total]


def best_form(symbols: list[int], alphabet: int) -> int:
    total, counts = len(symbols), counts_of(symbols, alphabet)
    if max(counts) == total:
        return PACKED
    cost = sum(
        h * (3072 - (f**256 - 1).bit_length()) for h, f in zip(counts, frequencies(counts), strict=True) if h
    )
    table = -(-alphabet // 8) + -(-12 * sum(h > 0 for h in counts) // 8)
    estimate = table + 4 + 4 * states_of(total) + -(-(cost // 256) // 8)
    return ENTROPY if estimate < -(-total // PER_BYTE[alphabet]) else PACKED


def counts_of(symbols: list[int], alphabet: int) -> list[int]:
    counts = [0] * alphabet
    for symbol in symbols:
        counts[symbol] += 1
    return counts


def states_of(total: int) -> int:
    return max(1, total // 1024)


def frequencies(counts: list[int]) -> list[int]:
    """The frequencies that belong to the counts of two symbols or more."""
    found = [max(1, 4096 * h // sum(counts)) if h else 0 for h in counts]
    while sum(found) > 4096:
        found[found.index(max(found))] -= 1
    first = counts.index(max(counts))
    second = max((s for s in range(len(counts)) if s != first), key=lambda s: counts[s])
    found[first] += 4096 - sum(found)
    above = max(0, found[first] - 2800)
    found[first] -= above
    found[second] += above
    return found


def entropy_coded(reader: Reader, alphabet: int, total: int) -> list[int]:
    table = table_read(reader, alphabet)
    slots = [(s, f, i) for s, f in enumerate(table) for i in range(f)]  # i is x mod 4096 minus b_s
    number_of_words, lanes = reader.number(4), states_of(total)
    states = [reader.number(4) for _ in range(lanes)]
    require(min(states) >= 1 << 16, "a state below its range")
    words = Reader(reader.take(2 * number_of_words))
    symbols: list[int] = []
    while len(symbols) < total:
        step = range(min(lanes, total - len(symbols)))
        for lane in step:
            symbol, f, offset = slots[states[lane] % 4096]
            states[lane] = f * (states[lane] // 4096) + offset
            symbols.append(symbol)
        for lane in step:
            if states[lane] < 1 << 16:
                states[lane] = (states[lane] << 16) + words.number(2)
    require(states == [1 << 16] * lanes and words.left() == 0, "states or words are left over")
    require(table == frequencies(counts_of(symbols, alphabet)), "another table than the symbols'")
    return symbols


def table_read(reader: Reader, alphabet: int) -> list[int]:
    """The frequency of every symbol, 0 for those that do not occur."""
    occurs = list(bits_of(reader.take(-(-alphabet // 8))))
    require(not any(occurs[alphabet:]), "a symbol outside the alphabet")
    code = bits_of(reader.take(-(-12 * sum(occurs) // 8)))
    table = [sum(next(code) << i for i in range(12)) if bit else 0 for bit in occurs[:alphabet]]
    require(not any(code), "the table is not filled up with zeros")
    require(sum(table) == 4096, "frequencies that do not add up to 4096")
    require(all(f > 0 for f, bit in zip(table, occurs, strict=False) if bit), "a symbol of frequency 0")
    return table
