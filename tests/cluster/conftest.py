"""Every test in this folder that starts nodes gets the mark `process`."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name == "test_cluster.py":
            item.add_marker(pytest.mark.process)
            item.add_marker(pytest.mark.timeout(900))
