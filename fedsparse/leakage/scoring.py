"""Scores of single samples: how much an update speaks for having been trained on each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from numpy.typing import NDArray

from fedsparse.adapters import Adapter
from fedsparse.delta import SparseDelta, apply
from fedsparse.leakage.gradients import UpdateView
from fedsparse.leakage.membership import Scores
from fedsparse.training import Inputs
from fedsparse.training.inputs import in_batches

SCORES: Mapping[str, str] = {
    "loss": "low loss after the update",
    "drop": "loss before less loss after",
    "alignment": "the sample's gradient points as the update does",
}
"""Names of the scores, and what speaks for membership in each."""

_BATCH = 64


def score(
    adapter: Adapter,
    state: SparseDelta,
    update: SparseDelta,
    inputs: Inputs,
    labels: NDArray[np.int64],
) -> dict[str, Scores]:
    """Return each sample's scores by name, (n,); higher ones speak for membership.

    The loss alone (Yeom et al. 2018) tells of all rounds so far, and confuses easy samples with known ones. Its
    drop is calibrated by how hard each sample was before (Watson et al. 2022, https://arxiv.org/abs/2111.08440),
    and tells of this update. The cosine between the update and a sample's own gradient is what a server can do
    that sees updates (Li et al. 2022, https://arxiv.org/abs/2202.05363). Losses are means over the variants that
    training draws from, all of which an attacker who knows the augmentation can ask.

    Args:
        adapter: its state is changed.
        state: that the update starts from, operation SET.
        update: as it is sent, operation ADD.
        inputs: of n samples.
        labels: (n,).

    Raises:
        DeltaError: the update changes nothing.
        SpaceMismatchError: the three belong to different spaces.
    """
    before = _losses(adapter.load(state), inputs, labels)
    after = _losses(adapter.load(apply(state, update)), inputs, labels)
    aligned = _alignment(UpdateView(adapter, state, update), inputs, labels)
    return {"loss": -after, "drop": before - after, "alignment": aligned}


@torch.inference_mode()
def _losses(adapter: Adapter, inputs: Inputs, labels: NDArray[np.int64]) -> Scores:
    targets, total = torch.from_numpy(np.array(labels)), np.zeros(len(labels))
    for variant in range(inputs.variants):
        for batch in in_batches(len(labels), _BATCH):
            logits = adapter.network(*inputs.batch(batch, np.full(len(batch), variant)))
            total[batch] += F.cross_entropy(logits.double(), targets[batch], reduction="none").numpy()
    found: Scores = total / inputs.variants
    return found


def _alignment(view: UpdateView, inputs: Inputs, labels: NDArray[np.int64]) -> Scores:
    targets, found = torch.from_numpy(np.array(labels)), np.zeros(len(labels))
    for (sample,) in in_batches(len(labels), 1):
        gradient = view.gradient(inputs.batch(np.array([sample])), targets[[sample]])
        found[sample] = float(F.cosine_similarity(gradient, view.direction, dim=0))
    return found
