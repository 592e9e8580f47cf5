"""The training loop over the stream of problems, and its setup, checkpoints and logs."""
