"""redisforge.yaml, .env and the environment become a Topology."""
