"""What holds for all tests."""

from hypothesis import settings

# A deadline for an example would be a timed test: it fails on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
