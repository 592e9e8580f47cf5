"""BouncingSim: programs that predict where bouncing polygons are (Sun et al., DELTA).

Of the published families, MULTIOBJ is here: several polygons that do not rotate, in one container at rest.
It is what the RESD paper trains and tests on, and can be simulated exactly. Families with rotating balls,
moving containers or gravity are left out: their truth is what one rigid-body engine does step by step, so it
can be reproduced only with that very engine.
"""

from resd.environments.bouncingsim.environment import BouncingSim
from resd.environments.bouncingsim.programs import ProgramError, check_program, extract_program
from resd.environments.bouncingsim.scene import simulate

__all__ = ["BouncingSim", "ProgramError", "check_program", "extract_program", "simulate"]
