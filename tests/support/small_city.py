"""A hand-made population with places, districts and faults whose every number is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clients.core.population import Places, Population, Realised
from clients.sources.custom import custom_population

DISTRICTS = ("North", "South</script>")


def small_city(clients: int = 24) -> Population:
    """Return clients on two rows (districts); features rise along them; even clients have noisy labels and readings."""

    def client(k: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(k)
        size = 4 + 2 * (k % 3)
        return random.normal(size=(size, 2)) + 4 * (k // 2) / clients, np.arange(size) % 2 + (k % 2)

    base = custom_population(client, [4 + 2 * (k % 3) for k in range(clients)], outputs=3, feature_shape=(2,))

    def realised(asked: np.ndarray) -> Realised:
        even = (asked % 2 == 0).astype(float)
        return Realised({"flip": even / 2, "stuck": even * asked / clients}, {"flip": even, "stuck": 2 * even})

    def masks(asked: np.ndarray) -> dict[str, list[np.ndarray]]:
        sizes = base.sizes[asked]
        return {"flip": [np.arange(n) < (n // 2 if k % 2 == 0 else 0) for n, k in zip(sizes, asked, strict=True)]}

    return replace(
        base,
        name="small city",
        places=lambda asked: Places(asked // 2 * 1.0, asked % 2 * 3.0, asked % 2),
        districts=DISTRICTS,
        client_name=lambda k: f"site {k}",
        realised=realised,
        masks=masks,
        facts={"requested_label_js": 0.3, "reached_label_js": 0.2987},
    )
