"""Serves one git repository under many names in a process of its own: `python many_standin.py REPOSITORY COUNT`.

Prints the URL, then on each line of its standard input how many requests and GraphQL points were used since.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from daemon.demo.standin import StandIn


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(path: str, count: int) -> None:
    with StandIn(token="ghp_TestTokenTestTokenTestTokenTestToken") as github:
        for number in range(count):
            github.add(f"octo/r{number:05}", Path(path))
        say(github.url)
        used = 0
        for _ in sys.stdin:
            now = github.limits.shape("graphql")["used"]
            say(json.dumps({"requests": len(github.requests), "points": now - used}))
            github.requests.clear()
            used = now


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
