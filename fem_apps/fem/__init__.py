"""What every problem shares: expressions, integrals, point evaluation, solvers, time steps."""
