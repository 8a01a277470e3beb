"""A domain's XML from the hook, looked at before anything is built of it. Blocking: run it in a thread.

Whoever may post it can post anything. A document type could name entities that swell (or files of ours), and
a tree of a million elements takes seconds to build while nothing else of Python runs. So it is read as a
stream first, in pieces after each of which the control loop may go on.
"""

from typing import Final
from xml.parsers import expat  # only counts, and refuses what defusedxml would

LARGEST_BYTES: Final = 1 << 20
"""The largest domains that libvirt's own tests know are 60 KiB; a disk or a NIC is about 1 KiB."""
MOST_ELEMENTS: Final = 20_000
DEEPEST: Final = 64
_PIECE: Final = 1 << 15


class UnfitXml(ValueError):  # noqa: N818 # read as what it is
    """It is not well-formed, or more than a domain can need. The text says which, in words of ours."""


class _Counter:
    def __init__(self) -> None:
        self.elements = self.depth = 0

    def start(self, _name: str, _attributes: object) -> None:
        self.elements += 1
        self.depth += 1
        if self.elements > MOST_ELEMENTS:
            raise UnfitXml(f"more than {MOST_ELEMENTS} elements")
        if self.depth > DEEPEST:
            raise UnfitXml(f"nested more than {DEEPEST} deep")

    def end(self, _name: str) -> None:
        self.depth -= 1

    @staticmethod
    def document_type(*_: object) -> None:
        raise UnfitXml("a document type, which no domain has")


def check(body: bytes) -> str:
    """The text of a domain's XML that is safe to parse.

    Raises:
        UnfitXml: it is not, or no UTF-8.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise UnfitXml("it is not UTF-8") from None
    counter = _Counter()
    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = counter.start
    parser.EndElementHandler = counter.end
    parser.StartDoctypeDeclHandler = counter.document_type
    parser.EntityDeclHandler = counter.document_type
    try:
        for at in range(0, len(body), _PIECE):
            parser.Parse(body[at : at + _PIECE], False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise UnfitXml(f"it is not XML: {expat.ErrorString(error.code)}") from None
    return text
