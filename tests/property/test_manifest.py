from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.errors import RegistryError
from fedsparse.registry import AdapterVersion, Contribution
from tests.property.strategies import damaged

few = settings(max_examples=100, deadline=None)
many = settings(max_examples=300, deadline=None)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
numbers = st.integers(1, 10**9)
contributions = st.builds(Contribution, digests, numbers, numbers)


@st.composite
def manifests(draw: st.DrawFn) -> AdapterVersion:
    number = draw(numbers)
    return AdapterVersion(
        number=number,
        parents=(number - 1,) if number > 1 else (),
        base_fingerprint=draw(digests),
        space_fingerprint=draw(digests),
        state_sha256=draw(digests),
        round=draw(numbers),
        rule=draw(st.text(st.characters(codec="utf-8"), max_size=10)),
        contributions=tuple(draw(st.lists(contributions, max_size=3))),
        metrics=draw(
            st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), st.floats(-1e9, 1e9), max_size=3)
        ),
        created_unix_ms=draw(st.integers(0, 2**53)),
    )


@few
@given(manifests())
def test_every_manifest_comes_back(version: AdapterVersion) -> None:
    assert AdapterVersion.from_bytes(version.to_bytes()) == version


@many
@given(damaged(manifests().map(AdapterVersion.to_bytes)))
def test_a_damaged_manifest_is_refused_or_is_what_would_be_written(data: bytes) -> None:
    try:
        version = AdapterVersion.from_bytes(data)
    except RegistryError:
        return
    assert version.to_bytes() == data
