"""`dynmem doctor`: small checks over gathered facts, each with its remedy.

facts.py names what is gathered; host.py and vm.py judge it, without I/O. hypervisor/survey.py asks libvirt,
kernel.py reads the host's kernel.
"""
