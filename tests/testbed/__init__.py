"""A test bed of many hosts on one machine: containers, each with an sshd and an engine of Docker of its own.

hosts.py        the bed: made, asked, broken and removed
host.Dockerfile, host_init.sh   what a host is
slow_line.py    runs on a host: delays and loses what arrives
"""
