"""The comparisons of the paper, and our own, with the lab model: one command each, results as data."""
