"""A host burnt in: a throwaway guest goes through all that dynmem will ask of real ones.

`machine.py` is what the checks are given; `course.py` is their order. They decide by what QEMU, the host's
kernel and the guest say together, so that one of them may lie.
"""
