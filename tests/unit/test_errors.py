from __future__ import annotations

import inspect

import pytest

from fedsparse import errors
from fedsparse.errors import EgressRefusedError, FedsparseError, HubUnreachableError, LinkError


def test_an_error_says_what_is_wrong_and_then_what_to_do() -> None:
    assert str(FedsparseError("the disk is full", "Free some space")) == "the disk is full. Free some space"


def test_an_error_without_a_remedy_says_only_what_is_wrong() -> None:
    assert str(FedsparseError("the disk is full")) == "the disk is full"


def test_every_error_belongs_to_the_family_and_explains_itself() -> None:
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        assert issubclass(kind, FedsparseError), name
        assert kind.__doc__, name


def test_a_refusal_of_the_gate_carries_its_rule() -> None:
    error = EgressRefusedError("density", "too many coordinates", "Send less")
    assert (error.rule, str(error)) == ("density", "too many coordinates. Send less")


def test_a_hub_out_of_reach_is_a_link_error() -> None:
    with pytest.raises(LinkError):
        raise HubUnreachableError("nothing answers")
