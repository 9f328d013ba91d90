"""A simulated plant behind a real OPC UA server; see :mod:`opcua_sim.server` and ``python -m opcua_sim --help``."""
