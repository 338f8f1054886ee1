"""What the commands share: exit codes, the configuration they read, JSON as they print it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from daemon.config import Config

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIG = 78

NO_REPOSITORY = "no repository is configured: add a [[repositories]] table to the configuration"

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


class Context:
    """Where the configuration is; read when a command needs it."""

    def __init__(self, explicit: str | None) -> None:
        self.explicit = explicit
        self.cwd = _working_folder()  # once: a daemon that reloads must not depend on the folder being still there

    def path(self) -> Path:
        """The file to read. Raises ConfigError when there is none."""
        from daemon.config import find

        return find(self.explicit, environ=os.environ, cwd=self.cwd)

    def load(self) -> Config:
        """The configuration as it is now. Raises ConfigError with every problem."""
        from daemon.config import load

        return load(self.path(), environ=os.environ, cwd=self.cwd)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=True))


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:  # it was deleted: absolute paths work all the same, relative ones will not be found
        return Path()
