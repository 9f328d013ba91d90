"""What is kept in memory of the newest samples, and the windows that models read of it."""
