"""Text generation: one small protocol, several engines."""
