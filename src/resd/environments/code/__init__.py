"""Programs judged by running them: on standard input, as functions, or by the assertions of a test source."""

from resd.environments.code.environment import Code
from resd.environments.code.program import extract_program

__all__ = ["Code", "extract_program"]
