"""The programs that a host runs for the SSH transport: POSIX sh and the usual small tools, and what is sent to them.

Pure: texts and bytes. What the programs need of a host: tar, sha256sum, stat, mv, chmod, sync (GNU or busybox).
"""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
from collections.abc import Sequence

import msgspec

from redisforge.errors import HostError
from redisforge.model.unit import UnitFile

LAUNCH = r"""
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
mark=$1 limit=$2
shift 2
if command -v "$1" >/dev/null 2>&1
then why=
elif [ -e "$1" ]
then why='Permission denied'
else why='No such file or directory'
fi
printf '%s\n' "$mark" >&2
printf '%s %s %s\n' "$mark" "$$" "$why"
[ -z "$why" ] || exit 127
if command -v timeout >/dev/null 2>&1
then exec timeout -s KILL "$limit" "$@"
fi
exec "$@"
"""
"""Arguments: mark, limit in seconds, command.

It first prints a line of its own on both streams (mark, process group, why the command cannot be run), so that what the
user's shell printed before is known not to be the command's, and so that the caller can kill the group: sshd starts
every command as the leader of a session. `timeout` ends it when the caller cannot, because the connection is dead.
"""

KILL = r"""
kill -TERM "-$1" 2>/dev/null
tries=0
while kill -0 "-$1" 2>/dev/null && [ "$tries" -lt 10 ]
do sleep 0.1 2>/dev/null || sleep 1
tries=$((tries + 1))
done
kill -KILL "-$1" 2>/dev/null
exit 0
"""
"""Argument: a process group. It gets a second to clean up."""

PLACE = r"""
export LC_ALL=C
folder=$1 nonce=$2 count=$3
new_line='
'
mask=$(umask)
fail() {
printf 'fail %s\n' "$1"
exit 1
}
take() {
lines=
left=$count
while [ "$left" -gt 0 ]
do
IFS= read -r line || fail 0
lines=$lines$line$new_line
left=$((left - 1))
done
}
modes=
left=$count
set --
while [ "$left" -gt 0 ]
do
IFS=' ' read -r mode name || fail 0
case $name in
*\\*) name=$(printf '%b.' "$name") name=${name%.} ;;
esac
set -- "$@" "$folder/$name"
modes=$modes$mode$new_line
left=$((left - 1))
done
take
there=$lines
take
sent=$lines
if [ "$(stat -Lc %a -- "$@" 2>/dev/null)$new_line" = "$modes" ] && printf %s "$there" | sha256sum -c >/dev/null 2>&1
then
echo changed
exit 0
fi
trap : HUP INT TERM
(
number=0
for path
do
number=$((number + 1))
parent=${path%/*}
[ -d "$parent" ] || mkdir -p -- "$parent" || fail "$number"
if [ -d "$path" ]
then
echo 'Is a directory' >&2
fail "$number"
fi
done
umask 077
tar -x -o -m -f - -C "$folder" || fail 0
umask "$mask"
if ! printf %s "$sent" | sha256sum -c >/dev/null 2>&1
then
echo 'the files did not arrive whole' >&2
fail 0
fi
changed= number=0
for path
do
number=$((number + 1))
mode=${modes%%$new_line*} modes=${modes#*$new_line}
line=${there%%$new_line*} there=${there#*$new_line}
beside=${path%/*}/.rf-$nonce-$number
if [ -f "$path" ] && [ "$(stat -Lc %a -- "$path" 2>/dev/null)" = "$mode" ] &&
printf '%s\n' "$line" | sha256sum -c >/dev/null 2>&1
then
rm -f -- "$beside"
continue
fi
chmod "$mode" "$beside" || fail "$number"
sync "$beside" 2>/dev/null || sync || fail "$number"
changed="$changed $number"
done
for number in $changed
do
eval "path=\${$number}"
parent=${path%/*}
mv -f -- "$parent/.rf-$nonce-$number" "$path" || fail "$number"
done
last=
for number in $changed
do
eval "path=\${$number}"
parent=${path%/*}
[ "$parent" = "$last" ] || sync "$parent" 2>/dev/null || sync
last=$parent
done
printf 'changed%s\n' "$changed"
)
status=$?
if [ "$status" -ne 0 ]
then
number=0
for path
do
number=$((number + 1))
rm -f -- "${path%/*}/.rf-$nonce-$number"
done
fi
exit "$status"
"""
"""Arguments: folder, nonce, number of files. Standard input: `placing_stream`.

If nothing differs it ends before it reads the files. Otherwise all files are written beside their places (0600 until
they are whole), checked against their hashes, given their modes, fsynced, and only then renamed. On any failure what
lies beside is taken away; that is done by the outer shell, which lives on when the rest is killed.
"""

