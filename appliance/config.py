"""Options of a node: where they come from, what they mean, which values are refused.

Later sources win: built-in defaults, /etc/raftberry/raftberry.toml, /etc/raftberry/conf.d/*.toml by name,
RAFTBERRY_SECTION__KEY, flags. `--config FILE` replaces the files by that one.
Invariant: a Config that exists is complete and consistent; nothing below reads files or environment again.
Called once by `raftberry serve`, before anything else runs.
"""

from __future__ import annotations

import difflib
import socket
import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import msgspec

from appliance import limits
from appliance.errors import ConfigurationError
from appliance.units import Duration, Size, parse_duration, parse_size

CONFIGURATION_DIRECTORY: Final = Path("/etc/raftberry")
ENVIRONMENT_PREFIX: Final = "RAFTBERRY_"
LOG_LEVELS: Final = ("debug", "info", "warning", "error")

_MS: Final = 1_000_000
_STORE_SIZE_MIN: Final = 64 * limits.MIB
_JOURNAL_SIZE_MIN: Final = 4 * limits.ENTRY_BYTES_MAX


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the TOML file. Fields carry their unit, the key in the file (`name=`) does not."""


class NodeOptions(Section, frozen=True):
    """[node]"""

    name: str = ""
    """Unique in the cluster. Empty: the machine's host name, filled in by load()."""


class ClusterOptions(Section, frozen=True):
    """[cluster]"""

    initial_members: dict[str, str] = {}
    """Founders: name to peer address. Empty: this node founds a cluster of one."""

    heartbeat_ns: Duration = msgspec.field(default=Duration(150 * _MS), name="heartbeat")
    election_timeout_min_ns: Duration = msgspec.field(
        default=Duration(500 * _MS), name="election_timeout_min"
    )
    election_timeout_max_ns: Duration = msgspec.field(
        default=Duration(1_000 * _MS), name="election_timeout_max"
    )


class StorageOptions(Section, frozen=True):
    """[storage]"""

    data: str = "/var/lib/raftberry"
    size_max_bytes: Size = msgspec.field(default=Size(8 * limits.GIB), name="size_max")
    checkpoint_bytes: Size = Size(32 * limits.MIB)
    """Log bytes after which a checkpoint is due."""


class JournalOptions(Section, frozen=True):
    """[journal]"""

    size_max_bytes: Size = msgspec.field(default=Size(256 * limits.MIB), name="size_max")


class WatchOptions(Section, frozen=True):
    """[watch]"""

    keep_bytes: Size = Size(64 * limits.MIB)
    """Log kept behind the checkpoint for watches that resume."""


class ClientOptions(Section, frozen=True):
    """[client]"""

    address: str = "127.0.0.1:7440"


class PeerOptions(Section, frozen=True):
    """[peer]"""

    address: str = "127.0.0.1:7441"
    advertise: str = ""
    """Where other nodes reach this one; empty: at address, or at HOSTNAME.local where that is all of them."""


class WebOptions(Section, frozen=True):
    """[web]"""

    address: str = "127.0.0.1:7442"


class SecurityOptions(Section, frozen=True):
    """[security]"""

    insecure: bool = False
    """Listen beyond loopback without TLS."""

    require_tokens: bool = False
    """Ask for a token also where there is no TLS; with TLS it is always asked for."""


class LogOptions(Section, frozen=True):
    """[log]"""

    level: str = "info"


class Config(msgspec.Struct, frozen=True):
    """Everything a node is told. Made by load() only."""

    node: NodeOptions = NodeOptions()
    cluster: ClusterOptions = ClusterOptions()
    storage: StorageOptions = StorageOptions()
    journal: JournalOptions = JournalOptions()
    watch: WatchOptions = WatchOptions()
    client: ClientOptions = ClientOptions()
    peer: PeerOptions = PeerOptions()
    web: WebOptions = WebOptions()
    security: SecurityOptions = SecurityOptions()
    log: LogOptions = LogOptions()

    @property
    def data(self) -> Path:
        """The data directory."""
        return Path(self.storage.data)

    @property
    def founders(self) -> dict[str, str]:
        """Name to peer address of every founder; this node alone where none are named."""
        return dict(self.cluster.initial_members) or {self.node.name: self.advertised_peer_address}

    @property
    def advertised_peer_address(self) -> str:
        """Where this node says that it is. A name survives a new DHCP lease, an address does not."""
        named = self.peer.advertise or self.cluster.initial_members.get(self.node.name)
        if named:
            return named
        host, port = split_address(self.peer.address, what="peer.address")
        if host in ("0.0.0.0", "::"):
            return f"{socket.gethostname().partition('.')[0]}.local:{port}"
        return self.peer.address


