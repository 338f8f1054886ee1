"""`python -m daemon`: the same as the command `headwater`."""

from daemon.cli import main

if __name__ == "__main__":
    main()
