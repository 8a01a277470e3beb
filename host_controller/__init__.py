"""The host side of dynmem: a controller that moves memory between the VMs of one host, and its CLI."""

import typing as typing  # agent.lean does without it, unless it is here: our annotations are worked out

__version__ = "0.2.0"
