"""RESD, SDPO, GRPO, SRPO and RLSD: which context, which objective."""
