"""Data of the tasks: fetched, generated, converted, split and shown. What `resd data` does."""

from resd.data.origins import ORIGINS, Origin, origins_of
from resd.data.prepare import Prepared, prepare

__all__ = ["ORIGINS", "Origin", "Prepared", "origins_of", "prepare"]
