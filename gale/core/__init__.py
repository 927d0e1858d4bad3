"""Decisions, and nothing else: no clock, no chance, no socket, no log; the standard library only."""
