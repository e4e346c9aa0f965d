"""Entropy coding: probabilities to integer frequencies to bits. No torch."""
