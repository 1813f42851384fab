"""The operator's side: hub, strategy, evaluator and the supervisor that starts them."""
