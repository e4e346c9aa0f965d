"""Replacing what modules and classes offer."""

from __future__ import annotations

from typing import Any


def swap(owner: Any, **replacements: Any) -> None:
    """Set attributes of `owner`, a module or a class, to their stand-ins."""
    for name, value in replacements.items():
        setattr(owner, name, value)
