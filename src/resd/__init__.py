"""resd: post-training language models from rich feedback."""

__version__ = "0.1.0"
