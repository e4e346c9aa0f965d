"""Training: optimizers by role, schedules, averaging, the loop and its checkpoints."""
