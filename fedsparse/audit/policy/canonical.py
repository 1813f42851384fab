"""A policy's text as the ledger keeps it: every key with its value, defaults included, in one fixed form."""

from __future__ import annotations

import json

from pydantic import ValidationError

from fedsparse.config import EgressSettings
from fedsparse.errors import ConfigError

_MOST_BYTES = 1 << 20


def canonical_bytes(settings: EgressSettings) -> bytes:
    """Return the JSON whose SHA-256 names the policy: keys sorted, absent limits null, UTF-8."""
    fields = settings.model_dump(mode="json")
    return (json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse_policy(data: bytes) -> EgressSettings:
    """Read what :func:`canonical_bytes` wrote.

    Raises:
        ConfigError: it is not exactly that, or of another release's format.
    """
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"a policy of {len(data)} bytes is longer than {_MOST_BYTES}")
    try:
        settings = EgressSettings.model_validate(json.loads(data))
        canonical = canonical_bytes(settings) == data
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ConfigError(f"the bytes are no egress policy of this release: {told}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"the bytes are no egress policy: {error}") from None
    if not canonical:
        raise ConfigError("the policy is not in canonical form: other bytes say the same")
    return settings
