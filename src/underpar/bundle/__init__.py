"""Source code as data: what a submission would ship, and how long that is."""

from underpar.bundle.pack import CODE_METHOD, code_bytes, pack_module
from underpar.bundle.ship import packed, readable, write

__all__ = ["CODE_METHOD", "code_bytes", "pack_module", "packed", "readable", "write"]
