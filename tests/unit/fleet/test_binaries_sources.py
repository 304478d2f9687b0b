"""apt's source files, and the private apt that is made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.fleet.binaries.apt_sources import (
    Repository,
    apt_configuration,
    debian_mirror,
    library_closure,
    preferences_file,
    read_dependencies,
    read_sources,
    source_file,
)
from redisforge.fleet.binaries.catalogue import OFFERS
from redisforge.fleet.binaries.engine_fetch import Source, order_sources
from redisforge.fleet.binaries.versions import parse_rule

MIRROR = "http://mirror.example/debian"
SECURITY = "http://mirror.example/debian-security"
KEYS = "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"

DEB822 = f"""\
# Comments and blank lines between stanzas
Types: deb deb-src
# a comment in a stanza
URIs: {MIRROR}
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: {SECURITY}
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://elsewhere.example/
Suites: stable
Components: main

Types: deb-src
URIs: http://sources.example/
Suites: stable
Components: main
"""


def test_a_deb822_file() -> None:
    keys = (KEYS,)
    assert read_sources(DEB822) == (
        Repository(MIRROR, "bookworm", "main", keys),
        Repository(MIRROR, "bookworm", "contrib", keys),
        Repository(MIRROR, "bookworm-updates", "main", keys),
        Repository(MIRROR, "bookworm-updates", "contrib", keys),
        Repository(SECURITY, "bookworm-security", "main", keys),
    )


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (f"deb {MIRROR} trixie main", (Repository(MIRROR, "trixie", "main"),)),
        (
            f"deb [arch=amd64 signed-by=/k.gpg trusted=yes] {MIRROR} sid main contrib # both",
            (
                Repository(MIRROR, "sid", "main", ("Signed-By: /k.gpg", "Trusted: yes")),
                Repository(MIRROR, "sid", "contrib", ("Signed-By: /k.gpg", "Trusted: yes")),
            ),
        ),
        (f"deb {MIRROR} ./", (Repository(MIRROR, "./", ""),)),
        (f"deb-src {MIRROR} trixie main", ()),
        (f"# deb {MIRROR} trixie main", ()),
        ("", ()),
    ],
)
def test_a_one_line_file(line: str, found: tuple[Repository, ...]) -> None:
    assert read_sources(line) == found


def test_a_key_inside_the_file_survives_to_the_private_one() -> None:
    block = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----"
    given_text = f"Types: deb\nURIs: {MIRROR}\nSuites: trixie\nComponents: main\nSigned-By:\n {block}\n"
    (read,) = read_sources(given_text)
    assert read_sources(source_file([read], "amd64")) == (read,)


@given(
    st.lists(
        st.builds(
            Repository,
            st.sampled_from([MIRROR, SECURITY, "https://other.example/x/"]),
            st.sampled_from(["sid", "trixie", "bookworm-updates"]),
            st.sampled_from(["main", "contrib"]),
            st.sampled_from([(), (KEYS,), (KEYS, "Trusted: yes")]),
        ),
        unique=True,
    )
)
def test_what_is_written_reads_back(repositories: list[Repository]) -> None:
    assert read_sources(source_file(repositories, "arm64")) == tuple(repositories)


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    assert all(repository.uri for repository in read_sources(text))


@pytest.mark.parametrize(
    ("text", "is_debian", "uri"),
    [
        (DEB822, True, MIRROR),
        (DEB822, False, MIRROR),
        (f"deb {SECURITY} bookworm-security main", True, None),
        ("deb http://packages.example/linux bookworm main", False, None),
        ("deb http://artefacts.example/remote bookworm main", True, "http://artefacts.example/remote"),
        (f"deb http://packages.example/linux bookworm main\ndeb {MIRROR} bookworm main", True, MIRROR),
        ("deb http://ubuntu.example/ubuntu noble main universe", False, None),
        ("", True, None),
    ],
)
def test_debian_mirror(text: str, is_debian: bool, uri: str | None) -> None:
    mirror = debian_mirror(read_sources(text), is_debian=is_debian)
    assert (mirror.uri if mirror else None) == uri


DEPENDS = """\
redis-server
  Depends: redis-tools
redis-tools
  Depends: adduser
  Depends: libc6
 |Depends: libssl3t64
  Depends: <libssl-virtual>
    libssl-other
  Depends: libjemalloc2
adduser
  Depends: passwd
libc6
  Depends: libgcc-s1
  Depends: libc-gconv-modules-extra
libgcc-s1
  PreDepends: gcc-16-base
  Depends: libc6
libjemalloc2
  Depends: libc6
libssl3t64
  Depends: zlib1g
  Depends: openssl-provider-legacy
passwd
  Depends: libpam0g
"""


def test_the_closure_holds_libraries_and_nothing_of_the_installation() -> None:
    dependencies = read_dependencies(DEPENDS)
    assert dependencies["redis-tools"] == ("adduser", "libc6", "libssl3t64", "libjemalloc2")
    assert library_closure(dependencies, ("redis-server", "redis-tools")) == (
        "libc6",
        "libgcc-s1",
        "libjemalloc2",
        "libssl3t64",
        "redis-server",
        "redis-tools",
        "zlib1g",
    )


def test_the_configuration_stays_in_its_folder() -> None:
    text = apt_configuration("/a folder/apt")
    paths = [line.split('"')[1] for line in text.splitlines() if line.startswith("Dir::")]
    assert all(path.startswith("/a folder/apt/") or path == "/dev/null" for path in paths)
    assert "#clear APT::Update::Post-Invoke;" in text


def test_preferences() -> None:
    assert preferences_file(("redis-server", "redis-tools"), "experimental") == (
        "Package: redis-server redis-tools\nPin: release a=experimental\nPin-Priority: 1001\n"
    )


@pytest.mark.parametrize(
    ("rule", "first"),
    [
        ("newest", "experimental"),
        ("8.6", "experimental"),
        ("8.6.3", "experimental"),
        (">=8.2", "experimental"),
        ("8.0", "sid"),
        ("8.0.2", "sid"),
        ("7.0", "bookworm"),
        (">=7.0", "experimental"),
    ],
)
def test_the_likely_source_comes_first_and_none_is_left_out(rule: str, first: str) -> None:
    sources = [Source(offer.suite, (), offer.series) for offer in OFFERS["redis"]] + [Source("own", ())]
    ordered = order_sources(sources, parse_rule(rule, "8.6"))
    assert ordered[0].label == first
    assert sorted(source.label for source in ordered) == sorted(source.label for source in sources)
