"""The readers below the declaration: YAML with lines, .env, values, passwords."""

from __future__ import annotations

from pathlib import Path

import pytest

from redisforge.config.dotenv import read_dotenv
from redisforge.config.environment import Variable, read_overrides
from redisforge.config.passwords import weakness
from redisforge.config.schema import Declaration, EndpointOptions, HostOptions, MemoryOptions, model_at
from redisforge.config.values import check_host_folder, directive_values, host_address, size_bytes
from redisforge.config.yaml_lines import UnreadableYamlError, read_yaml


def test_every_key_and_item_has_its_line() -> None:
    document = read_yaml(b"a: 1\n\nb:\n  c: [x,\n    y]\n  d: {e: 1}\nf:\n  - g: 1\n    h: 2\n")
    assert document.data == {"a": 1, "b": {"c": ["x", "y"], "d": {"e": 1}}, "f": [{"g": 1, "h": 2}]}
    assert document.lines == {
        (): 1,
        ("a",): 1,
        ("b",): 3,
        ("b", "c"): 4,
        ("b", "c", 0): 4,
        ("b", "c", 1): 5,
        ("b", "d"): 6,
        ("b", "d", "e"): 6,
        ("f",): 7,
        ("f", 0): 8,
        ("f", 0, "g"): 8,
        ("f", 0, "h"): 9,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("0123", "0123"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2001-01-01", "2001-01-01"),
        ("8.10", 8.1),
        (".inf", ".inf"),
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),
        ("'12'", "12"),
        ('"true"', "true"),
        ("=", "="),
    ],
)
def test_plain_words_are_read_as_in_yaml_1_2(text: str, value: object) -> None:
    read = read_yaml(f"a: {text}\n".encode()).data["a"]
    assert read == value
    assert isinstance(read, type(value))


def test_anchors_aliases_and_merge_keys() -> None:
    document = read_yaml(b"base: &b {x: 1, y: 2}\none: *b\ntwo: {<<: *b, y: 3}\nthree: {<<: [{z: 1}, *b], x: 9}\n")
    assert document.data["one"] == {"x": 1, "y": 2}
    assert document.data["two"] == {"x": 1, "y": 3}
    assert document.data["three"] == {"x": 9, "y": 2, "z": 1}


HOSTILE = {
    "deep": (b"a: " + b"[" * 5000, 1, "is nested deeper than 16 levels"),
    "an alias of itself": (b"a: &a [*a]\n", 1, "is nested deeper than 16 levels"),
    "an alias of aliases": (
        b"a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 10)) for c in b"bcdefgh"),
        None,
        "holds more than 20000 values",
    ),
    "many values": (b"a: [" + b"1," * 40_000 + b"]", None, "holds more than 20000 values"),
    "many bytes": (b"#" * 300_000, 0, "is larger than 256 KiB"),
    "an escape that is no character": (b'a: "\\UFFFFFFFF"', None, "is not YAML: "),
    "an alias without anchor": (b"a: 1\nb: *x\n", 2, "the alias *x has no anchor before it"),
    "a key that is a list": (b"a: 1\n[b]: 2\n", 2, "a key must be a plain word"),
    "merging a word": (b"a:\n  <<: 3\n", 2, "'<<' takes a mapping or a list of mappings"),
}


@pytest.mark.parametrize(("content", "line", "what"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_refused(content: bytes, line: int | None, what: str) -> None:
    with pytest.raises(UnreadableYamlError) as caught:
        read_yaml(content)
    assert caught.value.what.startswith(what)
    assert line is None or caught.value.line == line


DOTENV = r"""
# a comment
A=1
 export B = two words   # a comment
C='single $HOME \n # kept'
D="double \"quoted\" \$x \\ # kept"   # a comment
E="first
second"
F=
G=a#b
H='it'"'"'s'
export I
A=3
spring.name=x
"""


def test_dotenv_as_shells_and_container_tools_write_it() -> None:
    variables, problems = read_dotenv(DOTENV)
    assert problems == ()
    assert {name: line.value for name, line in variables.items()} == {
        "A": "3",
        "B": "two words",
        "C": "single $HOME \\n # kept",
        "D": 'double "quoted" $x \\ # kept',
        "E": "first\nsecond",
        "F": "",
        "G": "a#b",
        "H": "it's",
        "spring.name": "x",
    }
    assert {name: line.line for name, line in variables.items() if name in "ADEH"} == {
        "A": 13,
        "D": 6,
        "E": 7,
        "H": 11,
    }


def test_dotenv_of_windows_and_an_unclosed_quote() -> None:
    variables, problems = read_dotenv("A=1\r\nB='x\r\nC=2\r\nD='x' y\r\n")
    assert {name: line.value for name, line in variables.items()} == {"A": "1", "C": "2"}
    assert [(problem.line, problem.what) for problem in problems] == [
        (2, "B: the quote is not closed"),
        (4, "D: there is text after the closing quote"),
    ]


def test_a_dotenv_line_never_shows_its_value() -> None:
    variables, _ = read_dotenv("A=hunter2\n")
    assert "hunter2" not in repr(variables)
    assert "hunter2" not in repr(Variable("A", "hunter2", ".env:1"))


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("5b", 5), ("2k", 2000), ("2kb", 2048), ("1M", 10**6), ("1mb", 2**20), ("3GB", 3 * 2**30)],
)
def test_sizes_are_redis_sizes(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "mb", "1tb", "-1", "1.5gb", "1 gb", "٣mb", "1e3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        size_bytes(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", "127.0.0.1"),
        ("127.5.6.7", "127.5.6.7"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("10.0.0.1", "10.0.0.1"),
        ("2001:DB8::1", "2001:db8::1"),
    ],
)
def test_addresses_of_hosts(text: str, address: str) -> None:
    assert host_address(text) == address