Values = dict[tuple[str, str], object]
"""Checked values by (section, key)."""


def load(
    *,
    path: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[str, object],
    directory: Path = CONFIGURATION_DIRECTORY,
) -> Config:
    """Merge all sources. flags maps `section.key` to a value; None means not given.

    Raises ConfigurationError, whose text names the source, the key and what to do.
    """
    values: Values = {}
    for file in _files(path, directory):
        values.update(_from_file(file))
    values.update(_from_environment(environment))
    for name, value in flags.items():
        if value is not None:
            section, key = name.split(".")
            values[section, key] = _convert("command line", section, key, value, is_text=True)
    values[("node", "name")] = values.get(("node", "name")) or socket.gethostname().partition(".")[0]
    config = _build(values)
    _check(config)
    return config


def split_address(address: str, *, what: str) -> tuple[str, int]:
    """(host, port) of `HOST:PORT` or `[IPV6]:PORT`."""
    host, separator, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if not separator or not bare or (":" in bare and not is_bracketed):
        raise ConfigurationError(f"{what}: {address!r} is not HOST:PORT, as in 127.0.0.1:7440 or [::1]:7440")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ConfigurationError(f"{what}: port {port!r} of {address!r} is not a number from 1 to 65535")
    return bare, int(port)


def is_loopback(host: str) -> bool:
    """Whether nothing outside this machine can reach what listens there. Names other than localhost: no."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_members(text: str) -> dict[str, str]:
    """`NAME=HOST:PORT,NAME=HOST:PORT` as it stands in flags and environment."""
    members: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, separator, address = part.partition("=")
        if not separator or not name or not address:
            raise ValueError(f"{part!r} is not NAME=HOST:PORT")
        if name in members:
            raise ValueError(f"{name} is named twice")
        members[name] = address
    return members


def _files(path: Path | None, directory: Path) -> Iterator[Path]:
    if path is not None:
        yield path
        return
    main = directory / "raftberry.toml"
    if main.exists():
        yield main
    yield from sorted((directory / "conf.d").glob("*.toml"))


def _from_file(file: Path) -> Values:
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file}: not valid TOML: {error}") from error
    values: Values = {}
    for section, table in tables.items():
        _require_section(str(file), section)
        if not isinstance(table, dict):
            raise ConfigurationError(
                f"{file}: {section} is a section: write [{section}], then its keys below"
            )
        for key, value in table.items():
            values[section, key] = _convert(str(file), section, key, value, is_text=False)
    return values


def _from_environment(environment: Mapping[str, str]) -> Values:
    values: Values = {}
    for name, value in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
            _require_section(f"environment variable {name}", section)
            values[section, key] = _convert(f"environment variable {name}", section, key, value, is_text=True)
    return values


def _section_fields(section: str) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(_SECTIONS[section])}


def _require_section(source: str, section: str) -> None:
    if section not in _SECTIONS:
        raise ConfigurationError(f"{source}: unknown section {section!r}{_nearest(section, list(_SECTIONS))}")


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"


def _convert(source: str, section: str, key: str, value: object, *, is_text: bool) -> object:
    """The value of one key in its field's type. is_text: from flags or environment, where all is text."""
    fields = _section_fields(section)
    if key not in fields:
        elsewhere = [f"{name}.{field}" for name in _SECTIONS for field in _section_fields(name)]
        known = list(fields) if difflib.get_close_matches(key, list(fields), n=1, cutoff=0.5) else elsewhere
        raise ConfigurationError(f"{source}: unknown key '{section}.{key}'{_nearest(key, known)}")
    try:
        if is_text and isinstance(value, str) and key == "initial_members":
            value = parse_members(value)
        return msgspec.convert(value, fields[key].type, strict=not is_text, dec_hook=_parse_unit)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigurationError(f"{source}: {section}.{key}: {error}") from error


def _parse_unit(kind: type, value: object) -> object:
    """What msgspec calls for Size and Duration, which it does not know."""
    return parse_size(value) if kind is Size else parse_duration(value)


def _build(values: Values) -> Config:
    arguments: dict[str, dict[str, object]] = {name: {} for name in _SECTIONS}
    for (section, key), value in values.items():
        arguments[section][_section_fields(section)[key].name] = value
    return Config(**{name: _SECTIONS[name](**given) for name, given in arguments.items()})  # type: ignore[arg-type]


