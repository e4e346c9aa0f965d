"""``python -m underpar`` and the ``underpar`` command are the same thing."""

from underpar.cli.main import main

if __name__ == "__main__":
    main()
