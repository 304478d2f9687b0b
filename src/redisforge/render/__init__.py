"""PURE. A Topology becomes redis.conf, users.acl, envoy.yaml and connection strings."""