def _check(config: Config) -> None:
    """Relations between options; the first that does not hold raises."""
    _check_name("node.name", config.node.name)
    addresses = {
        "client.address": config.client.address,
        "peer.address": config.peer.address,
        "web.address": config.web.address,
    }
    _check_addresses(addresses, is_insecure=config.security.insecure)
    _check_members(config)
    _check_times(config.cluster)
    _check_sizes(config)
    if config.log.level not in LOG_LEVELS:
        raise ConfigurationError(f"log.level: {config.log.level!r} is not one of {', '.join(LOG_LEVELS)}")
    if config.data.exists() and not config.data.is_dir():
        raise ConfigurationError(f"storage.data: {config.data} is a file; name a directory")


def _check_name(what: str, name: str) -> None:
    is_plain = name.isprintable() and not set(name) & set("=,:*?[ ")
    if not is_plain or not 0 < len(name.encode()) <= limits.NAME_BYTES_MAX:
        rule = f"1 to {limits.NAME_BYTES_MAX} bytes, no space, control character or any of = , : * ? ["
        raise ConfigurationError(f"{what}: {name!r} is not a name: {rule}")


def _check_addresses(addresses: Mapping[str, str], *, is_insecure: bool) -> None:
    seen: dict[str, str] = {}
    for what, address in addresses.items():
        host, _ = split_address(address, what=what)
        if address in seen:
            raise ConfigurationError(f"{what}: {address} is already {seen[address]}; give each its own port")
        seen[address] = what
        if not is_loopback(host) and not is_insecure:
            raise ConfigurationError(
                f"{what}: {address} can be reached from other machines, without encryption or identity "
                "check; allow it with --insecure (security.insecure = true), or listen on 127.0.0.1"
            )


def _check_members(config: Config) -> None:
    members = config.cluster.initial_members
    if config.peer.advertise:
        split_address(config.peer.advertise, what="peer.advertise")
    owners: dict[str, str] = {}
    for name, address in members.items():
        _check_name("cluster.initial_members", name)
        split_address(address, what=f"cluster.initial_members: {name}")
        if address in owners:
            both = f"{name} and {owners[address]} both have {address}"
            raise ConfigurationError(f"cluster.initial_members: {both}")
        owners[address] = name
    if members and config.node.name not in members:
        names = ", ".join(sorted(members))
        raise ConfigurationError(
            f"cluster.initial_members: names {names}, but this node is {config.node.name!r}; "
            "set node.name (--name) to one of them, or add it"
        )


def _check_times(cluster: ClusterOptions) -> None:
    if cluster.heartbeat_ns * 2 > cluster.election_timeout_min_ns:
        raise ConfigurationError(
            f"cluster.heartbeat: {cluster.heartbeat_ns // _MS} ms is more than half of "
            f"cluster.election_timeout_min ({cluster.election_timeout_min_ns // _MS} ms): "
            "one late heartbeat would cause an election"
        )
    if cluster.election_timeout_min_ns >= cluster.election_timeout_max_ns:
        raise ConfigurationError(
            f"cluster.election_timeout_max: {cluster.election_timeout_max_ns // _MS} ms is not above "
            f"cluster.election_timeout_min ({cluster.election_timeout_min_ns // _MS} ms): votes would split"
        )


def _check_sizes(config: Config) -> None:
    storage, journal = config.storage, config.journal
    lower_bounds = (
        ("storage.size_max", storage.size_max_bytes, _STORE_SIZE_MIN),
        ("journal.size_max", journal.size_max_bytes, _JOURNAL_SIZE_MIN),
        ("storage.checkpoint_bytes", storage.checkpoint_bytes, limits.MIB),
    )
    for what, size_bytes, size_bytes_min in lower_bounds:
        if size_bytes < size_bytes_min:
            least = f"{size_bytes_min // limits.MIB}MiB"
            raise ConfigurationError(f"{what}: {size_bytes} bytes is below the least, {least}")
    half = journal.size_max_bytes // 2
    for what, size_bytes in (
        ("storage.checkpoint_bytes", storage.checkpoint_bytes),
        ("watch.keep_bytes", config.watch.keep_bytes),
    ):
        if size_bytes > half:
            raise ConfigurationError(f"{what}: {size_bytes} bytes is above half of journal.size_max, {half}")


_SECTIONS: Final[dict[str, type[Section]]] = {
    field.name: type(field.default) for field in msgspec.structs.fields(Config)
}
