"""The algorithms: each selects a teacher context and an objective. traits.py lists them."""
