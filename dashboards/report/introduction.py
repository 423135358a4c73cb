"""The text above the runs of a page: what they are for, what they show, and what is claimed of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Introduction:
    """A text above the runs of a page.

    Attributes:
        title: the page's title.
        lead: one sentence below it.
        sections: paragraphs by their headings.
        claims: (sentence, whether it holds, the same in words) each.
        changes: what was changed in the runs, as after `--set`.
    """

    title: str
    lead: str
    sections: Mapping[str, str]
    claims: Sequence[tuple[str, bool, str]] = ()
    changes: Sequence[str] = field(default_factory=tuple)

    def view(self) -> dict[str, Any]:
        """Return it as the page's script reads it."""
        return {
            "title": self.title,
            "lead": self.lead,
            "sections": [list(part) for part in self.sections.items()],
            "claims": [{"words": words, "holds": holds, "state": state} for words, holds, state in self.claims],
            "changes": list(self.changes),
        }

    def plain_words(self) -> list[str]:
        """Return its lines, for readers without JavaScript."""
        parts = [f"{heading}: {text}" for heading, text in self.sections.items()]
        claims = [f"- {words} ({state})" for words, _, state in self.claims]
        changed = [f"Changed: {', '.join(self.changes)}"] if self.changes else []
        return [self.title, self.lead, *changed, *parts, *claims]
