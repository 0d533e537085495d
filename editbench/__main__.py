"""``python -m editbench``: the command line."""

from editbench.cli import main

if __name__ == "__main__":
    main()
