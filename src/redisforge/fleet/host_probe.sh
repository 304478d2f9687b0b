# What a host is like, as KEY=VALUE lines: POSIX sh and the usual small tools, run as `sh -c PROGRAM sh …`.
# Arguments: the data folder; how many MB to write there as a measure of its disk (0: none); ports as `7001,17001`;
# then the files whose text is wanted. It changes nothing but a file of its own in the data folder, which it removes.
# The first and the last line are the host's clock, so that the caller can tell the travel time from the work.
export LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
say() { printf '%s=%s\n' "$1" "$(printf '%s' "$2" | tr '\n\t' '  ')"; }
has() { command -v "$1" >/dev/null 2>&1; }
within() { # a limit in seconds, and a command that might hang
limit=$1
shift
if has timeout
then timeout "$limit" "$@"
else "$@"
fi
}
say began "$(date +%s.%N)"
folder=$1 megabytes=$2 ports=$3
shift 3

say system "$(uname -s)"
say kernel "$(uname -r)"
say architecture "$(uname -m)"
say distribution "$( (. /etc/os-release && printf '%s' "$PRETTY_NAME") 2>/dev/null)"
say machine "$(uname -n) $(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"
say user "$(id -un 2>/dev/null || id -u)"
say uid "$(id -u)"
say capabilities "$(awk '$1 == "CapEff:" { print $2 }' /proc/self/status 2>/dev/null)" # of awk: of what this user starts
say init "$(cat /proc/1/comm 2>/dev/null)"
if has sudo && within 5 sudo -n true >/dev/null 2>&1
then say sudo yes
fi
has python3 && say python "$(within 5 python3 -I -c 'import platform; print(platform.python_version())' 2>/dev/null)"
for tool in tar sha256sum stat mv chmod sync cat rm mkdir df id
do has "$tool" || say missing "$tool"
done

if has docker
then
say docker.client "$(within 5 docker --version 2>/dev/null)"
if shown=$(within 10 docker info --format '{{.ServerVersion}}|{{.Driver}}' 2>&1) && [ "${shown#|}" = "$shown" ]
then
say docker.server "${shown%%|*}"
say docker.driver "${shown##*|}"
say docker.published "$(within 10 docker ps --filter "label=io.redisforge.folder=$folder" --format '{{.Ports}}' 2>/dev/null)"
else say docker.problem "$(printf '%s' "$shown" | tail -n 2)"
fi
fi

existing=$folder
while [ ! -d "$existing" ] && [ "$existing" != / ] && [ "$existing" != . ]
do existing=$(dirname -- "$existing")
done
say folder.existing "$existing"
[ -w "$existing" ] && [ -x "$existing" ] && say folder.writable yes
say folder.free_kib "$(df -Pk -- "$existing" 2>/dev/null | awk 'NR == 2 { print $4 }')"
if [ "$megabytes" -gt 0 ]
then
free=$(df -Pk -- "$existing" 2>/dev/null | awk 'NR == 2 { print $4 }')
if [ ! -w "$existing" ]
then say folder.write_problem 'it may not be written by this user'
elif [ "${free:-0}" -lt "$((megabytes * 4096))" ]
then say folder.write_problem 'too little space to try it'
else
trial=$existing/.redisforge-trial.$$
trap 'rm -f -- "$trial"' EXIT
trap 'exit 1' HUP INT TERM
say folder.write_began "$(date +%s.%N)"
if why=$(within 20 dd if=/dev/zero of="$trial" bs=1048576 count="$megabytes" conv=fsync 2>&1)
then
say folder.write_ended "$(date +%s.%N)"
say folder.written_mib "$megabytes"
else say folder.write_problem "it did not write $megabytes MB within 20 s: $(printf '%s' "$why" | tail -n 1)"
fi
rm -f -- "$trial"
fi
fi

say cores "$(getconf _NPROCESSORS_ONLN 2>/dev/null || grep -c '^processor' /proc/cpuinfo)"
say memory_kib "$(awk '$1 == "MemTotal:" { print $2 }' /proc/meminfo)"
say swap_kib "$(awk '$1 == "SwapTotal:" { print $2 }' /proc/meminfo)"
say open_files "$(ulimit -Hn)"
say huge_pages "$(sed 's/.*\[\(.*\)\].*/\1/' /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null)"
for name in vm.overcommit_memory vm.swappiness net.core.somaxconn net.ipv4.tcp_max_syn_backlog \
net.ipv4.ip_unprivileged_port_start
do
path=/proc/sys/$(printf %s "$name" | tr . /)
[ -r "$path" ] && say "sysctl.$name" "$(cat "$path")"
done

# Listening sockets on the wanted ports: /proc/net/tcp has them in hexadecimal, state 0A is LISTEN.
sockets=$(awk -v wanted="$ports" '
BEGIN { count = split(wanted, list, ","); for (i = 1; i <= count; i++) known[sprintf("%04X", list[i])] = 1 }
$4 == "0A" { split($2, place, ":"); if (place[2] in known) print $2, $10 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null)
if [ -n "$sockets" ]
then
held=$(ls -l /proc/[0-9]*/fd 2>/dev/null | awk '
/^\/proc\// { split($1, part, "/"); pid = part[3] }
/socket:\[/ { inode = $NF; gsub(/[^0-9]/, "", inode); print inode, pid }')
printf '%s\n' "$sockets" | while read -r place inode
do
pid=$(printf '%s\n' "$held" | awk -v inode="$inode" '$1 == inode { print $2; exit }')
where= command=
if [ -n "$pid" ]
then
where=$(readlink "/proc/$pid/cwd" 2>/dev/null)
command=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c 1-120)
fi
printf 'listener=%s\t%s\t%s\t%s\n' "$place" "${pid:-0}" "$where" "$(printf '%s' "$command" | tr '\n\t' '  ')"
done
fi

for path
do
if [ -r "$path" ]
then
say file "$path"
sed 's/^/line=/' "$path"
fi
done
say ended "$(date +%s.%N)"
