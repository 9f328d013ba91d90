"""foretag, a tag from the future: plant tags in, predictions out, both as OPC UA."""

from importlib.metadata import version

__version__ = version("foretag")
