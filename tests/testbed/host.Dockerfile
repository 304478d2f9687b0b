# A "host" for tests: sshd, an engine of Docker, a user `deploy` who may use it and sudo. No systemd: it would only
# cost time, and nothing here is about it.
ARG BASE
FROM $BASE
RUN apt-get -qq update \
 && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
      openssh-server docker.io docker-cli iptables iproute2 procps python3 sudo ca-certificates \
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
 && useradd --create-home --shell /bin/bash --groups docker deploy \
 && echo 'deploy ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/deploy \
 && install -d -o deploy -g deploy /srv/redisforge \
 && mkdir -p /etc/docker \
 && echo '{"storage-driver": "overlay2", "bip": "172.30.0.1/24", "log-level": "warn"}' >/etc/docker/daemon.json
COPY host_init.sh slow_line.py /usr/local/lib/
LABEL io.redisforge.test=host-image
STOPSIGNAL SIGTERM
CMD ["bash", "/usr/local/lib/host_init.sh"]
