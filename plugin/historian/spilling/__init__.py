"""What waits on disk while the database is away."""
