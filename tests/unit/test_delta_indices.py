from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from fedsparse.delta import indices
from fedsparse.delta.indices import IndexCoding
from fedsparse.errors import DeltaError
from tests.unit.test_delta_rice import in_bytes, in_words

Shape = tuple[int, ...]
Form = tuple[IndexCoding, bytes]

ALL, BITMAP, GAPS, ROWS, TILES, RATES = (IndexCoding(number) for number in range(1, 7))
TINY: list[Shape] = [(2, 3), (9,), (1, 5), (5, 1), (2, 2, 2)]


def forms(support: list[int], shape: Shape) -> Iterator[Form]:
    """Yield every form that docs/format.md allows, the shortest or not, with the shortest code of its numbers."""
    size = math.prod(shape)
    height, columns = shape[0], size // shape[0]
    if len(support) == size:
        yield ALL, b""
    yield BITMAP, in_bytes("".join("01"[index in set(support)] for index in range(size)))
    yield GAPS, gaps(support)
    if len(shape) == 1:
        return
    row = sorted({index // columns for index in support})
    if support == [r * columns + c for r in row for c in range(columns)]:
        yield ROWS, gaps(row)
    for side in (4, 8, 16, 32):
        across = columns // side
        tile = sorted({i // columns // side * across + i % columns // side for i in support})
        if height % side == columns % side == 0 and len(support) == len(tile) * side**2:
            yield TILES, bytes([side]) + gaps(tile)
    if 1 < height <= 2 * len(support):
        yield RATES, row_rates(support, height, columns)


def gaps(numbers: list[int]) -> bytes:
    passed = [here - before - 1 for before, here in itertools.pairwise([-1, *numbers])]
    return shortest(passed)


def shortest(numbers: list[int]) -> bytes:
    """Return the best parameter and the code, found by trying."""
    lengths = [len(numbers) * (k + 1) + sum(number >> k for number in numbers) for k in range(41)]
    k = lengths.index(min(lengths))
    return bytes([k]) + in_words(numbers, k)


def row_rates(support: list[int], height: int, columns: int) -> bytes:
    rows = [[i % columns for i in support if i // columns == r] for r in range(height)]
    counts = shortest([len(row) for row in rows])
    numbers, widths = [], []
    for row in filter(None, rows):
        bound = 31537 * (2 * columns - len(row))
        width = next(k for k in itertools.count() if 2**k * 2**17 * len(row) >= bound)
        numbers += [here - before - 1 for before, here in itertools.pairwise([-1, *row])]
        widths += [width] * len(row)
    pairs = list(zip(numbers, widths, strict=True))
    planes = "".join(str(g >> j & 1) for j in range(max(widths)) for g, width in pairs if width > j)
    body = in_bytes(planes + "".join("0" * (g >> width) + "1" for g, width in pairs))
    return counts[:1] + (len(counts) - 1).to_bytes(4, "little") + counts[1:] + body


def best(support: list[int], shape: Shape) -> Form:
    found = list(forms(support, shape))
    return found[0] if found[0][0] is ALL else min(found, key=lambda form: (len(form[1]), form[0]))


def written(support: list[int], shape: Shape) -> Form:
    plan = indices.plan(np.array(support), shape)
    data = plan.write()
    assert plan.size == len(data)
    return plan.coding, data


def read(form: Form, count: int, shape: Shape) -> list[int]:
    return list(indices.read(form[0], memoryview(form[1]), count, shape).tolist())


def supports(size: int) -> Iterator[list[int]]:
    """Yield every support of ``size`` coordinates but the empty one."""
    for chosen in range(1, 1 << size):
        yield [index for index in range(size) if chosen >> index & 1]


def in_rows(rows: list[int], columns: int) -> list[int]:
    return [row * columns + column for row in rows for column in range(columns)]


def in_tiles(tiles: list[int], columns: int, side: int) -> list[int]:
    corners = [divmod(tile, columns // side) for tile in tiles]
    return sorted(
        (down * side + y) * columns + across * side + x
        for down, across in corners
        for y in range(side)
        for x in range(side)
    )


def random_support(shape: Shape, density: float, seed: int) -> list[int]:
    return list(np.flatnonzero(np.random.default_rng(seed).random(math.prod(shape)) < density).tolist())


def uneven(shape: tuple[int, int], seed: int) -> list[int]:
    """Draw a support whose first rows are dense and whose others are all but empty."""
    density = np.where(np.arange(shape[0]) < shape[0] // 8, 0.5, 0.004)[:, None]
    return list(np.flatnonzero(np.random.default_rng(seed).random(shape) < density).tolist())


STRUCTURED: dict[str, tuple[IndexCoding, list[int], Shape]] = {
    "all": (ALL, list(range(20)), (4, 5)),
    "bitmap": (BITMAP, random_support((40, 50), 0.5, 0), (40, 50)),
    "gaps": (GAPS, random_support((40, 50), 0.01, 0), (40, 50)),
    "gaps of a vector": (GAPS, [7, 900], (2000,)),
    "rows": (ROWS, in_rows([3, 4, 17, 39], 50), (40, 50)),
    "rows of a kernel": (ROWS, in_rows([0, 5], 27), (8, 3, 3, 3)),
    "tiles of 4": (TILES, in_tiles([0, 7, 8, 30], 24, 4), (32, 24)),
    "tiles of 8": (TILES, in_tiles([5, 6, 11], 64, 8), (32, 64)),
    "tiles of 16": (TILES, in_tiles([1, 9], 64, 16), (64, 64)),
    "tiles of 32": (TILES, in_tiles([2], 64, 32), (64, 64)),
    "row rates": (RATES, uneven((64, 128), 0), (64, 128)),
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_every_coding_is_taken_where_it_is_shortest_and_comes_back(name: str) -> None:
    coding, support, shape = STRUCTURED[name]
    form = written(support, shape)
    assert form[0] is coding
    assert form == best(support, shape)
    assert read(form, len(support), shape) == support


def test_every_coding_and_every_side_has_its_turn_above() -> None:
    forms = [(coding, written(support, shape)[1][:1]) for coding, support, shape in STRUCTURED.values()]
    assert {coding for coding, _ in forms} == {ALL, BITMAP, GAPS, ROWS, TILES, RATES}
    assert {side for coding, side in forms if coding is TILES} == {b"\x04", b"\x08", b"\x10", b"\x20"}


@pytest.mark.parametrize("shape", TINY, ids=str)
def test_every_support_of_a_tiny_tensor_takes_the_shortest_form_and_comes_back(shape: Shape) -> None:
    for support in supports(math.prod(shape)):
        form = written(support, shape)
        assert form == best(support, shape)
        assert read(form, len(support), shape) == support


@pytest.mark.parametrize("last", range(4))
def test_every_support_of_4_by_4_comes_back(last: int) -> None:
    ends = [index for bit, index in ((1, 14), (2, 15)) if last & bit]
    for support in itertools.chain([[]], supports(14)):
        if support + ends:
            form = written(support + ends, (4, 4))
            assert read(form, len(support + ends), (4, 4)) == support + ends


@pytest.mark.parametrize("shape", TINY, ids=str)
def test_every_longer_form_of_a_tiny_support_is_refused(shape: Shape) -> None:
    for support in supports(math.prod(shape)):
        least = best(support, shape)
        for form in forms(support, shape):
            if form != least:
                with pytest.raises(DeltaError, match="not in the shortest form"):
                    read(form, len(support), shape)


@pytest.mark.parametrize("shape", [(2, 3), (9,)], ids=str)
def test_a_tiny_form_with_one_bit_changed_is_refused_or_says_something_else(shape: Shape) -> None:
    for support in supports(math.prod(shape)):
        coding, data = written(support, shape)
        for bit in range(8 * len(data)):
            changed = coding, bytes(octet ^ (bit // 8 == at) << bit % 8 for at, octet in enumerate(data))
            said = accepted(changed, len(support), shape)
            assert said is None or (said != support and written(said, shape) == changed)


@pytest.mark.parametrize("name", STRUCTURED)
def test_a_structured_form_with_one_bit_changed_is_refused_or_says_something_else(name: str) -> None:
    _, support, shape = STRUCTURED[name]
    coding, data = written(support, shape)
    for at, octet in enumerate(data[:100]):
        changed = coding, data[:at] + bytes([octet ^ 1 << at % 8]) + data[at + 1 :]
        said = accepted(changed, len(support), shape)
        assert said is None or (said != support and written(said, shape) == changed)


def accepted(form: Form, count: int, shape: Shape) -> list[int] | None:
    try:
        return read(form, count, shape)
    except DeltaError:
        return None


@pytest.mark.parametrize("density", [0.002, 0.02, 0.1, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("shape", [(16, 32), (3, 4, 20), (300,)], ids=str)
def test_random_supports_take_the_shortest_form_and_come_back(shape: Shape, density: float) -> None:
    support = random_support(shape, density, 3) or [0]
    form = written(support, shape)
    assert form == best(support, shape)
    assert read(form, len(support), shape) == support


@pytest.mark.parametrize(("name", "longer"), [("tiles of 8", TILES), ("row rates", GAPS), ("rows", GAPS)])
def test_a_longer_form_of_a_structured_support_is_refused(name: str, longer: IndexCoding) -> None:
    _, support, shape = STRUCTURED[name]
    least = best(support, shape)
    others = [form for form in forms(support, shape) if form[0] is longer and form != least]
    assert others
    for form in others:
        with pytest.raises(DeltaError, match="not in the shortest form, which takes"):
            read(form, len(support), shape)


@pytest.mark.parametrize(("height", "coding"), [(8_192, RATES), (8_193, GAPS)])
def test_row_rates_are_written_for_at_most_two_rows_per_coordinate(height: int, coding: IndexCoding) -> None:
    columns = 4096
    dense = np.arange(0, columns, 2)
    sparse = np.arange(1, columns // 2 + 1) * 3 * columns + np.arange(columns // 2) * 1013 % columns
    support = [*dense.tolist(), *sparse.tolist()]
    form = written(support, (height, columns))
    assert form[0] is coding
    assert read(form, columns, (height, columns)) == support


def test_a_tie_goes_to_the_lower_number() -> None:
    lengths = {coding: len(data) for coding, data in forms([3, 4, 9], (4, 5))}
    assert lengths == {BITMAP: 3, GAPS: 3, RATES: 8}
    assert written([3, 4, 9], (4, 5))[0] is BITMAP


def test_another_parameter_than_the_best_is_refused() -> None:
    assert read((GAPS, b"\x01\x09"), 1, (2000,)) == [5]
    for k in (0, 2, 3):
        with pytest.raises(DeltaError, match="not in the shortest form"):
            read((GAPS, bytes([k]) + in_words([5], k)), 1, (2000,))


def altered_rates(change: Callable[[bytearray], None]) -> bytes:
    data = bytearray(written(*STRUCTURED["row rates"][1:])[1])
    change(data)
    return bytes(data)


def _longer_counts(data: bytearray) -> None:
    data[1:5] = (int.from_bytes(data[1:5], "little") + 1).to_bytes(4, "little")


def _counts_beyond_the_end(data: bytearray) -> None:
    data[1:5] = b"\xff" * 4


def _one_more_byte(data: bytearray) -> None:
    data.append(0)


def _another_parameter(data: bytearray) -> None:
    data[0] += 1


@pytest.mark.parametrize("change", [_longer_counts, _counts_beyond_the_end, _one_more_byte, _another_parameter])
def test_altered_row_rates_are_refused(change: Callable[[bytearray], None]) -> None:
    _, support, shape = STRUCTURED["row rates"]
    with pytest.raises(DeltaError):
        read((RATES, altered_rates(change)), len(support), shape)


@pytest.mark.parametrize(
    ("coding", "data", "count", "shape", "said"),
    [
        (GAPS, b"\x01\x09", 0, (2000,), "0 coordinates are announced for a tensor of 2000"),
        (GAPS, b"\x01\x09", 2001, (2000,), "2001 coordinates are announced for a tensor of 2000"),
        (GAPS, b"\x01\x09", (1 << 64) - 1, (2000,), "are announced for a tensor of 2000"),
        (GAPS, b"", 1, (2000,), "the coordinates' bytes are missing"),
        (GAPS, b"\x00" + in_words([9], 0), 1, (9,), "the sum of 1 numbers is not below 9"),
        (GAPS, b"\x00" + in_words([4, 4], 0), 2, (9,), "coordinate 9 of 9"),
        (GAPS, b"\x01\x09\x00", 1, (2000,), "bytes after them"),
        (BITMAP, b"\x55\x01", 4, (9,), "the bitmap does not name 4 of 9"),
        (BITMAP, b"\x55\x01", 6, (9,), "the bitmap does not name 6 of 9"),
        (BITMAP, b"\x55\x03", 6, (9,), "the bitmap does not name 6 of 9"),
        (BITMAP, b"\x55", 4, (9,), "index coding 2 does not fit 1 bytes for 4 of 9"),
        (BITMAP, b"\x55\x01\x00", 5, (9,), "index coding 2 does not fit 3 bytes"),
        (ALL, b"\x00", 9, (9,), "index coding 1 does not fit 1 bytes"),
        (ALL, b"", 8, (9,), "not in the shortest form"),
        (ROWS, b"\x00\x01", 4, (2, 3), "index coding 4 does not fit 2 bytes for 4 of 6"),
        (TILES, b"", 16, (8, 8), "index coding 5 does not fit 0 bytes"),
        (TILES, b"\x02\x00\x01", 4, (8, 8), "index coding 5 does not fit 3 bytes"),
        (TILES, b"\x04\x00\x01", 16, (64,), "index coding 5 does not fit 3 bytes"),
        (TILES, b"\x04\x00\x01", 16, (8, 6), "index coding 5 does not fit 3 bytes"),
        (TILES, b"\x04\x00\x01", 17, (8, 8), "index coding 5 does not fit 3 bytes"),
        (RATES, b"\x00\x01\x00\x00", 4, (8, 8), "the rows' counts are missing"),
        (RATES, b"\x00\x01\x00\x00\x00\x03", 1, (9,), "index coding 6 does not fit 6 bytes"),
        (RATES, b"\x00\x01\x00\x00\x00\x05\x01", 2, (2, 3), "the rows hold 1 coordinates, 2 are announced"),
        (RATES, b"\x00\x01\x00\x00\x00\x30\x01", 4, (2, 3), "the rows hold 4 coordinates, 4 are announced"),
        (RATES, b"\x00\x01\x00\x00\x00\x0a\x19", 2, (2, 3), "column 3 of 3"),
        (RATES, b"\x00\x01\x00\x00\x00\x0a\x24", 2, (2, 3), "a number is not below 3"),
    ],
)
def test_bytes_that_do_not_fit_what_they_announce_are_refused(
    coding: IndexCoding, data: bytes, count: int, shape: Shape, said: str
) -> None:
    with pytest.raises(DeltaError, match=said):
        read((coding, data), count, shape)


@pytest.mark.parametrize("coding", [0, 7, 99, 1 << 63])
def test_an_unknown_coding_is_refused(coding: int) -> None:
    with pytest.raises(DeltaError, match=f"index coding {coding} does not fit"):
        indices.read(coding, memoryview(b"\x01\x09"), 1, (2000,))


@pytest.mark.parametrize("coding", [BITMAP, GAPS, ROWS, TILES, RATES])
def test_a_count_far_beyond_the_bytes_takes_no_memory(coding: IndexCoding) -> None:
    tracemalloc.start()
    with pytest.raises(DeltaError):
        read((coding, b"\x20" + bytes(50)), 1 << 30, (1 << 20, 1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_a_coordinate_beyond_2_to_the_32_comes_back() -> None:
    shape = (1 << 20, 1 << 20)
    for support in ([(1 << 40) - 1], [0, (1 << 40) - 1], in_rows([7], 1 << 20)):
        form = written(support, shape)
        assert len(form[1]) < 20
        assert read(form, len(support), shape) == support


def test_coordinates_that_do_not_increase_are_refused_whatever_made_them(monkeypatch: pytest.MonkeyPatch) -> None:
    coding, data = written(in_rows([1, 3], 7), (9, 7))
    assert coding is IndexCoding.ROWS
    monkeypatch.setattr(indices.rows, "from_rows", lambda rows, columns: np.full(len(rows) * columns, 5))
    with pytest.raises(DeltaError, match="strictly increasing"):
        indices.read(coding, memoryview(data), 14, (9, 7))
