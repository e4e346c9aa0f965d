"""Text compressed and decompressed with the probabilities that the score is computed from."""
