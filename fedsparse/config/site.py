"""site.toml: one plant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from fedsparse.config.data import AugmentationSettings, SiteDataSettings
from fedsparse.config.egress import EgressSettings
from fedsparse.config.identity import IdentitySettings
from fedsparse.config.model import BaseModelSettings
from fedsparse.config.names import Address, Name, Settings
from fedsparse.config.probe import ProbeSettings


class RouteSettings(Settings):
    """Where the system counts what is sent to the hub; one of the two.

    Attributes:
        interface: a network interface that carries nothing else.
        counter: a file that holds what `nft -j list counters` prints, kept fresh by somebody who may ask nftables.
        name: of the counter in it.
    """

    interface: Annotated[str, Field(pattern=r"^[\w.@-]{1,15}$")] | None = None
    counter: Path | None = None
    name: str = "fedsparse_hub"

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.interface is None) == (self.counter is None):
            raise ValueError("name either interface or counter")
        return self


class SiteSettings(Settings):
    """Which plant this is and which hub it dials.

    Attributes:
        name: as in the certificate.
        hub: "HOST:PORT", the only address that is dialled.
        identity: certificate, key and CA.
        approved: folder of the Flower app bundles that may run here, filled by `fedsparse client approve`; None
            lets the installed one run without that.
        policy: file that says what may leave, in place of the table ``[egress]``; see :class:`EgressSettings`.
        payload_key: file of mode 0600 with 64 hex digits, under which the ledger's payloads are sealed on disk.
        retain_days: days after which the ledger's payloads are deleted; None keeps them. Entries and proofs stay.
        route: counters that the ledger is weighed against; without them nobody can tell whether all that was sent
            is in it.
        proxy: "HOST:PORT" of an HTTP proxy that tunnels to the hub (CONNECT, RFC 9110); TLS passes it unopened.
    """

    name: Name
    hub: Address
    identity: IdentitySettings
    approved: Path | None = None
    policy: Path | None = None
    proxy: Address | None = None
    payload_key: Path | None = None
    retain_days: Annotated[int, Field(ge=1, le=36500)] | None = None
    route: RouteSettings | None = None


class TrainerSettings(Settings):
    """What the trainer may use of the machine."""

    threads: Annotated[int, Field(ge=1, le=256)] = 1


class SiteConfig(Settings):
    """site.toml: one plant.

    Attributes:
        base: where this site has the federation's base model, if that is none of the built-in ones.
        egress: what may leave: the table, or what the file ``site.policy`` holds.
    """

    site: SiteSettings
    base: BaseModelSettings | None = None
    data: SiteDataSettings
    augmentation: AugmentationSettings = AugmentationSettings()
    trainer: TrainerSettings = TrainerSettings()
    egress: EgressSettings = EgressSettings()
    probe: ProbeSettings = ProbeSettings()
    state: Path = Path("state")

    @model_validator(mode="after")
    def _one_policy(self) -> Self:
        if self.site.policy is not None and "egress" in self.model_fields_set:
            raise ValueError("site.policy and the table egress both say what may leave; leave one of them out")
        return self
