"""Numerics that every problem shares."""
