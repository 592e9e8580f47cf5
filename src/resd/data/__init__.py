"""The tasks' data: fetching, generating, converting, splitting and showing it (`resd data`)."""

from resd.data.origins import ORIGINS, Origin, origins_of
from resd.data.prepare import Prepared, prepare

__all__ = ["ORIGINS", "Origin", "Prepared", "origins_of", "prepare"]
