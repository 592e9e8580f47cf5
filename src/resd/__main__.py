"""`python -m resd` and `torchrun -m resd` are the console script."""

from resd.cli import main

if __name__ == "__main__":
    main()
