"""Mean-field Transformers: tokens, measures on spheres, Gaussian closure, statics."""
