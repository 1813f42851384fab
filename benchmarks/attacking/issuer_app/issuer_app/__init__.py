"""Tasks on demand."""
