"""Fixtures of the process tests. Every test in this folder gets the mark `process`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.process.nodes import Cluster

FOLDER = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.process)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes clusters that are ended with the test, whatever happens."""
    made: list[Cluster] = []

    def make(*, size: int = 3) -> Cluster:
        made.append(Cluster(tmp_path / f"cluster-{len(made)}", size=size))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Three nodes that serve."""
    three = make_cluster()
    three.start()
    return three


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes for tests that neither kill nor restart them."""
    with Cluster(tmp_path_factory.mktemp("shared")) as three:
        three.start()
        yield three
