"""No plant runs this."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Refuse."""
    raise RuntimeError("this app is not for plants")
