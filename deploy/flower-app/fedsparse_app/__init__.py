"""No code of its own: a site runs what the site installed."""
