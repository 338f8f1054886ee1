"""Signed 8 KB pushes through 1, 2 and 4 daemons on one PostgreSQL, each for a branch of its own: deliveries a second.

Daemons, clients and the server share this machine's processors.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from ingest import measured, push, running
from support import ROUNDS, engines, folder, make_repository, middle, report, served

COUNTS = (1, 2, 4)
NAMES = tuple(f"octo/data{number}" for number in range(max(COUNTS)))


def rate(url: str, path: Path) -> float:
    """Deliveries a second by one client, whose body is the file ``path``."""
    return measured(url, path.read_bytes())[0]


def together(urls: list[str], bodies: list[Path]) -> float:
    """Deliveries a second through all of them, a client in a process of its own for each."""
    pairs = zip(urls, bodies, strict=False)
    commands = [[sys.executable, __file__, url, str(body)] for url, body in pairs]
    clients = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    return sum(float(client.communicate()[0]) for client in clients)


def through(count: int, path: Path, api_url: str, server: engines.Server, bodies: list[Path]) -> float:
    """The second of two rounds: the first warms."""
    path.mkdir()
    storage = server.url(server.take())
    with ExitStack() as stack:
        # "info" is how the harness learns that a daemon without a file of its own listens.
        nodes = (running(path / f"node-{n}", api_url, NAMES, level="info", storage=storage) for n in range(count))
        urls = [stack.enter_context(node) for node in nodes]
        together(urls, bodies)
        return together(urls, bodies)


def main() -> None:
    server = engines.Server()
    try:
        with folder() as path:
            repo = make_repository(path / "small.git", 10)
            bodies = []
            for name in NAMES:
                payload = json.loads(push(repo.head() or ""))
                payload["repository"]["full_name"] = name
                bodies.append(path / name.replace("/", "-"))
                bodies[-1].write_text(json.dumps(payload))
            rates: dict[int, list[float]] = {count: [] for count in COUNTS}
            with served(dict.fromkeys(NAMES, repo.path)) as github:
                for turn in range(ROUNDS):
                    for count in COUNTS:
                        rates[count].append(through(count, path / f"{turn}-{count}", github.url, server, bodies))
    finally:
        server.close()
    one = middle(rates[1])
    against = {str(count): round(middle(rates[count]) / one, 2) for count in COUNTS[1:]}
    report("nodes", deliveries_a_second_through_one=round(one), against_one=against)


if __name__ == "__main__":
    if sys.argv[1:]:
        print(rate(sys.argv[1], Path(sys.argv[2])))
    else:
        main()
