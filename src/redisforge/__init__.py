"""RedisForge: production Redis Cluster behind Envoy as one TLS endpoint, without Kubernetes."""

__version__ = "0.1.0"
