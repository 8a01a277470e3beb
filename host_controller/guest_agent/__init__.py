"""The QEMU guest agent: what it is asked, and its answers, which are hostile until they are validated.

Nothing here does I/O: `hypervisor/guest_agent_line.py` carries the words.
Source: QEMU's qga/qapi-schema.json.
"""
