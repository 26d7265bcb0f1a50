"""This machine's own sensors, through psutil: one reading of each per call, no state kept here.

A metric that this machine does not have is left out. Metrics that count since boot end in `_total`.
"""

from __future__ import annotations

from typing import Final

import psutil

_CPU_CHIPS: Final = ("cpu_thermal", "coretemp", "k10temp", "zenpower", "acpitz", "soc_thermal")
"""Names that kernels give to the CPU's sensor, the Raspberry Pi's first."""


def read_sensors(disk_path: str = "/") -> dict[str, float]:
    """Metric to value. Units are in the names; cpu_temperature_celsius only where there is a sensor."""
    return {
        **_temperature(),
        **_load(),
        **_memory(),
        **_disk(disk_path),
        **_network(),
    }


def _temperature() -> dict[str, float]:
    chips = psutil.sensors_temperatures()
    for name in (*_CPU_CHIPS, *sorted(chips)):
        for sensor in chips.get(name, []):
            return {"cpu_temperature_celsius": float(sensor.current)}
    return {}


def _load() -> dict[str, float]:
    one, five, fifteen = psutil.getloadavg()
    return {"load_1m": one, "load_5m": five, "load_15m": fifteen}


def _memory() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {"memory_used_percent": memory.percent, "memory_available_bytes": float(memory.available)}


def _disk(path: str) -> dict[str, float]:
    usage = psutil.disk_usage(path)
    values = {"disk_used_percent": usage.percent, "disk_free_bytes": float(usage.free)}
    counters = psutil.disk_io_counters()
    if counters is not None:
        values["disk_read_bytes_total"] = float(counters.read_bytes)
        values["disk_written_bytes_total"] = float(counters.write_bytes)
    return values


def _network() -> dict[str, float]:
    """Loopback is left out: it would count what the cluster's own nodes say to each other here."""
    counters = {name: one for name, one in psutil.net_io_counters(pernic=True).items() if name != "lo"}
    return {
        "network_received_bytes_total": float(sum(one.bytes_recv for one in counters.values())),
        "network_sent_bytes_total": float(sum(one.bytes_sent for one in counters.values())),
    }
