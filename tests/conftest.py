"""Settings that hold for every test."""

from hypothesis import settings

# A property says nothing about speed, and a busy machine must not make it fail.
settings.register_profile("embedctl", deadline=None)
settings.load_profile("embedctl")
