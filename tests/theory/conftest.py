"""Theory is checked in one thread: exact cases need one order of summation, and small tensors need no more."""

import pytest


@pytest.fixture(autouse=True)
def _in_one_thread(one_thread: None) -> None:
    pass
