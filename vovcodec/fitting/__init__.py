"""Fitting one vector θ to one segment: objectives, the two stages, checkpoints. Encoder only."""
