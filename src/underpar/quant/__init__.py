"""Trained weights to integers: policy, calibration, GPTQ, the walk, late QAT on the same grid."""
