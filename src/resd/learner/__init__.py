"""Weights, batches, teachers and the optimizer."""
