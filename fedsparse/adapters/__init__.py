"""What is trained: the frozen base model, its adapter space, and the adapter on top (needs torch)."""

from fedsparse.adapters.base import AdapterSpec, BaseModel, fingerprint, load_base, model_bytes
from fedsparse.adapters.delta import DeltaAdapter, Support
from fedsparse.adapters.space import build_space, dense_tensors

__all__ = [
    "AdapterSpec",
    "BaseModel",
    "DeltaAdapter",
    "Support",
    "build_space",
    "dense_tensors",
    "fingerprint",
    "load_base",
    "model_bytes",
]
