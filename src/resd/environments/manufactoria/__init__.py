"""Manufactoria: programs for a robot that walks a graph and rewrites a tape (Sun et al., DELTA)."""

from resd.environments.manufactoria.environment import Manufactoria, extract_program
from resd.environments.manufactoria.family import Case, Family
from resd.environments.manufactoria.has import has_kind, has_predicate
from resd.environments.manufactoria.parser import ProgramError, parse_program
from resd.environments.manufactoria.program import Node, Outcome, Program
from resd.environments.manufactoria.solutions import solve_has

__all__ = [
    "Case",
    "Family",
    "Manufactoria",
    "Node",
    "Outcome",
    "Program",
    "ProgramError",
    "extract_program",
    "has_kind",
    "has_predicate",
    "parse_program",
    "solve_has",
]
