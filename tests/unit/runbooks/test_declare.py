"""What a verb has changed is declared: in redisforge.yaml where there is one, else the record of the cluster counts."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from redisforge.config.load import load
from redisforge.config.yaml_lines import MAX_BYTES
from redisforge.errors import RedisForgeError
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import Engine, Topology
from redisforge.runbooks.declare import as_recorded, declare_options

FIVE = {("shards",): "5", ("replicas",): "2"}
LONGEST_NAME = 255 - len(".yaml")
"""Of a file; the one that is written beside it would need a longer name still."""


def topology_in(file: Path) -> Topology:
    """The built-in topology, as if it came from a file."""
    return replace(load(None, {}, file.parent / "nowhere").topology, source=str(file))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "shards: 3  # three\nreplicas: 1\n",
            "shards: 5  # three\nreplicas: 2\n",
            "now declares shards: 5, replicas: 2",
        ),
        ("# mine\n", "# mine\nshards: 5\nreplicas: 2\n", "now declares shards: 5, replicas: 2"),
        ("shards: 5\nreplicas: 2\n", "shards: 5\nreplicas: 2\n", ""),
        ("{shards: 3}\n", "{shards: 3}\n", "declare shards: 5, replicas: 2 in "),
        ("shards: 3\nreplicas: [\n", "shards: 3\nreplicas: [\n", "it could not be changed"),
        ("shards: 3\n" + "#" * MAX_BYTES, "shards: 3\n" + "#" * MAX_BYTES, "it could not be changed"),
    ],
)
def test_the_file(tmp_path: Path, before: str, after: str, said: str) -> None:
    file = tmp_path / "redisforge.yaml"
    file.write_text(before)
    sentences = declare_options(topology_in(file), FIVE)
    assert file.read_text() == after
    assert [said in sentence and str(file) in sentence for sentence in sentences] == [True] * bool(said)


def test_a_file_that_cannot_be_read_is_told_and_left(tmp_path: Path) -> None:
    folder, nobody = tmp_path / "folder", tmp_path / "nobody"
    folder.mkdir()
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: caf\xe9\n")
    for file, reason in ((folder, "is a folder"), (nobody, "does not exist"), (latin, "utf-8")):
        (sentence,) = declare_options(topology_in(file), FIVE)
        assert sentence.startswith(f"declare shards: 5, replicas: 2 in {file}: it could not be changed")
        assert reason in sentence
    assert not nobody.exists()
    assert latin.read_bytes() == b"name: caf\xe9\n"


def test_a_file_that_cannot_be_written_is_told_and_left(tmp_path: Path) -> None:
    file = tmp_path / f"{'r' * LONGEST_NAME}.yaml"
    file.write_text("shards: 3\n")
    (sentence,) = declare_options(topology_in(file), FIVE)
    assert "it could not be changed (File name too long)" in sentence
    assert file.read_text() == "shards: 3\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_a_link_and_permissions_stay(tmp_path: Path) -> None:
    file, link = tmp_path / "real.yaml", tmp_path / "redisforge.yaml"
    file.write_text("shards: 3\n")
    file.chmod(0o640)
    link.symlink_to(file)
    assert declare_options(topology_in(link), {("shards",): "4"}) == (f"{file} now declares shards: 4",)
    assert link.is_symlink()
    assert file.read_text() == "shards: 4\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_the_built_in_topology_has_no_file(tmp_path: Path) -> None:
    assert declare_options(load(None, {}, tmp_path).topology, FIVE) == ()
    assert list(tmp_path.iterdir()) == []


BUILT_IN = load(None, {}, Path("/nowhere")).topology
SCALED = replace(BUILT_IN, shards=4, replicas=2, engine=Engine(version="8.0"))


@pytest.mark.parametrize(
    ("declared", "recorded", "overridden", "shards", "replicas", "version"),
    [
        (BUILT_IN, None, set[str](), 3, 1, BUILT_IN.engine.version),
        (BUILT_IN, SCALED, set[str](), 4, 2, "8.0"),
        (replace(BUILT_IN, replicas=3), SCALED, {"REPLICAS_PER_MASTER"}, 4, 3, "8.0"),
        (replace(BUILT_IN, source="/a.yaml"), SCALED, set[str](), 3, 1, BUILT_IN.engine.version),
        (BUILT_IN, replace(SCALED, source="/a.yaml"), set[str](), 3, 1, BUILT_IN.engine.version),
    ],
    ids=["no record", "the record counts", "but for the environment", "a file counts", "the file is gone"],
)
def test_what_counts(
    tmp_path: Path, declared: Topology, recorded: Topology | None, overridden: set[str],
    shards: int, replicas: int, version: str,
) -> None:  # fmt: skip
    layout = ClusterLayout(str(tmp_path))
    if recorded:
        Path(layout.topology).write_bytes(msgspec.json.encode(recorded))
    found = as_recorded(declared, layout, frozenset(overridden))
    assert (found.shards, found.replicas, found.engine.version) == (shards, replicas, version)


def test_nodes_stay_where_the_record_has_them(tmp_path: Path) -> None:
    layout = ClusterLayout(str(tmp_path))
    nodes = tuple(replace(node, name=f"redis-{9 - number}") for number, node in enumerate(BUILT_IN.nodes))
    Path(layout.topology).write_bytes(msgspec.json.encode(replace(BUILT_IN, nodes=nodes)))
    assert as_recorded(BUILT_IN, layout, frozenset()).nodes == nodes


def test_a_record_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    layout = ClusterLayout(str(tmp_path))
    Path(layout.topology).write_text("{")
    with pytest.raises(RedisForgeError, match="recorded topology cannot be read"):
        as_recorded(BUILT_IN, layout, frozenset())
