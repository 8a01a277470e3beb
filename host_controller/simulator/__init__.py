"""Hosts and guests that exist only in memory, behind the interface that real ones are driven through.

The engine that runs in production is the one that runs here. What is assumed of the world:

- Time is virtual. Everything that happens has a time that is a multiple of the agenda's resolution.
- A guest's kernel is its sums (`memory.py`): who holds how much, what reclaim gives, what stalls. Pages,
  zones and fragmentation are not there; reclaim takes cache first and then swaps.
- QEMU's balloon and DIMMs count as the real ones do (docs/facts.md, balloon and DIMMs), oddities included.
- A guest's agent is the real one's decision code (`agent.report`) over the simulated kernel.
- Equal seeds give equal runs.
"""
