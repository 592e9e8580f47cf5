"""Pure functions on tensors: divergences, weights and policy-gradient losses."""
