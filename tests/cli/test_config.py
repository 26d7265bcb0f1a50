"""Where options come from, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.addresses import is_loopback, join_address, parse_members, split_address
from appliance.config import Config, load
from appliance.errors import ConfigurationError


def load_text(tmp_path: Path, text: str, **flags: object) -> Config:
    """A configuration from one file."""
    file = tmp_path / "raftberry.toml"
    file.write_text(text)
    named = {key.replace("__", "."): value for key, value in flags.items()}
    return load(path=file, environment={}, flags=named)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_text(tmp_path, text)
    return str(caught.value)


def test_later_sources_win(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "raftberry.toml").write_text(
        "[node]\nname='a'\n[log]\nlevel='error'\n[watch]\nkeep_bytes='1MiB'"
    )
    (tmp_path / "conf.d/20.toml").write_text("[log]\nlevel='warning'")
    (tmp_path / "conf.d/10.toml").write_text("[log]\nlevel='debug'\n[cluster]\nheartbeat='50ms'")
    environment = {"RAFTBERRY_CLUSTER__HEARTBEAT": "60ms", "RAFTBERRY_ENDPOINTS": "x", "HOME": "/"}
    config = load(
        path=None, environment=environment, flags={"node.name": "b", "log.level": None}, directory=tmp_path
    )
    assert (config.node.name, config.log.level) == ("b", "warning")
    assert (config.cluster.heartbeat_ns, config.watch.keep_bytes) == (60_000_000, 2**20)


def test_a_named_file_replaces_the_default_files(tmp_path: Path) -> None:
    (tmp_path / "raftberry.toml").write_text("[node]\nname='a'")
    other = tmp_path / "other.toml"
    other.write_text("[log]\nlevel='debug'")
    config = load(path=other, environment={}, flags={"node.name": "z"}, directory=tmp_path)
    assert (config.node.name, config.log.level) == ("z", "debug")


def test_defaults_are_complete_and_found_a_cluster_of_one(tmp_path: Path) -> None:
    config = load(path=None, environment={}, flags={"node.name": "pi-1"}, directory=tmp_path)
    assert config.founders == {"pi-1": "127.0.0.1:7441"}
    assert config.data == Path("/var/lib/raftberry")


def test_members_come_from_a_table_or_a_flag(tmp_path: Path) -> None:
    node = "[node]\nname='a'\n[peer]\naddress='127.0.0.1:1'\n"
    table = load_text(tmp_path, node + "[cluster.initial_members]\na='h:1'\nb='h:2'")
    flag = load_text(tmp_path, node, cluster__initial_members="a=h:1, b=h:2")
    assert table.founders == flag.founders == {"a": "h:1", "b": "h:2"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[cluster]\nhartbeat='1ms'", "unknown key 'cluster.hartbeat': did you mean 'heartbeat'?"),
        ("[node]\nkeep_byte=1", "unknown key 'node.keep_byte': did you mean 'watch.keep_bytes'?"),
        ("[clster]\n", "unknown section 'clster': did you mean 'cluster'?"),
        ("[cluster]\nheartbeat=5", "cluster.heartbeat: 5 is not a duration like '500ms'"),
        ("[storage]\nsize_max='big'", "storage.size_max: 'big' is not a size like '64MiB'"),
        ("[node]\nname=5", "node.name: Expected `str`, got `int`"),
        ("[security]\ninsecure='yes'", "security.insecure: Expected `bool`, got `str`"),
        ("[storage]\nwhen_full='x'", "storage.when_full: 'x' is not one of refuse, drop_oldest"),
        (
            "[node]\nname='a'\n[security]\ninsecure=true\n[cluster.initial_members]\na='10.0.0.1:7441'",
            "this node is 10.0.0.1:7441, but listens for the others on 127.0.0.1:7441 only; set peer.address",
        ),
        ("node='a'", "node is a section: write [node]"),
        ("[node", "not valid TOML"),
        ("[node]\nname='a b'", "node.name: 'a b' is not a name"),
        ("[client]\naddress='7440'", "client.address: '7440' is not HOST:PORT"),
        ("[client]\naddress='::1:7440'", "client.address: '::1:7440' is not HOST:PORT"),
        ("[client]\naddress='127.0.0.1:70000'", "client.address: port '70000'"),
        ("[client]\naddress='127.0.0.1:7441'", "peer.address: 127.0.0.1:7441 is already client.address"),
        (
            "[client]\naddress='0.0.0.0:7440'\n[cluster.initial_members]\npi-1='h:1'\npi-2='h:2'",
            "client.address: 0.0.0.0:7440 can be reached from other machines",
        ),
        ("[cluster.initial_members]\nz='h:1'", "names z, but this node is"),
        ("[cluster]\nheartbeat='300ms'", "more than half of cluster.election_timeout_min (500 ms)"),
        ("[cluster]\nelection_timeout_max='500ms'", "500 ms is not above cluster.election_timeout_min"),
        ("[storage]\nsize_max='1MiB'", "storage.size_max: 1048576 bytes is below the least, 64MiB"),
        (
            "[watch]\nkeep_bytes='200MiB'",
            "watch.keep_bytes: 209715200 bytes is above half of journal.size_max",
        ),
        ("[log]\nlevel='loud'", "log.level: 'loud' is not one of debug, info, warning, error"),
    ],
)
def test_a_refusal_names_the_key_and_what_to_do(tmp_path: Path, text: str, complaint: str) -> None:
    assert complaint in refusal(tmp_path, text)


def test_what_is_wrong_in_a_file_is_said_with_its_name(tmp_path: Path) -> None:
    assert refusal(tmp_path, "[cluster]\nhartbeat='1ms'").startswith(f"{tmp_path}/raftberry.toml: ")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.toml: cannot be read: No such file"):
        load(path=tmp_path / "missing.toml", environment={}, flags={})
    (tmp_path / "binary.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="not UTF-8 at byte 0"):
        load(path=tmp_path / "binary.toml", environment={}, flags={})


def test_a_mistake_in_the_environment_names_the_variable() -> None:
    with pytest.raises(ConfigurationError, match=r"RAFTBERRY_LOG__LEVLE.*did you mean 'level'"):
        load(path=None, environment={"RAFTBERRY_LOG__LEVLE": "info"}, flags={})


def test_a_key_like_no_other_names_the_nearest_few_and_where_all_are() -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(path=None, environment={"RAFTBERRY_STORAGE__FOO": "1"}, flags={})
    text = str(raised.value)
    assert "unknown key 'storage.foo'; the nearest are storage." in text
    assert text.endswith("; `man raftberry.toml` has all")
    assert len(text) < 200
    with pytest.raises(ConfigurationError, match=r"unknown section 'xyz'; known are client, cluster, "):
        load(path=None, environment={"RAFTBERRY_XYZ__FOO": "1"}, flags={})


def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.touch()
    with pytest.raises(ConfigurationError, match="data is a file; name a directory"):
        load(path=None, environment={}, flags={"storage.data": str(file)}, directory=tmp_path)


def test_beyond_loopback_needs_insecure_and_loopback_nothing(tmp_path: Path) -> None:
    config = load_text(tmp_path, "[client]\naddress='[::]:7440'", security__insecure=True)
    assert config.client.address == "[::]:7440"
    assert load_text(tmp_path, "[client]\naddress='[::1]:7440'").security.insecure is False
    assert [is_loopback(host) for host in ("127.1.2.3", "localhost", "pi-1.local", "10.0.0.1")] == [
        True, True, False, False,
    ]  # fmt: skip


def test_an_address_that_is_not_named_is_loopback_until_the_cluster_is_opened(tmp_path: Path) -> None:
    config = load_text(tmp_path, "[web]\naddress='127.0.0.1:80'")
    closed, opened = config.listening(""), config.listening("pi-1.local")
    assert (closed.client.address, closed.peer.address) == ("127.0.0.1:7440", "127.0.0.1:7441")
    assert not closed.is_reachable
    assert (opened.client.address, opened.peer.address) == ("0.0.0.0:7440", "0.0.0.0:7441")
    assert opened.peer.advertise == "pi-1.local:7441"
    assert opened.web.address == "127.0.0.1:80"
    assert opened.is_reachable
    assert join_address("fe80::1", 1) == "[fe80::1]:1"


def test_the_local_socket_is_in_the_services_runtime_directory_or_with_the_data(tmp_path: Path) -> None:
    def socket_of(environment: dict[str, str]) -> str:
        flags = {"storage.data": str(tmp_path / "d")}
        return load(path=None, environment=environment, flags=flags, directory=tmp_path).client.socket

    assert socket_of({}) == f"{tmp_path}/d/raftberry.sock"
    assert socket_of({"RUNTIME_DIRECTORY": "/run/raftberry:/run/x"}) == "/run/raftberry/raftberry.sock"


def test_addresses_and_members_are_split() -> None:
    assert split_address("[::1]:7440", what="x") == ("::1", 7440)
    assert split_address("pi-1.local:1", what="x") == ("pi-1.local", 1)
    for bad in ("a", "a=", "=h:1", "a=h:1,a=h:2"):
        with pytest.raises(ValueError, match="is"):
            parse_members(bad)
