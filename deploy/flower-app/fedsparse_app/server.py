"""The operator's side."""

from fedsparse_server.app import app as app
