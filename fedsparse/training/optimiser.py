"""Adam on a support's values, with what sparse training adds to a step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fedsparse.adapters import Attachment
from fedsparse.config import StageSettings
from fedsparse.sparsity import soft_threshold_
from fedsparse.training.losses import proximal_gradient_

_DECAYS = (0.9, 0.999)
_EPSILON = 1e-8


class Adam:
    """Adam (https://arxiv.org/abs/1412.6980) on one vector, in which every coordinate counts its own steps.

    With a common count, the moments of a coordinate that joins late would be taken for settled ones, and it would
    move up to 6.6 times as far as the rate says.

    Args:
        values: with their gradient, (k,).

    Attributes:
        first: moving average of the gradients, (k,).
        second: moving average of their squares, (k,).
        steps: that each coordinate has taken, (k,).
    """

    def __init__(self, values: nn.Parameter) -> None:
        self.values = values
        self.first, self.second, self.steps = (torch.zeros_like(values.data) for _ in range(3))

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change the values by their gradient."""
        gradient = self.values.grad
        assert gradient is not None  # noqa: S101 - kept by the attachment
        self.steps.add_(1)
        self.first.lerp_(gradient, 1 - _DECAYS[0])
        self.second.mul_(_DECAYS[1]).addcmul_(gradient, gradient, value=1 - _DECAYS[1])
        mean, square = (
            moment / torch.expm1(self.steps * math.log(decay)).neg_()
            for moment, decay in zip((self.first, self.second), _DECAYS, strict=True)
        )
        self.values.addcdiv_(mean, square.sqrt_().add_(_EPSILON), value=-rate)

    def moved(self, values: nn.Parameter, came_from: Tensor) -> Adam:
        """Return what goes on with other values; ``came_from`` as for :meth:`Optimiser.moved`."""
        other, stays = Adam(values), came_from >= 0
        for name in ("first", "second", "steps"):
            getattr(other, name)[stays] = getattr(self, name)[came_from[stays]]
        return other


class Optimiser:
    """Steps of one stage: rates that rise and fall, Adam, proximal terms.

    The L1 step has the threshold rate · λ, apart from Adam's scaling, as weight decay in AdamW
    (https://arxiv.org/abs/1711.05101). λ is thus measured against Adam's steps, which hardly exceed 1 in units of
    the rate: a value is 0 where its gradients agree less than λ, whatever their size, and 1 leaves next to none.

    Args:
        attachment: holds values and gradients.
        stage: rates, warm-up and L1.
        steps: of the stage.
        proximal: μ of FedProx.

    Attributes:
        done: steps so far.
        sparse: of the scattered values.
        whole: of the dense tensors' values.
    """

    def __init__(self, attachment: Attachment, stage: StageSettings, steps: int, proximal: float) -> None:
        self._attachment = attachment
        self._stage = stage
        self._steps = steps
        self._proximal = proximal
        self.done = 0
        self.sparse, self.whole = Adam(attachment.sparse), Adam(attachment.whole)

    @property
    def nnz(self) -> int:
        """Number of coordinates in training."""
        return len(self.sparse.values) + len(self.whole.values)

    def is_finite(self) -> bool:
        """Return whether no value is NaN or infinite."""
        return all(bool(torch.isfinite(adam.values).all()) for adam in (self.sparse, self.whole))

    def step(self) -> None:
        """Change the values by their gradients, and clear those."""
        stage = self._stage
        share = share_of_rate(self.done, self._steps, stage.warm_up)
        for adam, rate in ((self.sparse, stage.learning_rate), (self.whole, stage.head_learning_rate)):
            if self._proximal:
                assert adam.values.grad is not None  # noqa: S101 - kept by the attachment
                proximal_gradient_(adam.values.grad, adam.values, self._proximal)
            adam.step(rate * share)
        if stage.l1:
            soft_threshold_(self.sparse.values.data, stage.learning_rate * share * stage.l1)
        self._attachment.clear_gradients()
        self.done += 1

    def moved(self, attachment: Attachment, came_from: Tensor) -> Optimiser:
        """Return what goes on with another support.

        Args:
            attachment: of the other support.
            came_from: for each of its scattered values where it was before, or -1: then its moments start at 0.
        """
        other = Optimiser(attachment, self._stage, self._steps, self._proximal)
        other.done = self.done
        other.sparse = self.sparse.moved(attachment.sparse, came_from)
        everything = torch.arange(len(attachment.whole), device=came_from.device)
        other.whole = self.whole.moved(attachment.whole, everything)
        return other


def share_of_rate(step: int, steps: int, warm_up: float) -> float:
    """Return the share of the peak learning rate in one of ``steps``: up during the warm-up, then down to 0.

    Adam starts anew in every stage, and its first steps follow single batches at full length; what the last steps
    add is noise.
    """
    rising = max(1, int(steps * warm_up))
    return min((step + 1) / rising, (steps - step) / (steps - rising + 1))
