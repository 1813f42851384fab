"""Generated from protos/fedsparse/v1 by scripts/generate_protos.py: never edit."""
