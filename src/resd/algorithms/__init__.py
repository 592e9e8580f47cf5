"""RESD, SDPO, GRPO, SRPO and RLSD: which context, which objective; traits.py is the table of them."""
