"""secrets.env: precedence, permissions, damage, and that passwords are never shown."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redisforge.errors import HostError, RedisForgeError, SecretError
from redisforge.model.layout import ClusterLayout
from redisforge.model.secret import Secret
from redisforge.model.topology import (
    Engine,
    EnvoySettings,
    Persistence,
    RedisSettings,
    TlsSettings,
    Topology,
    User,
    UserRole,
)
from redisforge.security.secrets import (
    NAMES,
    changed_users,
    generate_password,
    load_credentials,
    resolve_credentials,
)

USERS = tuple(User(f"{role.value}_user", role) for role in UserRole)
TOPOLOGY = Topology(
    name="main",
    engine=Engine(),
    shards=3,
    replicas=1,
    hosts=(),
    nodes=(),
    envoys=(),
    endpoints=(),
    users=USERS,
    redis=RedisSettings(1, "noeviction", Persistence(), 5000, 1, 1, 1, "notice"),
    envoy=EnvoySettings("", "", 1, 1, 1.0, 1, 1),
    tls=TlsSettings("", "", "", 825, (), False),
)


@pytest.fixture
def layout(tmp_path: Path) -> ClusterLayout:
    return ClusterLayout(str(tmp_path / "main"))


def test_missing_passwords_are_made_once(layout: ClusterLayout) -> None:
    credentials, is_new = resolve_credentials(TOPOLOGY, {}, layout)
    assert is_new
    assert stat.S_IMODE(Path(layout.secrets).stat().st_mode) == 0o600
    values = [credentials.password(user.name).reveal() for user in USERS]
    assert len(set(values)) == len(USERS)
    assert all(len(value) == 43 for value in values)
    written = Path(layout.secrets).read_bytes()
    again, is_new = resolve_credentials(TOPOLOGY, {}, layout)
    assert not is_new
    assert [again.password(user.name).reveal() for user in USERS] == values
    assert Path(layout.secrets).read_bytes() == written
    assert load_credentials(TOPOLOGY, layout).password("monitor_user").reveal() == values[3]


def test_a_role_that_the_stored_file_does_not_know_yet_gets_a_password(layout: ClusterLayout) -> None:
    """secrets.env of a cluster that is older than the hand-off."""
    before, _ = resolve_credentials(TOPOLOGY, {}, layout)
    path = Path(layout.secrets)
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "HANDOFF" not in line))
    after, is_new = resolve_credentials(TOPOLOGY, {}, layout)
    assert is_new
    changed = {name for name in after.user_names() if after.password(name) != before.password(name)}
    assert changed == {"handoff_user"}
    assert resolve_credentials(TOPOLOGY, {}, layout)[1] is False


def test_supplied_wins_over_stored_and_is_stored(layout: ClusterLayout) -> None:
    resolve_credentials(TOPOLOGY, {}, layout)
    mine = Secret("a password of my own")
    assert changed_users(TOPOLOGY, {"application_user": mine}, layout) == ("application_user",)
    credentials, is_new = resolve_credentials(TOPOLOGY, {"application_user": mine}, layout)
    assert is_new
    assert credentials.password("application_user") == mine
    assert changed_users(TOPOLOGY, {"application_user": mine}, layout) == ()
    assert resolve_credentials(TOPOLOGY, {}, layout)[0].password("application_user") == mine


def test_a_password_follows_the_role_when_its_user_is_renamed(layout: ClusterLayout) -> None:
    before, _ = resolve_credentials(TOPOLOGY, {}, layout)
    users = (USERS[0], User("web", UserRole.APPLICATION), *USERS[2:])
    after, is_new = resolve_credentials(msgspec.structs.replace(TOPOLOGY, users=users), {}, layout)
    assert not is_new
    assert after.password("web") == before.password("application_user")
    assert "REDIS_ACL_USER=web\n" in Path(layout.secrets).read_text()


def test_a_dry_run_writes_nothing(layout: ClusterLayout) -> None:
    credentials, is_new = resolve_credentials(TOPOLOGY, {}, layout, store=False)
    assert is_new
    assert credentials.password("operator_user")
    assert not Path(layout.folder).exists()


def test_an_open_file_is_closed_and_reported(layout: ClusterLayout) -> None:
    resolve_credentials(TOPOLOGY, {}, layout)
    Path(layout.secrets).chmod(0o644)
    notices: list[str] = []
    resolve_credentials(TOPOLOGY, {}, layout, on_notice=notices.append)
    assert stat.S_IMODE(Path(layout.secrets).stat().st_mode) == 0o600
    assert len(notices) == 1
    assert layout.secrets in notices[0]
    resolve_credentials(TOPOLOGY, {}, layout, on_notice=notices.append)
    assert len(notices) == 1


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (b"no equals sign\n", "is not NAME=VALUE"),
        (b"1X=y\n", "is not NAME=VALUE"),
        (b"X='hunter2\n", "a quote is not closed"),
        (b"X=hunter2 hunter3\n", "blanks outside quotes"),
        (b"X= hunter2\n", "blanks outside quotes"),
        (b"REDIS_ACL_PASS=hunter2\n", "a second time"),
        (b"X=hunter2\xff", "not UTF-8"),
    ],
)
def test_damage_is_named_without_showing_a_secret(layout: ClusterLayout, damage: bytes, complaint: str) -> None:
    resolve_credentials(TOPOLOGY, {}, layout)
    damaged = Path(layout.secrets).read_bytes() + damage
    Path(layout.secrets).write_bytes(damaged)
    with pytest.raises(SecretError) as caught:
        resolve_credentials(TOPOLOGY, {}, layout)
    assert caught.value.where == layout.secrets
    assert "hunter" not in str(caught.value)
    assert complaint in caught.value.why
    assert Path(layout.secrets).read_bytes() == damaged


def test_an_emptied_password_is_damage(layout: ClusterLayout) -> None:
    Path(layout.folder).mkdir()
    Path(layout.secrets).write_text("REDIS_ACL_PASS=''\n")
    with pytest.raises(SecretError, match="REDIS_ACL_PASS is empty"):
        resolve_credentials(TOPOLOGY, {}, layout)


def test_a_lost_file_is_an_error_for_a_cluster_that_was_raised(layout: ClusterLayout) -> None:
    with pytest.raises(SecretError, match="does not exist"):
        load_credentials(TOPOLOGY, layout)
    resolve_credentials(TOPOLOGY, {}, layout)
    text = Path(layout.secrets).read_text()
    lines = [line for line in text.splitlines() if not line.startswith("REDIS_MONITOR_PASS")]
    Path(layout.secrets).write_text("\n".join(lines))
    with pytest.raises(SecretError, match="REDIS_MONITOR_PASS"):
        load_credentials(TOPOLOGY, layout)


def test_names_of_others_are_kept(layout: ClusterLayout) -> None:
    Path(layout.folder).mkdir()
    Path(layout.secrets).write_text("# mine\nexport BACKUP_KEY='a b'\r\nREDIS_ACL_PASS=from-before-123\n")
    credentials, _ = resolve_credentials(TOPOLOGY, {}, layout)
    assert credentials.password("application_user").reveal() == "from-before-123"
    assert "BACKUP_KEY='a b'\n" in Path(layout.secrets).read_text()


@pytest.mark.parametrize("value", ["", "a\nb", "a\tb", "a\x7fb", "a\0b", "\ud800"])
def test_a_password_that_cannot_be_stored(layout: ClusterLayout, value: str) -> None:
    with pytest.raises(SecretError, match="monitor_user"):
        resolve_credentials(TOPOLOGY, {"monitor_user": Secret(value)}, layout)
    assert not Path(layout.secrets).exists()


def test_a_folder_in_the_way(layout: ClusterLayout) -> None:
    Path(layout.secrets).mkdir(parents=True)
    with pytest.raises(SecretError, match="directory"):
        resolve_credentials(TOPOLOGY, {}, layout)
    blocked = ClusterLayout(str(Path(layout.secrets) / ".." / "file"))
    Path(blocked.folder).write_text("")
    with pytest.raises((SecretError, HostError)):
        resolve_credentials(TOPOLOGY, {}, blocked)


def test_nothing_shows_a_password(layout: ClusterLayout) -> None:
    credentials, _ = resolve_credentials(TOPOLOGY, {}, layout)
    shown = repr(credentials) + str(credentials)
    assert not [user for user in USERS if credentials.password(user.name).reveal() in shown]
    assert repr(generate_password()) == "***"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(value=st.text(min_size=1).filter(str.isprintable))
def test_any_printable_password_survives_the_file(layout: ClusterLayout, value: str) -> None:
    resolve_credentials(TOPOLOGY, {"application_user": Secret(value)}, layout)
    assert load_credentials(TOPOLOGY, layout).password("application_user").reveal() == value


@pytest.mark.parametrize("value", ["plain", "sp ace", "quo'te", 'dou"ble', "$HOME `id` \\ #!", "é ü 漢"])
def test_a_shell_reads_the_same(layout: ClusterLayout, value: str) -> None:
    resolve_credentials(TOPOLOGY, {"operator_user": Secret(value)}, layout)
    script = '. "$0"; printf %s "$REDIS_REQUIREPASS"'
    shown = subprocess.run(["sh", "-c", script, layout.secrets], capture_output=True, check=True)
    assert shown.stdout.decode() == value


UNCLOSED = st.sampled_from([f"{names.password}='x".encode() for names in NAMES.values()])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(content=st.binary() | st.text().map(str.encode) | UNCLOSED)
def test_no_content_causes_anything_but_a_clear_error(layout: ClusterLayout, content: bytes) -> None:
    Path(layout.folder).mkdir(exist_ok=True)
    Path(layout.secrets).write_bytes(content)
    where, found = layout.secrets, {user.name for user in USERS}
    try:
        found = set(resolve_credentials(TOPOLOGY, {}, layout)[0].user_names())
    except RedisForgeError as error:
        where = error.where
    assert where == layout.secrets
    assert found == {user.name for user in USERS}
