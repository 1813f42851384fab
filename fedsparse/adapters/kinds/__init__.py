"""What each kind of adapter puts into a network."""

from fedsparse.adapters.kinds.injection import Injection, KindSpec
from fedsparse.adapters.kinds.select import inject

__all__ = ["Injection", "KindSpec", "inject"]
