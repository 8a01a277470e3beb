"""A real cluster on one machine: corosync, pacemaker, libvirtd and dynmem on nodes made of namespaces."""
