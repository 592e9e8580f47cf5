"""Untrusted Python, run where it can neither see nor change anything.

Expected answers never go in: a program is given arguments, and gives back JSON that the parent parses and
grades.
"""

from resd.environments.sandbox.jobs import Job, Limits, Result
from resd.environments.sandbox.sandbox import Sandbox

__all__ = ["Job", "Limits", "Result", "Sandbox"]
