"""What runs outside the trainer: a small process that starts one confined child per job.

Everything here is started with `python -P -s -S` and no variables of ours, imports nothing but the standard
library, and holds neither programs nor results: those go through file descriptors from the parent to the
child and back.
"""
