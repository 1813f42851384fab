"""What may leave: deny by default, one rule identifier per refusal."""

from __future__ import annotations

from hashlib import sha256

from fedsparse.config import EgressSettings
from fedsparse.delta import AdapterSpace, Operation, RoundUpdate, SparseDelta
from fedsparse.errors import EgressRefusedError


class EgressPolicy:
    """The site's own limits; neither hub nor strategy can widen them.

    Args:
        settings: the ``[egress]`` table of site.toml.
    """

    def __init__(self, settings: EgressSettings) -> None:
        self._settings = settings
        self.sha256 = sha256(settings.model_dump_json().encode()).digest()
        self.max_update_bytes = settings.max_update_bytes

    def evaluate(
        self, update: RoundUpdate, payload: bytes, delta: SparseDelta | None, space: AdapterSpace
    ) -> None:
        """Return if the update may leave.

        Args:
            update: decoded from ``payload``.
            payload: the exact bytes.
            delta: decoded from the update, or None where it holds a reason.
            space: the adapter space of ``delta``.

        Raises:
            EgressRefusedError: names the rule, the value and the limit.
        """
        limits = self._settings
        if len(payload) > limits.max_update_bytes:
            raise EgressRefusedError("bytes", f"{len(payload)} bytes, the limit is {limits.max_update_bytes}")
        self._evaluate_metrics(update)
        if delta is None:
            return
        if delta.operation is not Operation.ADD:
            raise EgressRefusedError("operation", "only additions may leave")
        if update.samples < limits.min_samples:
            raise EgressRefusedError(
                "min-samples", f"{update.samples} samples are behind it, the least is {limits.min_samples}"
            )
        if delta.nnz / space.size > limits.max_density:
            raise EgressRefusedError(
                "density", f"{delta.nnz} of {space.size} coordinates, the limit is {limits.max_density:.2%}"
            )

    def _evaluate_metrics(self, update: RoundUpdate) -> None:
        for name, value in update.metrics.items():
            limit = self._settings.metrics.get(name)
            if limit is None:
                raise EgressRefusedError("metric-name", f"the metric {name!r} is not on the list")
            if not limit.minimum <= value <= limit.maximum:
                raise EgressRefusedError(
                    "metric-range", f"{name} = {value}, allowed are {limit.minimum} to {limit.maximum}"
                )
