"""Samples of closed time: chunks, roll-ups and compression; arithmetic alone, no database."""
