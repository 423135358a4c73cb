"""What every options dataclass shares.

Options are frozen, keyword-only dataclasses beside the component they configure. They check
themselves in `__post_init__` with `require`, naming the bare field; the scenario loader adds the section.
`__pydantic_config__: ClassVar = STRICT` makes one strict when it is read from a file.
"""

from __future__ import annotations

from typing import Any

STRICT: Any = {"extra": "forbid", "strict": True}
