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
from pathlib import Path
from typing import Final, Literal, get_args, get_origin

import msgspec

from appliance import limits
from appliance.addresses import is_loopback, join_address, parse_members, split_address
from appliance.errors import ConfigurationError
from appliance.sections import (
    AUTO,
    ClientOptions,
    ClusterOptions,
    JournalOptions,
    LogOptions,
    NodeOptions,
    PeerOptions,
    Section,
    SecurityOptions,
    StorageOptions,
    WatchOptions,
    WebOptions,
)
from appliance.units import Size, parse_duration, parse_size

CONFIGURATION_DIRECTORY: Final = Path("/etc/raftberry")
ENVIRONMENT_PREFIX: Final = "RAFTBERRY_"
RUNTIME_DIRECTORY: Final = "RUNTIME_DIRECTORY"
"""Set by systemd for a service that has one."""

SOCKET_NAME: Final = "raftberry.sock"
LOG_LEVELS: Final = ("debug", "info", "warning", "error")

DEFAULT_PORTS: Final = {"client": 7440, "peer": 7441, "web": 7442}

NEAREST_KEYS: Final = 3
"""Named where a key is like none of them."""

_MS: Final = 1_000_000
_STORE_SIZE_MIN: Final = 64 * limits.MIB
_JOURNAL_SIZE_MIN: Final = 4 * limits.ENTRY_BYTES_MAX


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

    def listening(self, advertised_host: str) -> Config:
        """The same with its addresses settled: those that are auto, and where other machines find this node.

        advertised_host: the host they know it by; empty: the cluster was never opened to them.
        """
        everywhere = "0.0.0.0" if advertised_host and not self.security.insecure else "127.0.0.1"
        settled: dict[str, Section] = {}
        for section, port in DEFAULT_PORTS.items():
            options = getattr(self, section)
            if options.address == AUTO:
                options = msgspec.structs.replace(options, address=f"{everywhere}:{port}")
            if section == "peer" and advertised_host and not options.advertise:
                _, peer_port = split_address(options.address, what="peer.address")
                options = msgspec.structs.replace(options, advertise=join_address(advertised_host, peer_port))
            settled[section] = options
        return msgspec.structs.replace(self, **settled)

    @property
    def is_reachable(self) -> bool:
        """Whether a port listens beyond loopback; of addresses that are settled."""
        addresses = (self.client.address, self.peer.address, self.web.address)
        return not all(is_loopback(split_address(address, what="address")[0]) for address in addresses)

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
        if self.peer.address == AUTO:
            return self.listening("").advertised_peer_address
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
    if not values.get(("client", "socket")) and environment.get(RUNTIME_DIRECTORY):
        values["client", "socket"] = f"{environment[RUNTIME_DIRECTORY].partition(':')[0]}/{SOCKET_NAME}"
    config = _build(values)
    if not config.client.socket:
        values["client", "socket"] = str(config.data / SOCKET_NAME)
        config = _build(values)
    _check(config)
    return config


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
    except (tomllib.TOMLDecodeError, RecursionError) as error:
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
        hint = _nearest(section, list(_SECTIONS)) or f"; known are {', '.join(sorted(_SECTIONS))}"
        raise ConfigurationError(f"{source}: unknown section {section!r}{hint}")


def _key_hint(section: str, key: str) -> str:
    """What may have been meant: a key of this section, one of another, or something near."""
    everywhere = [f"{name}.{field}" for name in _SECTIONS for field in _section_fields(name)]
    near = difflib.get_close_matches(f"{section}.{key}", everywhere, n=NEAREST_KEYS, cutoff=0)
    return (
        _nearest(key, list(_section_fields(section)))
        or _nearest(key, everywhere)
        or f"; the nearest are {', '.join(near)}; `man raftberry.toml` has all"
    )


def _nearest(word: str, known: list[str]) -> str:
    """Empty: nothing is like it."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else ""


def _convert(source: str, section: str, key: str, value: object, *, is_text: bool) -> object:
    """The value of one key in its field's type. is_text: from flags or environment, where all is text."""
    fields = _section_fields(section)
    if key not in fields:
        raise ConfigurationError(f"{source}: unknown key '{section}.{key}'{_key_hint(section, key)}")
    try:
        if is_text and isinstance(value, str) and key == "initial_members":
            value = parse_members(value)
        return msgspec.convert(value, fields[key].type, strict=not is_text, dec_hook=_parse_unit)
    except (msgspec.ValidationError, ValueError) as error:
        choices = get_args(fields[key].type) if get_origin(fields[key].type) is Literal else ()
        problem = f"{value!r} is not one of {', '.join(choices)}" if choices else str(error)
        raise ConfigurationError(f"{source}: {section}.{key}: {problem}") from error


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
    closed = config.listening("")
    addresses = {
        "client.address": closed.client.address,
        "peer.address": closed.peer.address,
        "web.address": closed.web.address,
    }
    _check_addresses(
        addresses, is_plaintext_allowed=config.security.insecure or not config.cluster.initial_members
    )
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


def _check_addresses(addresses: Mapping[str, str], *, is_plaintext_allowed: bool) -> None:
    """Founders that are named have no CA in common yet: beyond loopback they are plaintext, or refused."""
    seen: dict[str, str] = {}
    for what, address in addresses.items():
        host, _ = split_address(address, what=what)
        if address in seen:
            raise ConfigurationError(f"{what}: {address} is already {seen[address]}; give each its own port")
        seen[address] = what
        if not is_loopback(host) and not is_plaintext_allowed:
            raise ConfigurationError(
                f"{what}: {address} can be reached from other machines, and founders named by initial_members have no "
                "encryption and no identity check; start one node alone and let the others join (`raftberry invite`), "
                "or allow it with --insecure (security.insecure = true), or listen on 127.0.0.1"
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
    own = members.get(config.node.name, "")
    if (
        own
        and config.peer.address == AUTO
        and not is_loopback(split_address(own, what="cluster.initial_members")[0])
    ):
        raise ConfigurationError(
            f"cluster.initial_members: this node is {own}, but listens for the others on "
            f"{config.listening('').peer.address} only; set peer.address (--peer-address 0.0.0.0:PORT), and "
            "client.address where clients are on other machines"
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
