"""underpar: train a language model under a byte budget, and prove its score.

Read ``underpar.pipeline`` first: it is the whole line on one screen.
"""

__version__ = "0.1.0"
