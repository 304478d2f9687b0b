"""What all tests share: the marker's meaning is in pyproject.toml, the tools for real clusters in integration/."""
