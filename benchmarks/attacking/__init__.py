"""Attacks on the link between plants and hub, against real processes on loopback."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "none")  # of the attackers; the attacked hub has its own
