"""The host side of dynmem: a controller that moves memory between the VMs of one host, and its CLI."""

__version__ = "0.2.0"
