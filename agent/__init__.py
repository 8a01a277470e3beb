"""The daemon inside guests: reports memory facts, brings hot-added memory online, gives it back."""

__version__ = "0.2.0"
