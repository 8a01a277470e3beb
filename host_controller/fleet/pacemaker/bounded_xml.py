"""XML from the engine's tools, read within bounds: no document type, no entities, no more than so much."""

from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from host_controller.fleet.errors import EngineError

LARGEST_BYTES: Final = 32 << 20
"""A cell of 32 hosts and 640 VMs has 2 MiB."""
DEEPEST: Final = 64


class _Builder(ElementTree.TreeBuilder):
    """Keeps comments, which a patch would otherwise take away, and ends what is nested too deeply."""

    def __init__(self) -> None:
        super().__init__(insert_comments=True)
        self._depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> Element:
        """An element begins."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise EngineError(f"the engine's XML is nested more than {DEEPEST} deep")
        return super().start(tag, attrs)

    def end(self, tag: str) -> Element:
        """An element ends."""
        self._depth -= 1
        return super().end(tag)

    def doctype(self, name: str, _pubid: str | None, _system: str | None) -> None:
        """A document type could define entities."""
        raise EngineError(f"the engine's XML has a document type ({name[:50]!r}), which none of its own has")


def read_xml(text: bytes, root: str) -> Element:
    """The root element, which has this name.

    Raises:
        EngineError: it cannot be read, or is something else.
    """
    if len(text) > LARGEST_BYTES:
        raise EngineError(f"the engine's XML has {len(text)} bytes; at most {LARGEST_BYTES} are read")
    parser = ElementTree.XMLParser(target=_Builder())  # noqa: S314 # nothing can be defined in it
    try:
        # As text, so that no declaration in it chooses another encoding.
        parser.feed(text.decode())
        found = parser.close()
    except (ElementTree.ParseError, UnicodeDecodeError, ValueError) as error:
        raise EngineError(f"the engine's XML cannot be read: {error}") from None
    if not isinstance(found, Element) or found.tag != root:
        raise EngineError(f"the engine's XML is no <{root}>")
    return found
