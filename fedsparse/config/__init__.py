"""Typed settings, read from one TOML file per role and validated before anything starts."""

from fedsparse.config.data import AugmentationSettings, DataSettings, SiteDataSettings, require_source
from fedsparse.config.egress import (
    DAYS,
    POLICY_VERSION,
    DayLimits,
    EgressSettings,
    MetricLimits,
    RoundLimits,
    Window,
    zone_of,
)
from fedsparse.config.federation import (
    AggregationSettings,
    FederationConfig,
    FederationSettings,
    HubSettings,
    RoundSettings,
    RuleName,
    ServerSettings,
    TrainingDefaults,
    server_defaults,
    training_defaults,
)
from fedsparse.config.identity import IdentitySettings
from fedsparse.config.loading import Config, from_options, load
from fedsparse.config.model import BUILT_IN_MODELS, DENSITY_BY_KIND, AdapterSettings, BaseModelSettings
from fedsparse.config.names import Address, Column, Name
from fedsparse.config.probe import ProbeSettings
from fedsparse.config.simulate import PlantSettings, SimulateConfig, SimulatedTask
from fedsparse.config.site import (
    RouteSettings,
    SiteConfig,
    SiteSettings,
    TrainerSettings,
)
from fedsparse.config.solo import LANGUAGE_METRICS, TaskSettings, TrainConfig
from fedsparse.config.training import (
    AutomaticSettings,
    Densities,
    Density,
    MachineSettings,
    Metric,
    ObjectiveSettings,
    StageSettings,
    TrainSettings,
)

__all__ = [
    "BUILT_IN_MODELS",
    "DAYS",
    "DENSITY_BY_KIND",
    "LANGUAGE_METRICS",
    "POLICY_VERSION",
    "AdapterSettings",
    "Address",
    "AggregationSettings",
    "AugmentationSettings",
    "AutomaticSettings",
    "BaseModelSettings",
    "Column",
    "Config",
    "DataSettings",
    "DayLimits",
    "Densities",
    "Density",
    "EgressSettings",
    "FederationConfig",
    "FederationSettings",
    "HubSettings",
    "IdentitySettings",
    "MachineSettings",
    "Metric",
    "MetricLimits",
    "Name",
    "ObjectiveSettings",
    "PlantSettings",
    "ProbeSettings",
    "RoundLimits",
    "RoundSettings",
    "RouteSettings",
    "RuleName",
    "ServerSettings",
    "SimulateConfig",
    "SimulatedTask",
    "SiteConfig",
    "SiteDataSettings",
    "SiteSettings",
    "StageSettings",
    "TaskSettings",
    "TrainConfig",
    "TrainSettings",
    "TrainerSettings",
    "TrainingDefaults",
    "Window",
    "from_options",
    "load",
    "require_source",
    "server_defaults",
    "training_defaults",
    "zone_of",
]
