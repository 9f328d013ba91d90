"""What keeps the database in order: what is dropped and when, and how long there is room."""
