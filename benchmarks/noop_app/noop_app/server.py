"""Flower's own FedAvg over eight bytes, with the time of each round's start in a file."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    """FedAvg that notes when each round starts."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Note the time and go on."""
        with Path(os.environ["NOOP_TIMES"]).open("a") as file:
            file.write(f"{time.monotonic()}\n")
        return super().configure_train(server_round, arrays, config, grid)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    plants = int(os.environ["NOOP_PLANTS"])
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=plants, min_available_nodes=plants)
    arrays = ArrayRecord([np.zeros(1)])
    strategy.start(grid, arrays, num_rounds=int(os.environ["NOOP_ROUNDS"]) + 1)
