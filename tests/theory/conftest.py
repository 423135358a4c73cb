"""Theory is checked in one thread: exact cases want one order of summation, and small tensors gain nothing by more."""

import pytest


@pytest.fixture(autouse=True)
def _in_one_thread(one_thread: None) -> None:
    pass
