"""The pytest plugin: one fixture. It is no part of the package, since that imports NumPy, and pytest loads plugins
at every start and before coverage is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def assert_gradient() -> Callable[..., Any]:
    """assert_gradient(layer, *arrays, seed=0): the gradients against measurements, failing with the report."""
    from xwb.adapters import pytest as adapter

    return adapter.assert_gradient
