"""Which events stand on the curve of a VM's history: pictures and pages draw the same. Pure."""

from typing import Final

GROWN: Final = "grown"
SHRUNK: Final = "shrunk"
HELD_BACK: Final = "held back"
RESET: Final = "reset"
OPERATOR: Final = "by somebody"
HOST: Final = "host is short"
BLOCKED: Final = "; held back: "
"""In a decision's text, before what held it back."""
_BY_ACTION: Final = {"grow": GROWN, "plug": GROWN, "shrink": SHRUNK, "unplug": SHRUNK}
_BY_TOPIC: Final = {
    "reset": RESET,
    "operator": OPERATOR,
    "foreign": OPERATOR,
    "overdraft": HOST,
    "emergency": HOST,
}


def mark_of(kind: str, topic: str, text: str) -> str | None:
    """What an entry is marked as; None where it is not worth a mark."""
    if kind == "decision":
        return HELD_BACK if BLOCKED in text else _BY_ACTION.get(topic)
    return _BY_TOPIC.get(topic) if kind == "notice" else None
