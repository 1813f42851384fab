"""site.toml: one plant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from fedsparse.config.data import AugmentationSettings, DataSettings
from fedsparse.config.identity import IdentitySettings
from fedsparse.config.model import BaseModelSettings
from fedsparse.config.names import Address, Name, Settings


class SiteSettings(Settings):
    """Which plant this is and which hub it dials.

    Attributes:
        name: as in the certificate.
        hub: "HOST:PORT", the only address that is dialled.
        identity: certificate, key and CA.
        approved: folder of the Flower app bundles that may run here, filled by `fedsparse client approve`; None
            lets the installed one run without that.
        proxy: "HOST:PORT" of an HTTP proxy that tunnels to the hub (CONNECT, RFC 9110); TLS passes it unopened.
    """

    name: Name
    hub: Address
    identity: IdentitySettings
    approved: Path | None = None
    proxy: Address | None = None


class TrainerSettings(Settings):
    """What the trainer may use of the machine."""

    threads: Annotated[int, Field(ge=1, le=256)] = 1


class MetricLimits(Settings):
    """The range in which a metric may leave the site."""

    minimum: float = 0.0
    maximum: float = 1.0


class EgressSettings(Settings):
    """What may leave: everything that is not named here is refused."""

    max_update_bytes: Annotated[int, Field(ge=1, le=1 << 30)] = 8 << 20
    max_density: Annotated[float, Field(gt=0, le=1)] = 0.05
    min_samples: Annotated[int, Field(ge=1)] = 16
    metrics: dict[str, MetricLimits] = Field(
        default_factory=lambda: {
            "holdout_balanced_accuracy": MetricLimits(),
            "train_loss": MetricLimits(maximum=1e6),
            "train_seconds": MetricLimits(maximum=1e6),
        }
    )


class SiteConfig(Settings):
    """site.toml: one plant.

    Attributes:
        base: where this site has the federation's base model, if that is none of the built-in ones.
    """

    site: SiteSettings
    base: BaseModelSettings | None = None
    data: DataSettings
    augmentation: AugmentationSettings = AugmentationSettings()
    trainer: TrainerSettings = TrainerSettings()
    egress: EgressSettings = EgressSettings()
    state: Path = Path("state")
