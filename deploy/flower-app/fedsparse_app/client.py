"""The plant's side."""

from fedsparse_client.app import app as app
