"""The demonstration: a simulated plant and foretag beside it, as two processes, and what came of it in figures."""
