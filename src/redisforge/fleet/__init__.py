"""Where things run: transports, runtimes, binaries. Everything that runs is a Unit."""
