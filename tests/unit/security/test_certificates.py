"""The tls folder: made, kept, renewed and healed; and the files of others checked."""

from __future__ import annotations

import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from redisforge.errors import CertificateError, HostError
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import TlsSettings
from redisforge.security.certificate_checks import check_certificates, expiry, load_chain, missing_names
from redisforge.security.certificates import create_ca, ensure_certificates, ensure_issued, issue_certificate
from redisforge.security.x509 import CLOCK_SKEW, covered_names, is_signed_by, normal_name

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWN_CA = TlsSettings("", "", "", 825, (), False)
NAMES = {"redis-1": ("127.0.0.11", "host-a"), "envoy-1": ("127.0.0.1",)}


@pytest.fixture
def layout(tmp_path: Path) -> ClusterLayout:
    return ClusterLayout(str(tmp_path / "my cluster"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def mode(path: str | Path) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def certificate(path: str | Path) -> x509.Certificate:
    return load_chain(Path(path))[0]


def test_everything_is_made_once(layout: ClusterLayout) -> None:
    made = ensure_certificates(layout, NAMES, OWN_CA, NOW)
    folder = Path(layout.tls)
    assert {Path(path).name for path in made} == set(contents(folder))
    assert set(contents(folder)) == {*("ca.crt", "ca.key", "redis-1.crt", "redis-1.key", "envoy-1.crt", "envoy-1.key")}
    before = contents(folder)
    assert ensure_certificates(layout, NAMES, OWN_CA, NOW + timedelta(days=700)) == ()
    assert contents(folder) == before
    for name in NAMES:
        check_certificates(Path(layout.ca_certificate), Path(layout.certificate(name)), Path(layout.key(name)), NOW)


def test_keys_are_closed_whatever_the_umask(layout: ClusterLayout) -> None:
    previous = os.umask(0)
    try:
        ensure_certificates(layout, NAMES, OWN_CA, NOW)
    finally:
        os.umask(previous)
    for path in Path(layout.tls).glob("*.key"):
        assert mode(path) == 0o600
    assert mode(layout.ca_certificate) == 0o644


def test_an_open_key_is_closed_and_reported(layout: ClusterLayout) -> None:
    ensure_certificates(layout, NAMES, OWN_CA, NOW)
    Path(layout.key("redis-1")).chmod(0o644)
    assert [Path(line).name for line in ensure_certificates(layout, NAMES, OWN_CA, NOW)] == [
        "redis-1.key (now closed to other users)"
    ]
    assert mode(layout.key("redis-1")) == 0o600


def test_what_a_certificate_says(layout: ClusterLayout) -> None:
    tls = TlsSettings("", "", "", 90, ("redis.example.org", "10.0.0.9"), False)
    ensure_certificates(layout, {"redis-1": ("127.0.0.11", "::ffff:1")}, tls, NOW)
    leaf = certificate(layout.certificate("redis-1"))
    assert covered_names(leaf) == {
        *("redis-1", "127.0.0.11", "::ffff:1", "redis.example.org", "10.0.0.9"),
        *("localhost", "127.0.0.1", "::1"),
    }
    assert leaf.not_valid_before_utc == NOW - CLOCK_SKEW
    assert leaf.not_valid_after_utc == NOW + timedelta(days=90)
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    key_usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert key_usage.critical
    assert key_usage.value.digital_signature
    assert not key_usage.value.key_cert_sign
    ca = certificate(layout.ca_certificate)
    assert ca.not_valid_after_utc == NOW + timedelta(days=3650)
    subject_id = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority_id = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority_id.key_identifier == subject_id.digest


def test_tls_itself_accepts_them(layout: ClusterLayout) -> None:
    """A handshake in memory, with the name checked and the strict flag of newer Pythons set."""
    ensure_certificates(layout, NAMES, OWN_CA, datetime.now(UTC))
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=layout.ca_certificate)
    server_context.load_cert_chain(layout.certificate("redis-1"), layout.key("redis-1"))
    server_context.verify_mode = ssl.CERT_REQUIRED
    client_context = ssl.create_default_context(cafile=layout.ca_certificate)
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    client_context.load_cert_chain(layout.certificate("envoy-1"), layout.key("envoy-1"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server, server_hostname="127.0.0.11")
    pending = [client, server]
    for _ in range(10):
        for side in tuple(pending):
            try:
                side.do_handshake()
                pending.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert pending == []
    assert client.version() == "TLSv1.3"


def test_a_new_address_reissues_the_certificate_and_keeps_the_key(layout: ClusterLayout) -> None:
    ensure_certificates(layout, NAMES, OWN_CA, NOW)
    before = contents(Path(layout.tls))
    wanted = {**NAMES, "redis-1": ("127.0.0.11", "10.9.9.9")}
    assert ensure_certificates(layout, wanted, OWN_CA, NOW) == (layout.certificate("redis-1"),)
    after = contents(Path(layout.tls))
    assert {name for name in after if after[name] != before[name]} == {"redis-1.crt"}
    assert missing_names(Path(layout.certificate("redis-1")), ["10.9.9.9", "redis-1"]) == ()
    assert missing_names(Path(layout.certificate("redis-1")), ["host-a", "not a name"]) == (*("host-a", "not a name"),)


@pytest.mark.parametrize(
    ("validity_days", "after_days", "renewed"),
    [(90, 59, False), (90, 61, True), (90, 400, True), (6, 3, False), (6, 5, True), (825, 790, False)],
)
def test_renewal_in_time(layout: ClusterLayout, validity_days: int, after_days: int, renewed: bool) -> None:
    tls = TlsSettings("", "", "", validity_days, (), False)
    ensure_certificates(layout, NAMES, tls, NOW)
    later = NOW + timedelta(days=after_days)
    assert bool(ensure_certificates(layout, NAMES, tls, later)) is renewed
    assert expiry(Path(layout.certificate("redis-1"))) > later


def test_no_certificate_outlives_the_ca_and_none_is_renewed_in_vain(layout: ClusterLayout) -> None:
    ensure_certificates(layout, NAMES, OWN_CA, NOW)
    late = NOW + timedelta(days=3645)
    assert ensure_certificates(layout, NAMES, OWN_CA, late)
    assert expiry(Path(layout.certificate("redis-1"))) == expiry(Path(layout.ca_certificate))
    assert ensure_certificates(layout, NAMES, OWN_CA, late + timedelta(days=1)) == ()
    with pytest.raises(CertificateError, match="expired") as caught:
        ensure_certificates(layout, NAMES, OWN_CA, NOW + timedelta(days=3651))
    assert "ca.crt" in str(caught.value)


@pytest.mark.parametrize(
    "lost",
    [
        ("ca.crt",),
        ("redis-1.crt",),
        ("redis-1.key",),
        ("redis-1.crt", "redis-1.key"),
        ("ca.crt", "redis-1.crt"),
        ("ca.crt", "redis-1.crt", "redis-1.key", "envoy-1.crt", "envoy-1.key"),
    ],
)
def test_a_crash_at_any_point_heals(layout: ClusterLayout, lost: tuple[str, ...]) -> None:
    ensure_certificates(layout, NAMES, OWN_CA, NOW)
    ca_key = Path(layout.tls, "ca.key").read_bytes()
    old_ca = certificate(layout.ca_certificate)
    for name in lost:
        Path(layout.tls, name).unlink()
    ensure_certificates(layout, NAMES, OWN_CA, NOW)
    assert Path(layout.tls, "ca.key").read_bytes() == ca_key
    for name in NAMES:
        check_certificates(Path(layout.ca_certificate), Path(layout.certificate(name)), Path(layout.key(name)), NOW)
        assert is_signed_by(certificate(layout.certificate(name)), [old_ca]), "old clients still trust it"
    assert ensure_certificates(layout, NAMES, OWN_CA, NOW) == ()


@pytest.mark.parametrize("damage", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
@pytest.mark.parametrize("name", ["redis-1.crt", "redis-1.key"])
def test_a_damaged_file_of_a_unit_is_made_again(layout: ClusterLayout, name: str, damage: bytes) -> None:
    ensure_certificates(layout, NAMES, OWN_CA, NOW)
    Path(layout.tls, name).write_bytes(damage)
    assert ensure_certificates(layout, NAMES, OWN_CA, NOW)
    check_certificates(
        Path(layout.ca_certificate), Path(layout.certificate("redis-1")), Path(layout.key("redis-1")), NOW
    )


@pytest.mark.parametrize("damage", [b"", b"garbage"])
@pytest.mark.parametrize("name", ["ca.crt", "ca.key"])
def test_a_damaged_ca_is_never_replaced(layout: ClusterLayout, name: str, damage: bytes) -> None:
    ensure_certificates(layout, NAMES, OWN_CA, NOW)
    Path(layout.tls, name).write_bytes(damage)
    Path(layout.certificate("redis-1")).unlink()
    before = contents(Path(layout.tls))
    with pytest.raises(CertificateError, match=name):
        ensure_certificates(layout, NAMES, OWN_CA, NOW)
    assert contents(Path(layout.tls)) == before


def test_a_ca_without_its_key_is_enough_until_something_must_be_issued(layout: ClusterLayout) -> None:
    ensure_certificates(layout, NAMES, OWN_CA, NOW)
    Path(layout.tls, "ca.key").unlink()
    assert ensure_certificates(layout, NAMES, OWN_CA, NOW) == ()
    with pytest.raises(CertificateError, match=r"key of the CA is missing[\s\S]*Put ca.key back"):
        ensure_certificates(layout, {"redis-9": ()}, OWN_CA, NOW)
    assert not Path(layout.key("redis-9")).exists()


def test_the_key_of_another_ca_is_not_used(layout: ClusterLayout, tmp_path: Path) -> None:
    ensure_certificates(layout, NAMES, OWN_CA, NOW)
    create_ca(tmp_path / "other", NOW)
    Path(layout.tls, "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(CertificateError, match="key of the CA does not belong"):
        ensure_certificates(layout, {"redis-9": ()}, OWN_CA, NOW)


def test_certificates_of_another_ca_are_issued_anew(layout: ClusterLayout) -> None:
    ensure_certificates(layout, NAMES, OWN_CA, NOW)
    for name in ("ca.crt", "ca.key"):
        Path(layout.tls, name).unlink()
    made = {Path(path).name for path in ensure_certificates(layout, NAMES, OWN_CA, NOW)}
    assert made == {"ca.key", "ca.crt", "redis-1.crt", "envoy-1.crt"}


def test_a_ca_that_is_not_valid_yet_blames_the_clock(layout: ClusterLayout) -> None:
    ensure_certificates(layout, NAMES, OWN_CA, NOW)
    with pytest.raises(CertificateError, match="not valid yet") as caught:
        ensure_certificates(layout, NAMES, OWN_CA, NOW - timedelta(days=1))
    assert "clock" in caught.value.why


@pytest.mark.parametrize("name", ["a b", "-\N{SNOWMAN} " * 3, "x" * 64, "a..b", "", "1.2.3.4/8", "*", "a/b"])
def test_a_name_that_no_certificate_can_hold(layout: ClusterLayout, name: str) -> None:
    with pytest.raises(CertificateError, match="no certificate can be issued for redis-1"):
        ensure_certificates(layout, {"redis-1": (name,)}, OWN_CA, NOW)
    assert not Path(layout.certificate("redis-1")).exists()


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("Redis.Example.ORG", "redis.example.org"),
        ("0:0::1", "::1"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.example.org", "*.example.org"),
        ("redis_1", "redis_1"),
    ],
)
def test_one_spelling_of_a_name(name: str, normal: str) -> None:
    assert normal_name(name) == normal


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "tls").write_text("a file in the way")
    with pytest.raises((HostError, CertificateError), match="tls"):
        ensure_issued(tmp_path / "tls", NAMES, 825, NOW)


class Authority:
    """Somebody else's CA, with RSA keys and an intermediate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root_key = rsa.generate_private_key(65537, 2048)
        self.root = self.sign("Corporate Root", self.root_key.public_key(), "Corporate Root", self.root_key, ca=True)
        self.middle_key = ec.generate_private_key(ec.SECP256R1())
        self.middle = self.sign("Middle", self.middle_key.public_key(), "Corporate Root", self.root_key, ca=True)
        self.leaf_key = rsa.generate_private_key(65537, 2048)

    def sign(
        self,
        name: str,
        public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
        issuer: str,
        issuer_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
        *,
        ca: bool = False,
        usages: tuple[x509.ObjectIdentifier, ...] = (),
        days: tuple[int, int] = (-1, 100),
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + timedelta(days=days[0]))
            .not_valid_after(NOW + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    def leaf(
        self, usages: tuple[x509.ObjectIdentifier, ...] = (), days: tuple[int, int] = (-1, 90)
    ) -> x509.Certificate:
        return self.sign("node", self.leaf_key.public_key(), "Middle", self.middle_key, usages=usages, days=days)

    def write(self, name: str, *certificates: x509.Certificate) -> Path:
        path = self.folder / name
        path.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates))
        return path

    def write_key(self, name: str, key: rsa.RSAPrivateKey, passphrase: bytes | None = None) -> Path:
        path = self.folder / name
        encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
        return path


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_files_of_somebody_elses_ca_are_copied_for_every_unit(layout: ClusterLayout, theirs: Authority) -> None:
    ca = theirs.write("corporate.pem", theirs.root)
    chain = theirs.write("node.pem", theirs.leaf(), theirs.middle)
    key = theirs.write_key("node-key.pem", theirs.leaf_key)
    tls = TlsSettings(str(ca), str(chain), str(key), 825, (), False)
    assert len(ensure_certificates(layout, NAMES, tls, NOW)) == 5
    assert Path(layout.ca_certificate).read_bytes() == ca.read_bytes()
    for name in NAMES:
        assert Path(layout.certificate(name)).read_bytes() == chain.read_bytes()
        assert Path(layout.key(name)).read_bytes() == key.read_bytes()
        assert mode(layout.key(name)) == 0o600
    assert ensure_certificates(layout, NAMES, tls, NOW) == ()
    theirs.write("node.pem", theirs.leaf(days=(-1, 99)), theirs.middle)
    assert len(ensure_certificates(layout, NAMES, tls, NOW)) == 2


def test_the_clusters_own_ca_is_not_replaced_by_another(layout: ClusterLayout, theirs: Authority) -> None:
    ensure_certificates(layout, NAMES, OWN_CA, NOW)
    before = contents(Path(layout.tls))
    ca = theirs.write("ca.pem", theirs.root)
    chain = theirs.write("node.pem", theirs.leaf(), theirs.middle)
    tls = TlsSettings(str(ca), str(chain), str(theirs.write_key("k.pem", theirs.leaf_key)), 825, (), False)
    with pytest.raises(CertificateError, match="already has a CA"):
        ensure_certificates(layout, NAMES, tls, NOW)
    assert contents(Path(layout.tls)) == before


def test_each_fault_of_foreign_files_is_named(theirs: Authority) -> None:
    ca = theirs.write("ca.pem", theirs.root)
    good = theirs.write("good.pem", theirs.leaf(), theirs.middle)
    key = theirs.write_key("key.pem", theirs.leaf_key)
    other_key = theirs.write_key("other.pem", rsa.generate_private_key(65537, 2048))
    locked = theirs.write_key("locked.pem", theirs.leaf_key, b"passphrase")
    junk = theirs.folder / "junk.pem"
    junk.write_bytes(b"\x00\xff not PEM")
    expired = theirs.write("expired.pem", theirs.leaf(days=(-9, -1)), theirs.middle)
    future = theirs.write("future.pem", theirs.leaf(days=(2, 9)), theirs.middle)
    no_chain = theirs.write("no-chain.pem", theirs.leaf())
    server_only = theirs.write("s.pem", theirs.leaf((ExtendedKeyUsageOID.SERVER_AUTH,)), theirs.middle)
    old_root = theirs.sign(
        "Corporate Root", theirs.root_key.public_key(), "Corporate Root", theirs.root_key, ca=True, days=(-9, -1)
    )
    old_ca = theirs.write("old-ca.pem", old_root)
    missing = theirs.folder / "missing.pem"
    check_certificates(ca, good, key, NOW)
    check_certificates(theirs.write("both.pem", old_root, theirs.root), good, key, NOW)
    for files, complaint, file in (
        ((missing, good, key), "certificate cannot be read", missing),
        ((ca, missing, key), "certificate cannot be read", missing),
        ((ca, good, missing), "private key cannot be read", missing),
        ((ca, theirs.folder, key), "certificate cannot be read", theirs.folder),
        ((junk, good, key), "not a certificate in PEM", junk),
        ((ca, junk, key), "not a certificate in PEM", junk),
        ((ca, key, key), "not a certificate in PEM", key),
        ((ca, good, junk), "not a private key in PEM", junk),
        ((ca, good, good), "not a private key in PEM", good),
        ((ca, good, locked), "passphrase", locked),
        ((ca, good, other_key), "does not belong to the certificate", other_key),
        ((ca, expired, key), "has expired", expired),
        ((ca, future, key), "not valid yet", future),
        ((old_ca, good, key), "has expired", old_ca),
        ((ca, no_chain, key), "not signed by the CA", no_chain),
        ((ca, server_only, key), "both server and client", server_only),
    ):
        with pytest.raises(CertificateError) as caught:
            check_certificates(*files, NOW)
        assert complaint in str(caught.value)
        assert caught.value.where == str(file)
        assert caught.value.next_step


@pytest.mark.parametrize("given", [("ca", "", ""), ("", "crt", "key"), ("ca", "crt", "")])
def test_one_or_two_files_are_not_enough(layout: ClusterLayout, given: tuple[str, str, str]) -> None:
    with pytest.raises(CertificateError, match="three files"):
        ensure_certificates(layout, NAMES, TlsSettings(*given, 825, (), False), NOW)
    assert not Path(layout.tls).exists()


def test_two_that_start_at_once_share_one_ca(tmp_path: Path) -> None:
    """Whoever loses the race to create ca.key signs with the winner's."""
    create_ca(tmp_path / "a", NOW)
    winner = (tmp_path / "a" / "ca.key").read_bytes()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "ca.key").write_bytes(winner)
    assert create_ca(tmp_path / "b", NOW) == (str(tmp_path / "b" / "ca.crt"),)
    issue_certificate(tmp_path / "a", "n", ("n",), 10, NOW)
    assert is_signed_by(certificate(tmp_path / "a" / "n.crt"), [certificate(tmp_path / "b" / "ca.crt")])
