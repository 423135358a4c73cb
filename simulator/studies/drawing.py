"""When a study's page is drawn: seldom while runs are played, once when a processor has no more runs, and at the end.

The first drawing imports the statistics, more than a second, and reads the records of all ended runs. Later ones read
those that have ended since. So the drawing is begun while the last runs are played, and little is left for the end.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from simulator.studies.folder import StudyFolder

if TYPE_CHECKING:
    from dashboards.study.page import StudyPage

PAGE_SECONDS, PAGE_SHARE = 60.0, 0.01
"""The least seconds between two drawings while runs are played, and the largest share of the time that they take."""


@dataclass
class PageDrawing:
    """Draws the page of a study.

    Attributes:
        folder: the study's folder, whose table and facts are drawn.
        every: the least seconds between two drawings while all processes play.
    """

    folder: StudyFolder
    every: float = PAGE_SECONDS
    _page: StudyPage | None = None
    _due: float = field(init=False)
    _had_spare: bool = False

    def __post_init__(self) -> None:
        self._due = time.monotonic() + self.every

    def is_due(self, *, spare: bool) -> bool:
        """Return whether the page is to be drawn now.

        Args:
            spare: whether a process has no more runs, so that its processor is free.
        """
        return (spare and not self._had_spare) or time.monotonic() >= self._due

    def draw(self, *, spare: bool = False) -> None:
        """Draw the page while runs are played. What goes wrong stops no run: the drawing at the end raises it."""
        began = time.monotonic()
        self._had_spare = self._had_spare or spare
        with suppress(Exception):  # a full disk, a damaged record
            self.finish()
        now = time.monotonic()
        self._due = now + max(self.every, (now - began) / PAGE_SHARE)

    def finish(self) -> None:
        """Draw the page from the table, the facts and the records.

        Raises:
            RunFolderError: the page cannot be written, or the study cannot be read.
        """
        from dashboards.study.page import StudyPage

        self._page = self._page or StudyPage(self.folder.path)
        with self.folder.locked("page"):
            self._page.write()
