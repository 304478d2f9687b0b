# PID 1 of a test host: starts sshd and dockerd, and ends them in order. The operator's public key is in $OPERATOR_KEY.
# bash also collects processes that were left without a parent, as PID 1 must.
set -u
for mounted in /sys /sys/fs/cgroup /sys/fs/cgroup/*/; do
  mount -o remount,bind,rw "$mounted" 2>/dev/null
done
# A process of a container in a container needs its limits set where the kernel lets us (cgroup v2 alone).
if [ -e /sys/fs/cgroup/cgroup.subtree_control ]; then
  mkdir -p /sys/fs/cgroup/init
  while read -r pid; do echo "$pid" >/sys/fs/cgroup/init/cgroup.procs; done </sys/fs/cgroup/cgroup.procs
  sed 's/\</+/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
fi 2>/dev/null

mkdir -p /run/sshd
[ -e /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
install -d -o deploy -g deploy -m 700 ~deploy/.ssh
printf '%s\n' "$OPERATOR_KEY" >~deploy/.ssh/authorized_keys
chown deploy:deploy ~deploy/.ssh/authorized_keys
chmod 600 ~deploy/.ssh/authorized_keys

# Tests also connect without logging in, and must not be shut out for it as sshd >= 9.8 does.
patient=
/usr/sbin/sshd -t -o PerSourcePenalties=no 2>/dev/null && patient='-o PerSourcePenalties=no'
/usr/sbin/sshd -D $patient -o MaxStartups=100 -o MaxSessions=100 -o PasswordAuthentication=no &
sshd=$!
dockerd >>/var/log/dockerd.log 2>&1 &

stop() {
  if engine=$(cat /run/docker.pid 2>/dev/null) && kill -TERM "$engine" 2>/dev/null; then
    while [ -e "/proc/$engine/exe" ]; do sleep 0.1; done
  fi
  kill "$sshd"
  exit 0
}
trap stop TERM
while :; do
  wait -n
  [ $? -eq 127 ] && sleep 1
done