@pytest.mark.parametrize("text", ["", "127.1", "example.com", "10.0.0.1/24", "10.0.0.1:22"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be an IP address"):
        host_address(text)


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "::ffff:127.0.0.1", "fe80::1", "224.0.0.1", "255.255.255.255"])
def test_addresses_of_no_single_machine_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be the address of one machine"):
        host_address(text)


@pytest.mark.parametrize("text", ["/var/lib/redisforge", "/srv/r-f_1.0+x", "/a/"])
def test_folders_of_hosts(text: str) -> None:
    assert check_host_folder(text) == text.rstrip("/")


@pytest.mark.parametrize("text", ["", "/", "relative", "~/rf", "/a/../b", "/a/..", "/it's", "/a b", "/a\nb"])
def test_what_is_no_folder_of_a_host(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        check_host_folder(text)


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (True, ("yes",)),
        ("no", ("no",)),
        (10, ("10",)),
        ("", ('""',)),
        ([1, "a b"], ("1", "a b")),
        ("\"a\\\"b\" 'c\\'d'", ("\"a\\\"b\" 'c\\'d'",)),
    ],
)
def test_directive_values(value: object, lines: tuple[str, ...]) -> None:
    assert directive_values(value) == lines


@pytest.mark.parametrize("value", [None, [], {}, [[1]], '"', "'a", '"a"b', "a\nb", "a\0", "\x7f"])
def test_values_that_redis_cannot_read(value: object) -> None:
    with pytest.raises(ValueError, match=r"^(must|has)"):
        directive_values(value)


@pytest.mark.parametrize(
    "password", ["correct-horse-battery-staple", "kX9-vuT3_qLm7Wz2", "пароль-длинный-7", "a b c d e f g h"]
)
def test_strong_passwords(password: str) -> None:
    assert weakness(password) == ""


@pytest.mark.parametrize(
    "password",
    ["password1234", "Passw0rd!Passw0rd!", "admin123admin123", "qwertyuiop1234", "redisforge-redis", "foobared1234",
     "123456789012345", "changeme-changeme", "<your password here>", "$SECRET_FROM_CI", "tab\tabcdefghijk"],
)  # fmt: skip
def test_weak_passwords(password: str) -> None:
    assert weakness(password) != ""


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("REDIS_VERSION", "8.2", ">=8.2"),
        ("REDIS_VERSION", "7.2.4-alpine", ">=7.2.4"),
        ("REDIS_VERSION", "8", ">=8.0"),
        ("REDIS_VERSION", "6.2", ">=7.0"),
        ("REDIS_VERSION", "latest", "newest"),
        ("ENVOY_VERSION", "v1.32-latest", ">=1.32"),
        ("ENVOY_VERSION", "distroless", None),
        ("REDIS_MAXMEMORY", " 256MB ", "256mb"),
        ("REDIS_AOF_ENABLED", "TRUE", "aof"),
    ],
)
def test_values_of_the_convention(name: str, text: str, value: object) -> None:
    overrides = read_overrides({name: Variable(name, text, "environment")})
    assert list(overrides.values.values()) == ([value] if value else [])
    assert len(overrides.problems) == (0 if value else 1)


def test_model_at_finds_the_section_of_a_path() -> None:
    assert model_at(()) is Declaration
    assert model_at(("memory",)) is MemoryOptions
    assert model_at(("hosts", 3)) is HostOptions
    assert model_at(("endpoints", "mine")) is EndpointOptions
    assert model_at(("memory", "max")) is None
    assert model_at(("nothing", "here")) is None


def test_a_declaration_holds_no_path_of_the_machine() -> None:
    assert str(Path.home()) not in repr(Declaration())
