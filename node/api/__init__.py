"""The HTTP API: records in, the chain out, for people and other programs."""

from node.api.app import make_app
from node.api.parts import ApiParts

__all__ = ["ApiParts", "make_app"]
