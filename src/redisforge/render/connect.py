"""How a client connects to an endpoint: a URL, a command line or a piece of code that works as it is.

Every result holds the password and is therefore a `Secret`; the CLI reveals it on purpose when it prints it.
"""

from __future__ import annotations

import json
import shlex
from urllib.parse import quote, urlencode

import msgspec

from redisforge.errors import UsageError
from redisforge.model.secret import Secret
from redisforge.model.topology import Endpoint, Listener


class ClientCertificate(msgspec.Struct, frozen=True):
    """Absolute paths of the certificate that a client shows when `tls.require_client_certificates` is on."""

    certificate_path: str
    key_path: str


class _Target(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    port: int
    user: str
    password: str
    protocol: int
    ca_path: str
    client: ClientCertificate | None

    @property
    def network_location(self) -> str:
        """host:port, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def redis_url(
    endpoint: Endpoint,
    listener: Listener,
    password: Secret,
    ca_path: str,
    client: ClientCertificate | None = None,
) -> Secret:
    """Return the URL that redis-py's `from_url` takes as it is: user, password, CA file and protocol are in
    it.

    `ca_path` is the absolute path of the CA certificate on the client's machine.
    """
    return Secret(_url(_target(endpoint, listener, password, ca_path, client)))


def connection(
    endpoint: Endpoint,
    listener: Listener,
    password: Secret,
    ca_path: str,
    output_format: str = "url",
    client: ClientCertificate | None = None,
) -> Secret:
    """Return how to connect, in one of `FORMATS`.

    Raises:
        UsageError: no such format.
    """
    render = _RENDERERS.get(output_format)
    if render is None:
        raise UsageError(f"no such format: {output_format}", next_step=f"use one of {', '.join(FORMATS)}")
    return Secret(render(_target(endpoint, listener, password, ca_path, client)))


def _target(
    endpoint: Endpoint,
    listener: Listener,
    password: Secret,
    ca_path: str,
    client: ClientCertificate | None,
) -> _Target:
    return _Target(
        host=listener.address,
        port=listener.port,
        user=endpoint.user,
        password=password.reveal(),
        protocol=3 if endpoint.protocol == "RESP3" else 2,
        ca_path=ca_path,
        client=client,
    )


def _url(target: _Target) -> str:
    options = {
        "ssl_ca_certs": target.ca_path,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": "true",
        "protocol": str(target.protocol),
    }
    if target.client:
        options["ssl_certfile"] = target.client.certificate_path
        options["ssl_keyfile"] = target.client.key_path
    login = f"{quote(target.user, safe='')}:{quote(target.password, safe='')}"
    query = urlencode(options, quote_via=quote, safe="/")
    return f"rediss://{login}@{target.network_location}/0?{query}"


def _redis_cli(target: _Target) -> str:
    # REDISCLI_AUTH instead of -a: a password in the arguments would show up in `ps`.
    words = ["redis-cli", "-h", target.host, "-p", str(target.port), "--tls", "--cacert", target.ca_path]
    if target.client:
        words += ["--cert", target.client.certificate_path, "--key", target.client.key_path]
    words += ["--user", target.user]
    if target.protocol == 3:
        words.append("-3")
    return f"REDISCLI_AUTH={shlex.quote(target.password)} {shlex.join(words)}"


def _environment(target: _Target) -> str:
    values = {
        "REDIS_URL": _url(target),
        "REDIS_HOST": target.host,
        "REDIS_TLS_PORT": str(target.port),  # not REDIS_PORT: `redisforge up` reads that as the port of the nodes
        "REDIS_USERNAME": target.user,
        "REDIS_PASSWORD": target.password,
        "REDIS_PROTOCOL": str(target.protocol),
        "REDIS_TLS": "true",
        "REDIS_CA_FILE": target.ca_path,
    }
    if target.client:
        values["REDIS_CERT_FILE"] = target.client.certificate_path
        values["REDIS_KEY_FILE"] = target.client.key_path
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())


def _ioredis(target: _Target) -> str:
    read = 'require("node:fs").readFileSync'
    tls = [f"ca: {read}({_literal(target.ca_path)})"]
    if target.client:
        tls.append(f"cert: {read}({_literal(target.client.certificate_path)})")
        tls.append(f"key: {read}({_literal(target.client.key_path)})")
    return "\n".join(
        (
            'const Redis = require("ioredis");',
            "const redis = new Redis({",
            f"  host: {_literal(target.host)},",
            f"  port: {target.port},",
            f"  username: {_literal(target.user)},",
            f"  password: {_literal(target.password)},",
            f"  protocol: {target.protocol},",
            f"  tls: {{ {', '.join(tls)} }},",
            "});",
        )
    )


def _go_redis(target: _Target) -> str:
    certificate = ""
    if target.client:
        paths = f"{_literal(target.client.certificate_path)}, {_literal(target.client.key_path)}"
        certificate = _GO_CLIENT_CERTIFICATE.replace("@PATHS@", paths)
    values = {
        "@CA@": _literal(target.ca_path),
        "@CERTIFICATE@": certificate,
        "@ADDRESS@": _literal(target.network_location),
        "@USER@": _literal(target.user),
        "@PROTOCOL@": str(target.protocol),
    }
    program = _GO_PROGRAM
    for name, value in values.items():
        program = program.replace(name, value)
    # Last, so that nothing inside a password is taken for a placeholder.
    return program.replace("@PASSWORD@", _literal(target.password))


def _literal(text: str) -> str:
    """A string literal of JavaScript and of Go: JSON's escapes mean the same in both."""
    return json.dumps(text, ensure_ascii=False)


_GO_CLIENT_CERTIFICATE = """\
	certificate, err := tls.LoadX509KeyPair(@PATHS@)
	if err != nil {
		panic(err)
	}
	config.Certificates = []tls.Certificate{certificate}
"""

_GO_PROGRAM = """\
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/redis/go-redis/v9"
)

func main() {
	ca, err := os.ReadFile(@CA@)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
@CERTIFICATE@	client := redis.NewClient(&redis.Options{
		Addr:      @ADDRESS@,
		Username:  @USER@,
		Password:  @PASSWORD@,
		Protocol:  @PROTOCOL@,
		TLSConfig: config,
	})
	fmt.Println(client.Ping(context.Background()).Result())
}"""

_RENDERERS = {
    "url": _url,
    "redis-cli": _redis_cli,
    "ioredis": _ioredis,
    "go-redis": _go_redis,
    "env": _environment,
}
FORMATS = tuple(_RENDERERS)
"""The formats that `connection` knows; `url` is redis-py's."""
