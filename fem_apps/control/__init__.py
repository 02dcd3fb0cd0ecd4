"""Control layer: steer a forward problem to a target."""
