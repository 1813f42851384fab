"""A federation in one process: the plants' own trainer, codec, admission and merging, without a network."""

from fedsparse.simulation.federation import Progress, federate
from fedsparse.simulation.plants import Stragglers
from fedsparse.simulation.population import draw_plants

__all__ = ["Progress", "Stragglers", "draw_plants", "federate"]
