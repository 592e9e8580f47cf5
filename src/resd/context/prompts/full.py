"""The wording for real models. (Placeholder until the full wording lands.)"""

from dataclasses import replace

from resd.context.prompts.compact import COMPACT

FULL = replace(COMPACT, name="full")
