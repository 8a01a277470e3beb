"""Beyond one host: where VMs start and move, by what they truly need.

`core/` decides and is pure; `pacemaker/` speaks with the engine that carries it out. No host needs the fleet:
with the engine dead, cut off or lying, every rule of one host holds.
"""
