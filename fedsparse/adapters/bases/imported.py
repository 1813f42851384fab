"""Any torch module that a function on this machine builds, named by its import path."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from torch import nn

from fedsparse.adapters.bases.model import BaseModel, fingerprint, try_out
from fedsparse.adapters.bases.readers import ImageReader
from fedsparse.errors import ModelError

_IMAGE_SIZE = 224


def load(name: str, factory: str, classes: int, image_size: int | None) -> BaseModel:
    """Call ``factory`` ("package.module:function") with the number of classes.

    It returns a module from images (n, 3, s, s), normalised as for ImageNet, to logits (n, classes). Whatever it
    initialises must be the same on every site, its classifier included: all its tensors are in the fingerprint.

    Raises:
        ModelError: the path names nothing that can be imported and called, the call fails, or what it returns is
            no torch module from images to one logit per class.
    """
    function = _function(factory)
    try:
        network = function(classes)
    except Exception as error:  # a foreign function raises what it likes
        raise ModelError(
            f"base.factory = {factory!r} failed for {classes} classes: {type(error).__name__}: {error}",
            "It gets the number of classes and returns a torch module",
        ) from None
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"base.factory = {factory!r} returned {type(network).__name__}, not a torch module",
            "It gets the number of classes and returns a torch module",
        )
    network.requires_grad_(False).eval()
    reader = ImageReader(image_size or _IMAGE_SIZE)
    base = BaseModel(name, fingerprint(network.state_dict()), nn.Identity(), network, 0, reader)
    return try_out(base, classes)


def _function(path: str) -> Callable[[int], object]:
    module, colon, name = path.partition(":")
    if not colon:
        raise ModelError(f"base.factory = {path!r} has no colon", 'Write "package.module:function"')
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing runs foreign code
        raise ModelError(f"base.factory = {path!r} cannot be imported: {error}", "Install its package") from None
    if not callable(function):
        raise ModelError(f"base.factory = {path!r} is no function", 'Write "package.module:function"')
    found: Callable[[int], object] = function
    return found
