"""One small file per algorithm: which context, which objective."""
