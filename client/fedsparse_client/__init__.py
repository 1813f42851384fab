"""The plant's side: gateway, warm trainer, Flower app and the agent that starts them."""
