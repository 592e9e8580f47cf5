"""Text from weights: one small protocol, several engines."""
