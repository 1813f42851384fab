"""The egress gate: the only process of a plant that dials out, and only to the hub.

On loopback it is the SuperLink that the plant's own SuperNode knows; off the site it is a client of the link.
Flower's protocol ends here, at both sides of the wall: what crosses is a RoundTask one way and a recorded
RoundUpdate the other, never a Flower message, an object or an app bundle.
"""
