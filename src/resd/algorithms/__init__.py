"""RESD, SDPO and GRPO: which context, which objective."""
