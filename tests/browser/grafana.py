"""docs/prometheus/grafana-dashboard.json against Grafana's own types: read into them, written again, nothing is lost.

Grafana itself is in no Debian. Its foundation SDK (PyPI) has the types of its dashboards, panels and queries, generated
from Grafana's schema: a field that Grafana does not know is dropped there, and named here. Run by script/test-web.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

FILE = Path(__file__).resolve().parents[2] / "docs" / "prometheus" / "grafana-dashboard.json"


def unknown(written: Any, read: Any, path: str = "") -> Iterator[str]:
    """Where something of ours is missing or different once Grafana's types have had it."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            if key not in read:
                yield f"{path}.{key} is no field of Grafana's"
            else:
                yield from unknown(value, read[key], f"{path}.{key}")
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for place, pair in enumerate(zip(written, read, strict=True)):
            yield from unknown(*pair, f"{path}[{place}]")
    elif written != read:
        yield f"{path}: {written!r} became {read!r}"


def through_grafana(document: Any) -> Any:
    return json.loads(JSONEncoder().encode(dashboard.Dashboard.from_json(document)))


def main() -> None:
    plugins.register_default_plugins()
    document = json.loads(FILE.read_text("utf-8"))
    assert not (found := list(unknown(document, through_grafana(document)))), found
    # That it would be noticed: a field of a panel, of a query and of an option that do not exist.
    wrong = json.loads(FILE.read_text("utf-8"))
    wrong["panels"][0]["nosuch"] = wrong["panels"][0]["targets"][0]["nosuch"] = 1
    wrong["panels"][0]["options"]["nosuch"] = 1
    noticed = list(unknown(wrong, through_grafana(wrong)))
    assert len(noticed) == 3, noticed
    print(f"dashboard: {len(document['panels'])} panels, every field known to Grafana's types")


if __name__ == "__main__":
    main()
