"""The lab: real guests under QEMU and a private libvirt, and an observer that shares nothing with dynmem."""
