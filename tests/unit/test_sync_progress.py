"""The progress bar of `headwater sync`, as a terminal is shown it."""

from __future__ import annotations

import io

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from daemon.commands.sync import _Bars


def test_a_phase_whose_total_is_not_known_does_not_keep_that_of_the_phase_before() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, color_system=None, width=80)
    with Progress(
        TextColumn("{task.description}"), MofNCompleteColumn(), console=console, auto_refresh=False
    ) as progress:
        bars = _Bars(progress)
        bars.start("octo/data@main")
        bars.show("head", 0, 1)
        bars.show("content", 2000, 0)
        progress.refresh()
        assert [task.total for task in progress.tasks] == [None]
    assert "octo/data@main content 2000/?" in shown.getvalue()
