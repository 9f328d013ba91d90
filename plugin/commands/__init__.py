"""The commands, each thin: it calls a room and prints what that gives. :mod:`plugin.__main__` puts them together."""
