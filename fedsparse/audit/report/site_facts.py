"""What the system cannot know and a site states itself: who is responsible, why, for whose data."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fedsparse.errors import ConfigError


class SiteFacts(BaseModel):
    """facts.toml: all of it text, none of it required; the names follow GDPR, Art. 30(1).

    Attributes:
        controller: name and contact details of the controller, and of a joint controller or representative.
        protection_officer: name and contact details of the data protection officer.
        site: name and address of the plant.
        hub_operator: who operates the hub.
        hub_country: where.
        purpose: of the processing.
        data_subjects: whose data it may be.
        data_categories: what data.
        personal_data: whether there is any, and why.
        transfers: to third countries, and their safeguards.
        retention: time limits for erasure.
        measures: technical and organisational measures besides those in the ledger.
        network: how the plant's network is divided, and what may leave it.
        monitoring: who watches the gateway's messages, and how soon.
        storage: what the ledger is kept on, and who is told before it is full.
        access: who may read the ledger.
        responsible: who answers for the plant's security.
        zones: the zone in which the data are, and how important that is.
        risks: which threats were considered.
        supply_chain: what is agreed with the hub's operator and other suppliers.
        review: when all of this is reviewed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    controller: str = ""
    protection_officer: str = ""
    site: str = ""
    hub_operator: str = ""
    hub_country: str = ""
    purpose: str = ""
    data_subjects: str = ""
    data_categories: str = ""
    personal_data: str = ""
    transfers: str = ""
    retention: str = ""
    measures: str = ""
    network: str = ""
    monitoring: str = ""
    storage: str = ""
    access: str = ""
    responsible: str = ""
    zones: str = ""
    risks: str = ""
    supply_chain: str = ""
    review: str = ""


def read_facts(path: Path) -> SiteFacts:
    """Read what a site states.

    Raises:
        ConfigError: the file cannot be read, or has other keys.
    """
    try:
        return SiteFacts.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from None
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
        known = ", ".join(SiteFacts.model_fields)
        raise ConfigError(
            f"{path} has keys that are not known or not text: {wrong}", f"Known are {known}"
        ) from None
