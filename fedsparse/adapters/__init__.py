"""What is trained: the frozen base model, its adapter space, and the adapter on top (needs torch)."""

from fedsparse.adapters.adapter import Adapter
from fedsparse.adapters.attachment import Attachment
from fedsparse.adapters.bases import BaseModel, ImageReader, Task, TextReader, fingerprint, load_base
from fedsparse.adapters.build import build_adapter

__all__ = [
    "Adapter",
    "Attachment",
    "BaseModel",
    "ImageReader",
    "Task",
    "TextReader",
    "build_adapter",
    "fingerprint",
    "load_base",
]
