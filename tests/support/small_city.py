"""A small population with places, districts and faults, in which every number is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clients.core.examples import CohortData, FaultCounts
from clients.core.population import Population
from clients.core.population_parts import Places
from clients.sources.custom import custom_population

DISTRICTS = ("North", "South</script>")


def small_city(clients: int = 24) -> Population:
    """Return clients on two rows (districts); features rise along them; even clients have noisy labels and readings."""

    def client(k: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(k)
        size = 4 + 2 * (k % 3)
        return random.normal(size=(size, 2)) + 4 * (k // 2) / clients, np.arange(size) % 2 + (k % 2)

    base = custom_population(client, [4 + 2 * (k % 3) for k in range(clients)], outputs=3, feature_shape=(2,))

    def cohort(some: np.ndarray) -> CohortData:
        even = (some % 2 == 0).astype(float)
        changed = {"flip": even / 2, "stuck": even * some / clients}
        return replace(base.cohort(some), fault_counts=FaultCounts(changed, {"flip": even, "stuck": 2 * even}))

    def masks(some: np.ndarray) -> dict[str, list[np.ndarray]]:
        sizes = base.sizes[some]
        return {"flip": [np.arange(n) < (n // 2 if k % 2 == 0 else 0) for n, k in zip(sizes, some, strict=True)]}

    return replace(
        base,
        federation=replace(
            base.federation,
            name="small city",
            places=lambda some: Places(some // 2 * 1.0, some % 2 * 3.0, some % 2),
            districts=DISTRICTS,
            client_name=lambda k: f"site {k}",
            record={"requested_label_js": 0.3, "reached_label_js": 0.2987},
        ),
        clients=replace(base.clients, cohort=cohort),
        history=replace(base.history, faults=("flip", "stuck"), masks=masks),
    )
