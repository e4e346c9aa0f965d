"""Text to few bytes and back, with the distributions that the score is made of."""
