"""The network of a cluster: a switch in a space of its own, and a wire from there into each node's space."""

from collections.abc import Sequence
from typing import Final

from lab.cluster.shell import run

ADDRESSES: Final = "10.77.1"
"""Nodes have these with their numbers, from 1 on."""


class Network:
    """`name` is that of the switch's space, and how those of nodes begin: `remains` knows them by it."""

    def __init__(self, name: str, nodes: Sequence[str]) -> None:
        self._name, self._nodes = name, nodes

    def make(self) -> None:
        """The switch, the nodes' spaces and their wires."""
        run("ip", "netns", "add", self._name)
        run("ip", "-n", self._name, "link", "add", "br0", "type", "bridge", "forward_delay", "0")
        run("ip", "-n", self._name, "link", "set", "br0", "up")
        for number, node in enumerate(self._nodes, 1):
            self._wire(node, number)

    def space(self, node: str) -> str:
        """The name of a node's space."""
        return f"{self._name}-{node}"

    def cut(self, node: str) -> None:
        """Take a node off the network."""
        run("ip", "-n", self._name, "link", "set", node, "down")

    def mend(self, node: str) -> None:
        """Put it back."""
        run("ip", "-n", self._name, "link", "set", node, "up")

    def _wire(self, node: str, number: int) -> None:
        space = self.space(node)
        run("ip", "netns", "add", space)
        link = ("link", "add", node, "type", "veth", "peer", "name", "eth0", "netns", space)
        run("ip", "-n", self._name, *link)
        run("ip", "-n", self._name, "link", "set", node, "master", "br0", "up")
        run("ip", "-n", space, "link", "set", "lo", "up")
        run("ip", "-n", space, "addr", "add", f"{ADDRESSES}.{number}/24", "dev", "eth0")
        run("ip", "-n", space, "link", "set", "eth0", "up")
