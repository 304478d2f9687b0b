"""`python -m redisforge` is the `redisforge` command."""

from redisforge.cli.main import main

if __name__ == "__main__":
    main()
