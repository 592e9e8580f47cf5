"""IFEval: instructions whose following can be checked by counting (Zhou et al., arXiv 2311.07911)."""

from resd.environments.ifeval.environment import IFEval
from resd.environments.ifeval.instructions import Instruction, parse_instruction
from resd.environments.ifeval.variants import variants

__all__ = ["IFEval", "Instruction", "parse_instruction", "variants"]
