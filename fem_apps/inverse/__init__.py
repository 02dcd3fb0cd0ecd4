"""Inverse layer: estimate what is unknown from data."""
