"""The store in a PostgreSQL database, and who of several gateways leads."""
