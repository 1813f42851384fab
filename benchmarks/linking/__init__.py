"""What the link costs: the processes that ``python -m benchmarks.link`` starts, and what it measures of them."""
