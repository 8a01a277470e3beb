"""The edge to the hypervisor: the only package that knows libvirt."""
