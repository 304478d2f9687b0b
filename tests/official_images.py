"""Stand-ins for the official images redis: and envoyproxy/envoy:, where no registry can be reached.

They are laid out as the official ones are, as far as whoever runs them can see: the program in /usr/local/bin, an
entrypoint that drops root, the same users, working folder, volume and default command; no python, no keeper, nothing of
RedisForge's. What is inside is the engine and the Envoy that `redisforge binaries` has.

Sources: github.com/redis/docker-library-redis (debian/), github.com/envoyproxy/envoy (distribution/docker/).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from docker_bed import TEST_LABEL, DockerBed
from redisforge.fleet.binaries import cache_folder, ensure_engine, ensure_envoy
from redisforge.fleet.image_context import write_engine_context, write_envoy_context
from redisforge.model.images import ENGINE_PATH
from redisforge.model.topology import Engine

REDIS_IMAGE = "redisforge-test/official-redis:1"
ENVOY_IMAGE = "redisforge-test/official-envoy:1"
ENTRYPOINT = "docker-entrypoint.sh"
BUILD_LIMIT_S = 240.0

# Older images ask for the volume; newer ones have the folder alone.
_REDIS = f"""\
FROM {{base}}
LABEL {TEST_LABEL}=official
RUN echo 'redis:x:999:' >>/etc/group && echo 'redis:x:999:999::/home/redis:/bin/sh' >>/etc/passwd \\
 && mkdir /data && chown 999:999 /data \\
 && for name in server cli; do ln -s "{ENGINE_PATH}/bin/redis-$name" "/usr/local/bin/redis-$name"; done
COPY engine/ {ENGINE_PATH}/
COPY {ENTRYPOINT} /usr/local/bin/
VOLUME /data
WORKDIR /data
ENTRYPOINT ["{ENTRYPOINT}"]
EXPOSE 6379
CMD ["redis-server"]
"""

_REDIS_ENTRYPOINT = """\
#!/bin/sh
set -eu
case $1 in
  -* | *.conf) set -- redis-server "$@" ;;
esac
if [ "${1##*/}" = redis-server ] && [ "$(id -u)" = 0 ]; then
  chown -R redis:redis .
  exec setpriv --reuid=redis --regid=redis --clear-groups --no-new-privs "$0" "$@"
fi
case $(umask) in
  0022) umask 0077 ;;
esac
exec "$@"
"""

_ENVOY = f"""\
FROM {{base}}
LABEL {TEST_LABEL}=official
RUN echo 'envoy:x:101:' >>/etc/group && echo 'envoy:x:101:101::/home/envoy:/usr/sbin/nologin' >>/etc/passwd \\
 && mkdir /etc/envoy && echo 'admin: {{{{}}}}' >/etc/envoy/envoy.yaml
COPY program/envoy /usr/local/bin/envoy
COPY {ENTRYPOINT} /
ENTRYPOINT ["/{ENTRYPOINT}"]
EXPOSE 10000
CMD ["envoy", "-c", "/etc/envoy/envoy.yaml"]
"""

_ENVOY_ENTRYPOINT = """\
#!/bin/sh
set -eu
case $1 in
  -*) set -- envoy "$@" ;;
esac
if [ "$(id -u)" != 0 ] || [ "${ENVOY_UID:-}" = 0 ]; then
  exec "$@"
fi
user=${ENVOY_UID:-101}
chown "$user" /dev/stdout /dev/stderr
exec setpriv --reuid="$user" --regid="${ENVOY_GID:-101}" --clear-groups "$@"
"""


def build_official(engine: DockerBed) -> str:
    """Build both; returns the version of Redis that is inside."""
    cache = cache_folder(os.environ)
    redis = ensure_engine(Engine(), cache, print, os.environ)
    envoy = ensure_envoy(">=1.32", "", cache, print, os.environ)
    with tempfile.TemporaryDirectory(prefix="redisforge-test-official-") as folder:
        for name in ("redis", "envoy"):
            Path(folder, name).mkdir()
        write_engine_context(Path(folder, "redis"), redis)
        write_envoy_context(Path(folder, "envoy"), envoy)
        _build(engine, Path(folder, "redis"), REDIS_IMAGE, _REDIS, _REDIS_ENTRYPOINT)
        _build(engine, Path(folder, "envoy"), ENVOY_IMAGE, _ENVOY, _ENVOY_ENTRYPOINT)
    return redis.version


def remove_official(engine: DockerBed) -> None:
    """Remove them."""
    engine.docker("rmi", REDIS_IMAGE, ENVOY_IMAGE, check=False)


def _build(engine: DockerBed, context: Path, name: str, dockerfile: str, entrypoint: str) -> None:
    """A context of RedisForge's own images, with another Dockerfile that takes nothing but the program from it."""
    (context / "Dockerfile").write_text(dockerfile.format(base=engine.base_image()))
    (context / ENTRYPOINT).write_text(entrypoint)
    (context / ENTRYPOINT).chmod(0o755)
    engine.docker("build", "--quiet", "--force-rm", "--tag", name, str(context), limit_s=BUILD_LIMIT_S)
