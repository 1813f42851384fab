"""What training minimises: pure functions from logits to a scalar, and the proximal term's gradient."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.errors import ConfigError, DataError

ClassificationLoss = Literal["cross-entropy", "generalised-cross-entropy"]

_FAR = 1e4  # in nats: a finite distance, at which a probability is 0 and a cost times a weight of 0 is 0

_IGNORED = -100  # torch's own mark for targets that do not count


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Turn labels (n,) into target probabilities (n, classes), which can be mixed."""
    return F.one_hot(labels, classes).to(torch.get_default_dtype())


def class_weights(labels: NDArray[np.int64], classes: int, *, power: float = 1.0) -> Tensor:
    """Return what a sample of each class counts in the loss, (classes,), proportional to count^-power.

    Args:
        labels: of all training samples, (n,); over them the mean weight is 1. An absent class has weight 0.
        power: 1 gives every class the same say, 0 every sample; between them is the usual compromise where
            classes of a handful of samples would dominate (https://arxiv.org/abs/1805.00932 takes 0.5).

    Raises:
        DataError: there are no labels, or some are not among the classes.
        ConfigError: ``power`` is outside [0, 1].
    """
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{len(labels)} labels cannot be weighted as {classes} classes")
    if not 0 <= power <= 1:
        raise ConfigError(f"power {power} of the class weights is out of range", "Choose one from 0 to 1")
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0)
    return torch.from_numpy(weights * len(labels) / (counts @ weights)).to(torch.get_default_dtype())


def classification_loss(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    kind: ClassificationLoss = "cross-entropy",
    label_smoothing: float = 0.0,
    q: float = 0.7,
    restricted: bool = False,
) -> Tensor:
    """Return the loss of a batch, (): the mean over its samples, weighted by class.

    For labels it is the cross-entropy of ``F.cross_entropy(logits, targets, weights)``; soft targets weigh as the
    labels that they mix. Generalised cross-entropy (1 - p^q) / q forgives wrong labels: a sample that the model
    contradicts pulls less (Zhang & Sabuncu 2018, https://arxiv.org/abs/1805.07836).

    Args:
        logits: (n, classes).
        targets: labels (n,), or probabilities (n, classes).
        weights: of :func:`class_weights`, (classes,); the batch must hold some weight.
        label_smoothing: share of each target that is spread evenly over the classes, in [0, 1].
        q: from cross-entropy, as it nears 0, to the mean absolute error, at 1.
        restricted: leave classes of weight 0 out of the softmax. A site that has none of a class could only learn
            that it never occurs, and would undo what others taught (FedRS, Li & Zhan 2021,
            https://doi.org/10.1145/3447548.3467254, with its scaling of absent classes taken to its limit). Where
            there is but one class, the softmax is over all: otherwise there would be nothing to learn.

    Raises:
        ConfigError: ``label_smoothing`` or ``q`` is out of range.
    """
    if not 0 <= label_smoothing <= 1:
        raise ConfigError(f"label smoothing {label_smoothing} is out of range", "Choose one from 0 to 1")
    if not 0 < q <= 1:
        raise ConfigError(f"q {q} of the generalised cross-entropy is out of range", "Choose one above 0, up to 1")
    classes = logits.shape[1]
    soft = targets if targets.ndim == 2 else one_hot(targets, classes)
    if restricted and torch.count_nonzero(weights) > 1:
        logits = logits - _FAR * (weights == 0)
    costs = -F.log_softmax(logits, 1)
    if kind == "generalised-cross-entropy":
        costs = -torch.expm1(-q * costs) / q
    smooth = (1 - label_smoothing) * soft + label_smoothing / classes
    return (smooth * costs * weights).sum() / (soft * weights).sum()


def language_loss(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats of each token given those before it, ().

    Args:
        logits: of the token after each position, (n, t, vocabulary).
        tokens: (n, t).
        mask: which tokens are to be predicted, (n, t), true or 1; the first of a sequence never is. Where none
            is, the loss is 0.
    """
    targets = tokens.masked_fill(~mask.bool(), _IGNORED)[:, 1:]
    total = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=_IGNORED, reduction="sum"
    )
    return total / (targets != _IGNORED).sum().clamp(min=1)


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return KL(teacher || student) in nats, (), of softened answers: it keeps a student near what it was.

    The mean over the batch times T², which keeps the gradients' size independent of the temperature
    (Hinton et al. 2015, https://arxiv.org/abs/1503.02531). The teacher gets no gradient.

    Args:
        student: logits, (n, classes).
        teacher: logits, (n, classes).
        temperature: T, divides both; higher tells more about the classes that are not the answer.

    Raises:
        ConfigError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ConfigError(f"temperature {temperature} is not positive", "Choose one above 0; 2 is usual")
    answer = F.log_softmax(student / temperature, 1)
    wanted = F.log_softmax(teacher.detach() / temperature, 1)
    return F.kl_div(answer, wanted, log_target=True, reduction="batchmean") * temperature**2


def proximal_gradient_(gradient: Tensor, offset: Tensor, strength: float) -> None:
    """Add the gradient of FedProx's term μ/2 · ‖θ - θ_received‖² to ``gradient``, in place.

    It holds a site near the state that it received (Li et al. 2020, https://arxiv.org/abs/1812.06127).

    Args:
        gradient: of the loss by θ, any shape.
        offset: θ - θ_received, the same shape.
        strength: μ, 0 or more.
    """
    gradient.add_(offset.detach(), alpha=strength)
