"""`fedsparse server up` and `fedsparse client up`: one role in the foreground, until it is done or interrupted."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.console import Console

from fedsparse import config
from fedsparse.cli.figures import count_text
from fedsparse.cli.progress import ProgressView, say
from fedsparse.events import EventFollower
from fedsparse.processes import interrupt_on_terminate


def run_server(path: Path, console: Console) -> None:
    """Run the operator's side until the last round is committed."""
    from fedsparse_server.supervisor import ServerSupervisor

    settings = config.load(path, config.FederationConfig)
    interrupt_on_terminate()
    supervisor = ServerSupervisor(path.resolve(), settings, partial(say, console))
    follower = EventFollower(settings.state / "events.jsonl")
    list(follower.new())  # what an earlier run told is history
    try:
        supervisor.start()
        plants = count_text(settings.rounds.min_plants, "plant")
        say(console, f"hub listens on {settings.hub.listen}; waiting for {plants}")
        with ProgressView(console, settings.rounds.count) as view:

            def watch() -> None:
                for event in follower.new():
                    view.handle(event)

            supervisor.run(watch)
        say(console, f"done: fedsparse registry list {settings.state / 'registry'}")
    finally:
        supervisor.stop()


def run_client(path: Path, console: Console) -> None:
    """Run one plant until interrupted."""
    from fedsparse_client.agent import Agent

    settings = config.load(path, config.SiteConfig)
    interrupt_on_terminate()
    agent = Agent(path.resolve(), settings, partial(say, console))
    try:
        agent.start()
        agent.run()
    finally:
        agent.stop()
