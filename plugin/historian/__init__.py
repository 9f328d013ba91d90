"""Everything that speaks SQL: the schema, the store, the writer that feeds it, and the ring that scoring reads."""
