"""Adam on a support's values, with what sparse training adds to a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fedsparse.adapters import Attachment
from fedsparse.config import StageSettings
from fedsparse.sparsity import soft_threshold_
from fedsparse.training.losses import proximal_gradient_


class Optimiser:
    """Steps of one stage: Adam (https://arxiv.org/abs/1412.6980), rates that rise and fall, proximal terms.

    Args:
        attachment: holds values and gradients.
        stage: rates, warm-up and L1.
        proximal: μ of FedProx.
    """

    def __init__(self, attachment: Attachment, stage: StageSettings, proximal: float) -> None:
        self._attachment = attachment
        self._stage = stage
        self._proximal = proximal
        self._step = 0
        self._steps = 1
        pairs = ((attachment.sparse, stage.learning_rate), (attachment.whole, stage.head_learning_rate))
        self._peaks = [(values, rate) for values, rate in pairs if len(values)]
        self._adam = torch.optim.Adam(
            [{"params": [values], "lr": rate} for values, rate in self._peaks], fused=True
        )

    def plan(self, steps: int) -> None:
        """Say how many steps the stage has."""
        self._steps = steps

    def step(self) -> None:
        """Change the values by their gradients, and clear those."""
        share = share_of_rate(self._step, self._steps, self._stage.warm_up)
        for group, (values, rate) in zip(self._adam.param_groups, self._peaks, strict=True):
            group["lr"] = rate * share
            if self._proximal:
                assert values.grad is not None  # noqa: S101 - kept by the attachment
                proximal_gradient_(values.grad, values, self._proximal)
        self._adam.step()
        if self._stage.l1:
            soft_threshold_(self._attachment.sparse.data, self._stage.learning_rate * share * self._stage.l1)
        self._attachment.clear_gradients()
        self._step += 1

    def moved(self, attachment: Attachment, came_from: Tensor) -> Optimiser:
        """Return what goes on with another support.

        Args:
            attachment: of the other support.
            came_from: for each of its scattered values where it was before, or -1: then its moments start at 0.
        """
        other = Optimiser(attachment, self._stage, self._proximal)
        other._step, other._steps = self._step, self._steps
        stays = came_from >= 0
        for old, new in ((self._attachment.sparse, attachment.sparse), (self._attachment.whole, attachment.whole)):
            if (moments := self._adam.state.get(old)) and len(new):
                other._adam.state[new] = _carried(moments, new, came_from, stays, whole=new is attachment.whole)
        return other


def share_of_rate(step: int, steps: int, warm_up: float) -> float:
    """Return the share of the peak learning rate in one of ``steps``: up during the warm-up, then down to 0.

    Adam starts anew in every stage, and its first steps follow single batches at full length; what the last steps
    add is noise.
    """
    rising = max(1, round(steps * warm_up))
    return min((step + 1) / rising, (steps - step) / (steps - rising + 1))


def _carried(
    moments: Any, values: nn.Parameter, came_from: Tensor, stays: Tensor, *, whole: bool
) -> dict[str, Any]:
    carried: dict[str, Any] = {"step": moments["step"].clone()}
    for name in ("exp_avg", "exp_avg_sq"):
        if whole:
            carried[name] = moments[name].clone()
        else:
            carried[name] = torch.zeros_like(values.data)
            carried[name][stays] = moments[name][came_from[stays]]
    return carried