FREE = r"""
path=$1
while [ ! -e "$path" ]
do
case $path in
*/?*) path=${path%/*} path=${path:-/} ;;
*) path=/ ;;
esac
done
exec stat -fc '%a %S' -- "$path"
"""
"""Argument: an absolute path. Prints the free blocks and the size of a block in bytes."""

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-")


class Answer(msgspec.Struct, frozen=True):
    """What LAUNCH has said: the command's process group, and why it cannot be run (empty: it can)."""

    group: int
    problem: str


def launch_line(mark: str, limit_s: int, argv: Sequence[str]) -> str:
    """The one line that the user's shell on the host reads. Everything is quoted here and nowhere else."""
    return "exec " + shlex.join(("sh", "-c", LAUNCH, "sh", mark, str(limit_s), *argv))


def read_launch(mark: str, stdout: bytes) -> Answer | None:
    """What LAUNCH said on standard output; None as long as its line is not complete."""
    _, found, rest = stdout.partition(f"{mark} ".encode())
    line, end, _ = rest.partition(b"\n")
    if not found or not end:
        return None
    group, _, problem = line.decode().partition(" ")
    return Answer(int(group), problem)


def after_launch(mark: str, stream: bytes) -> bytes:
    """The command's own part of a stream: what follows LAUNCH's line."""
    _, found, rest = stream.partition(mark.encode())
    return rest.partition(b"\n")[2] if found else stream


def placing_stream(folder: str, files: Sequence[UnitFile], nonce: str) -> bytes:
    """What PLACE reads: modes and names, the hashes of what should be there, the hashes of what is sent, and a tar."""
    names = [_bytes(file.path) for file in files]
    contents = [file.text().encode() for file in files]
    sums = [hashlib.sha256(content).hexdigest() for content in contents]
    beside = [name.rpartition(b"/")[0] + b"/" if b"/" in name else b"" for name in names]
    beside = [parent + f".rf-{nonce}-{number}".encode() for number, parent in enumerate(beside, 1)]
    root = _bytes(folder) + b"/"
    lines = [f"{file.mode:o} ".encode() + _escaped(name) for file, name in zip(files, names, strict=True)]
    lines += [_sum_line(digest, root + name) for digest, name in zip(sums, names, strict=True)]
    lines += [_sum_line(digest, root + name) for digest, name in zip(sums, beside, strict=True)]
    return b"".join(line + b"\n" for line in lines) + _archive(beside, contents)


def _archive(names: Sequence[bytes], contents: Sequence[bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
        for name, content in zip(names, contents, strict=True):
            member = tarfile.TarInfo(name.decode(errors="surrogateescape"))
            member.mode, member.size = 0o600, len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _bytes(path: str) -> bytes:
    return path.encode(errors="surrogateescape")


def _escaped(name: bytes) -> bytes:
    """For `printf %b`: every byte that a shell's `read` could change as an octal number."""
    return b"".join(bytes((byte,)) if byte in _PLAIN else f"\\0{byte:03o}".encode() for byte in name)


def _sum_line(digest: str, path: bytes) -> bytes:
    """A line for `sha256sum -c`. Source: coreutils, md5sum invocation: a leading backslash marks an escaped name."""
    if b"\\" in path or b"\n" in path:
        return b"\\" + digest.encode() + b"  " + path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    return digest.encode() + b"  " + path


def read_placed(host: str, folder: str, files: Sequence[UnitFile], said: tuple[str, str]) -> tuple[str, ...]:
    """The paths that PLACE has changed, from its two streams.

    Raises:
        HostError: it failed, with the file that it failed at.
    """
    stdout, stderr = said
    word, *numbers = (stdout.strip().splitlines() or [""])[-1].split(" ")
    if word == "changed":
        return tuple(files[int(number) - 1].path for number in numbers)
    number = int(numbers[0]) if word == "fail" and numbers else 0
    why = stderr[-2000:] or "no reason was given"
    if "Not a directory" in stderr or "File exists" in stderr:
        why = "a file is where the folder should be"
    elif "Wrote only" in stderr:  # how tar says it
        why = f"No space left on device\n{why}"
    raise HostError(
        "cannot write a file",
        where=f"{host}: {folder}/{files[number - 1].path}" if number else f"{host}: {folder}",
        why=why,
        next_step="Check the path, its permissions and the free space.",
    )
