"""Whether a domain can do dynamic memory: what `enable` accepts starts, grows and shrinks.

`judge.py` asks every check. A check says what stands in the way, why, and the ways out. A way out is more
than a sentence: it is a step that a program can take, and the tests take every one under a real libvirt.
"""
