"""Exterior Navier-Lame: fundamental solutions, vector waves, exact solutions, and their method.

Works without DOLFINx.
"""
