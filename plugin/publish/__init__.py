"""Results leave here: as nodes of foretag's own OPC UA server, and, where allowed, into the plant's server."""
