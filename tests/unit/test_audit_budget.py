from __future__ import annotations

import math

import pytest

from fedsparse.audit import EntryKind
from fedsparse.audit.budget import (
    ATTEND_BYTES,
    DESCRIBE_BYTES,
    bits_of,
    budget_of,
    envelope_bytes,
    messages_in,
)
from fedsparse.v1 import ledger_pb2, link_pb2


def entry(
    sequence: int, kind: EntryKind, size: int = 0, round: int = 0, samples: int = 0, at: int = 0
) -> ledger_pb2.LedgerEntry:
    return ledger_pb2.LedgerEntry(
        sequence=sequence,
        kind=ledger_pb2.EntryKind.ValueType(kind),
        payload_bytes=size,
        round=round,
        samples=samples,
        time_unix_ms=at,
    )


UPDATES = [
    entry(1, EntryKind.UPDATE, 1000, 1, 50),
    entry(2, EntryKind.REFUSED, 9000, 2, 1),
    entry(3, EntryKind.REASON, 8, 2),
    entry(4, EntryKind.UPDATE, 2000, 3, 40),
]


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_message_is_one_of_fewer_than_two_to_its_bits(size: int) -> None:
    strings = sum(256**length for length in range(size + 1))  # of size bytes or fewer
    assert strings <= 2 ** bits_of(size)
    assert math.log2(strings) > bits_of(size) - 1 - 1e-9


def test_only_what_left_counts_and_the_fewest_images_divide_all_of_it() -> None:
    found = budget_of(UPDATES)
    assert found.bits == 8001 + 65 + 16001
    assert found.samples == 40
    assert found.per_image == math.ceil(found.bits / 40)


def test_without_an_update_no_figure_per_image_is_given() -> None:
    assert budget_of([entry(1, EntryKind.REASON, 8, 1)]).per_image is None
    assert budget_of([]).bits == 0


def test_rounds_add_up_to_the_whole_and_calls_are_in_what_left_so_far() -> None:
    found = budget_of([entry(9, EntryKind.ATTEND), *UPDATES])
    assert [one.round for one in found.rounds] == [1, 2, 3]
    assert found.rounds[0].cumulative == bits_of(ATTEND_BYTES) + bits_of(1000)
    assert found.rounds[-1].cumulative == found.bits == sum(one.bits for one in found.kinds)


def test_rounds_that_begin_again_are_another_run() -> None:
    found = budget_of([entry(1, EntryKind.UPDATE, 10, 2, 5), entry(2, EntryKind.UPDATE, 10, 1, 5)])
    assert [(one.run, one.round) for one in found.rounds] == [(1, 2), (2, 1)]


def test_calls_count_as_the_longest_that_the_protocol_allows() -> None:
    describe = link_pb2.DescribeRequest(protocol=2**32 - 1)
    attend = link_pb2.AttendRequest(
        protocol=2**32 - 1,
        space=bytes([1]) * 32,
        session=bytes([1]) * 16,
        held=["f" * 64] * 16,
        partial="f" * 64,
        partial_bytes=2**64 - 1,
    )
    assert describe.ByteSize() == DESCRIBE_BYTES
    assert attend.ByteSize() == ATTEND_BYTES


def test_what_a_ledger_says_went_with_a_call_counts() -> None:
    calls = [entry(1, EntryKind.DESCRIBE, 12_000), entry(2, EntryKind.ATTEND, 3)]
    assert [one.bytes for one in messages_in(calls)] == [12_000, ATTEND_BYTES]


def test_the_envelope_is_no_longer_than_stated() -> None:
    entries = 1 << 20
    origin = f"fedsparse/{'p' * 63}/{'0' * 16}"
    note = f"{origin}\n{entries}\n{'A' * 44}\n\n— {origin} {'A' * 92}\n".encode()
    update = link_pb2.Update(
        task_id="f" * 64,
        round_update=bytes(2),
        ledger_hash=bytes(32),
        uploaded_sha256=bytes(32),
        checkpoint=link_pb2.Checkpoint(
            note=note,
            ledger_key=bytes(32),
            key_signature=bytes(72),
            entry=2**63,
            old_size=2**63,
            inclusion=[bytes(32)] * 20,
            consistency=[bytes(32)] * 21,
        ),
    )
    head = link_pb2.UploadHead(task_id="f" * 64, sha256=bytes(32), size=2**64 - 1)
    upload = link_pb2.UploadPart(head=head)
    assert update.ByteSize() - 2 + upload.ByteSize() <= envelope_bytes(entries)


def test_timing_is_bounded_only_for_a_resolution() -> None:
    entries = [entry(number, EntryKind.UPDATE, 10, 1, 5, at=number * 1000) for number in range(1, 5)]
    assert budget_of(entries).timing_bits is None
    slots = 3001
    exact = math.log2(math.comb(slots + 4, 4))
    found = budget_of(entries, 1).timing_bits
    assert found is not None
    assert exact <= found <= exact + 1.01


def test_what_cannot_be_read_is_named_not_counted() -> None:
    assert budget_of([None, *UPDATES]).unreadable == 1
