"""Which adapter: immutable versions with lineage, committed atomically."""

from fedsparse.registry.manifest import AdapterVersion, Contribution
from fedsparse.registry.store import Registry

__all__ = ["AdapterVersion", "Contribution", "Registry"]
