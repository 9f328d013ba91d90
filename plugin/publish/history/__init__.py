"""HistoryRead over our server, straight from the historian (OPC 10000-11, OPC 10000-13).

``answering`` takes a request apart, ``past`` reads one node's values from the store, and ``raw``, ``processed`` and
``events`` make an answer of them, a page at a time; ``arithmetic`` is the aggregates.
"""
