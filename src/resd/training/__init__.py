"""The stream loop and what surrounds it."""
