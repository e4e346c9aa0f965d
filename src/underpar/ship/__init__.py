"""Source code as data: the program of a recipe as one file, and how long that is."""

from underpar.ship.count import counting
from underpar.ship.pack import packed, readable, write

__all__ = ["counting", "packed", "readable", "write"]
