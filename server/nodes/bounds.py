"""How large a reply may be: what is larger is refused before anything of it is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import ArrayRecord, RecordDict

NUMBERS_EACH, NUMBERS = 64, 1024
"""Most numbers in the metrics of a reply: for each client, and in all."""
CHARACTERS = 65_536
"""Most characters of names and texts in a reply."""
REQUEST_BYTES, REQUEST_CLIENTS = 16 << 20, 20_000
"""Most bytes of one HTTP request of a node, which the gateway before a SuperLink passes. A request has one object of a
message: a piece of an array, which Flower cuts at 5 MiB, or all numbers of a reply, for so many clients at these
bounds."""


@dataclass(frozen=True)
class ReplyBounds:
    """The most that a reply for K clients may hold.

    Attributes:
        array_bytes: bytes of arrays.
        numbers: numbers of metrics and configs.
        characters: characters of names and texts.
    """

    array_bytes: int
    numbers: int
    characters: int = CHARACTERS

    @classmethod
    def of(cls, clients: int, array_bytes: int, *, numbers_each: int = NUMBERS_EACH) -> ReplyBounds:
        """Return the bounds of a reply for `clients` clients."""
        return cls(array_bytes, NUMBERS + numbers_each * clients)

    def problem_of(self, content: RecordDict) -> str:
        """Return why a content is too large, as a clause; empty where it is not."""
        size = sum(len(array.data) for record in content.array_records.values() for array in record.values())
        if size > self.array_bytes:
            return f"it has {size:,} bytes of arrays, and at most {self.array_bytes:,} are expected"
        numbers = characters = 0
        for name, record in content.items():
            characters += len(name) + sum(map(len, record))
            for value in record.values() if not isinstance(record, ArrayRecord) else ():
                listed = value if isinstance(value, list) else [value]
                numbers += len(listed)
                characters += sum(len(text) for text in listed if isinstance(text, str | bytes))
        if numbers > self.numbers:
            return f"it has {numbers:,} metrics, and at most {self.numbers:,} are expected"
        if characters > self.characters:
            return f"it has {characters:,} characters of names and texts, and at most {self.characters:,} are expected"
        return ""
