"""What the Docker runtime runs on a host, by /bin/sh: each a single round trip.

All say what they are by `$0` and take their arguments as `$1 …`; nothing is pasted into them.
"""

from __future__ import annotations

from redisforge.render.container import FOLDER_LABEL, SHAPE_FORMAT, UNIT_LABEL

STRANGER = 91
"""Exit status: a container of that name is not ours."""
HELD_BACK = 92
"""Exit status: the data folder of a node without a keeper is empty."""

_ANSWERS = "docker version >/dev/null || exit 1\n"
"""Where a container that is not found would be as good as gone: first see that somebody can be asked."""

OWN = """
# FOLDER... : root's files become those of user 999, whom containers then run as.
[ "$(id -u)" != 0 ] || chown -R 999:999 "$@"
"""

OBSERVE = f"""
# CLUSTER_FOLDER : a line for each container and for each file that tells of a Unit, fields separated by tabs.
set -u
ids=$(docker ps --all --quiet --no-trunc --filter "label={FOLDER_LABEL}=$1") || exit 1
[ -z "$ids" ] || docker inspect --format 'container\t{{{{index .Config.Labels "{UNIT_LABEL}"}}}}\t{{{{json .State}}}}\t\
{{{{json .Config.Labels}}}}\t{{{{.RestartCount}}}}\t{SHAPE_FORMAT}' $ids || exit 1
for unit in "$1"/units/*/; do
  name=${{unit%/}}; name=${{name##*/}}
  [ -e "$unit/unit.json" ] || continue
  for file in unit state applied; do
    [ ! -e "$unit/$file.json" ] || printf '%s\\t%s\\t%s\\n' "$file" "$name" "$(tr -d '\\n' <"$unit/$file.json")"
  done
  [ ! -e "$unit/shape" ] || printf 'shape\\t%s\\t%s\\n' "$name" "$(cat "$unit/shape")"
  [ ! -e "$unit/data/nodes.conf" ] || printf 'nodes\\t%s\\t%s %s %s\\n' "$name" \
    "$(grep -c myself "$unit/data/nodes.conf")" "$(grep -c : "$unit/data/nodes.conf")" \
    "$(sed -n '/myself/s/ .*//p' "$unit/data/nodes.conf")"
  for file in elected last-election; do
    [ ! -e "$unit/$file" ] || printf '%s\\t%s\\t%s\\n' "$file" "$name" "$(stat -c %Y "$unit/$file")"
  done
done
"""

IMAGES = """
# MAY_PULL IMAGE... : a line "version architecture" of Docker itself; then for each image a line
# "name <tab> program label <tab> architecture"; one that is missing has the label "-".
may_pull=$1; shift
docker version --format '{{.Server.Version}} {{.Server.Arch}}' || exit 1
for image in "$@"; do
  if ! docker image inspect "$image" >/dev/null 2>&1; then
    [ "$may_pull" = yes ] && docker pull --quiet "$image" >/dev/null
  fi
  told=$(docker image inspect \
    --format '{{index .Config.Labels "io.redisforge.program"}}{{"\t"}}{{.Architecture}}' "$image" 2>/dev/null) \
    || { docker version >/dev/null || exit 1; told=-; }
  printf '%s\\t%s\\n' "$image" "$told"
done
"""

NAMES = f"""
# Every container, ours or not, in a line "name <tab> cluster folder label".
docker ps --all --no-trunc --format '{{{{.Names}}}}\t{{{{.Label "{FOLDER_LABEL}"}}}}' || exit 1
"""

START = f"""
# CLUSTER_FOLDER UNIT_FOLDER NAME DATA PERMIT docker run ... : see that the container NAME runs; make it if not.
# DATA: a folder that must hold data, or "". PERMIT: whether an empty node may start.
# It runs as who logs in, or as 999 in place of root. What it writes is for nobody else, whatever its umask.
set -u
folder=$1 unit=$2 name=$3 data=$4 permit=$5; shift 7
user=$(id -u):$(id -g)
[ "$(id -u)" != 0 ] || user=999:999
[ "$permit" = yes ] || rm -f "$unit/permit-blank"
found=$(docker inspect --type container \
  --format '{{{{.State.Status}}}} {{{{index .Config.Labels "{FOLDER_LABEL}"}}}}' "$name" 2>/dev/null)
case $found in
  "") ;;
  "running $folder" | "paused $folder") rm -f "$unit/permit-blank"; exit 0 ;;
  *" $folder")
    docker logs --tail 5000 "$name" >"$unit/log.before" 2>&1
    docker rm --force --volumes "$name" >/dev/null || exit 1 ;;
  *) exit {STRANGER} ;;
esac
if [ -n "$data" ] && [ -z "$(ls -A "$data" 2>/dev/null | grep -v '^.keep$')" ]; then exit {HELD_BACK}; fi
chmod go= "$unit" || exit 1
docker run --user "$user" "$@" >/dev/null || {{
  status=$?
  docker rm --force --volumes "$name" >/dev/null 2>&1
  exit "$status"
}}
docker inspect --type container --format '{SHAPE_FORMAT}' "$name" >"$unit/shape"
"""

STOP = (
    _ANSWERS
    + f"""
# CLUSTER_FOLDER NAME... : end our containers, all at once; they stay for their logs.
set -u
folder=$1; shift
for name in "$@"; do
  found=$(docker inspect --type container --format '{{{{index .Config.Labels "{FOLDER_LABEL}"}}}}' "$name" 2>/dev/null)
  [ "$found" = "$folder" ] || continue
  docker stop "$name" >/dev/null &
  jobs="${{jobs:-}} $!"
done
status=0
for job in ${{jobs:-}}; do wait "$job" || status=1; done
exit $status
"""
)

REMOVE = (
    _ANSWERS
    + f"""
# CLUSTER_FOLDER NAME... : delete our containers.
set -u
folder=$1; shift
for name in "$@"; do
  found=$(docker inspect --type container --format '{{{{index .Config.Labels "{FOLDER_LABEL}"}}}}' "$name" 2>/dev/null)
  [ "$found" != "$folder" ] || docker rm --force --volumes "$name" >/dev/null || exit 1
done
"""
)

LOGS = 'docker logs "$1" 2>&1'
"""NAME : everything that a container wrote."""
