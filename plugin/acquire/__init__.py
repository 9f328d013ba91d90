"""Everything that speaks OPC UA as a client: session, subscription, decoding, backfill, browse.

:class:`OpcUaSource` is the room's :class:`plugin.protocols.Source`; read :mod:`plugin.acquire.source` first.
"""
