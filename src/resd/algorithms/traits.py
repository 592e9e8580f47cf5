"""What the rest of the program must know about an algorithm before it is built. No torch here."""

from __future__ import annotations

from typing import NamedTuple


class Traits(NamedTuple):
    """`keeps_playbook`: it has a context engine. `compares_tries`: it needs several attempts per problem.

    `distils_failures`: it learns before anything succeeds, as self-distillation at test time must.
    """

    keeps_playbook: bool = False
    has_teacher: bool = False
    compares_tries: bool = False
    distils_failures: bool = False


TRAITS = {
    "resd": Traits(keeps_playbook=True, has_teacher=True, distils_failures=True),
    "sdpo": Traits(has_teacher=True, distils_failures=True),
    "grpo": Traits(compares_tries=True),
    "srpo": Traits(has_teacher=True, compares_tries=True, distils_failures=True),
    "rlsd": Traits(has_teacher=True, compares_tries=True),
    "ace": Traits(keeps_playbook=True),
}
