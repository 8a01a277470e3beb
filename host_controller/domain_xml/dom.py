"""A DOM that is edited without disturbing what is around: namespaces, comments, order and layout stay.

ElementTree renames namespace prefixes; minidom keeps them, but knows neither the order and quotes of
attributes nor which characters of a text were escaped, which is what this adds: a start tag or a text that
was not changed is written as it was read.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final
from xml.dom import minidom
from xml.dom.minidom import Document, Element, Text
from xml.etree import ElementTree
from xml.parsers.expat import ExpatError
from xml.sax.saxutils import escape

from host_controller.domain_xml.values import size_from
from host_controller.errors import DomainUnsuitable

_READ: Final = "dynmem_read"
_NO_CDATA: Final = "<![CDATA[]]>"
_MARKUP: Final = re.compile(
    r"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|<!.*?>|</.*?>"
    r"""|(?P<start><[^\s/>!?]+(?:\s+[^\s=>]+\s*=\s*(?:"[^"]*"|'[^']*'))*\s*)/?>""",
    re.DOTALL,
)


def parse(xml: str) -> tuple[Document, Element]:
    """The document and its root element.

    Raises:
        DomainUnsuitable: not XML.
    """
    try:
        tree = minidom.parseString(xml)  # noqa: S318 # libvirt's XML, not a guest's
    except ExpatError as error:
        raise DomainUnsuitable(f"this is not XML: {error}") from None
    root = tree.documentElement
    assert root is not None
    for element, start in zip(_all(root), _start_tags(xml), strict=True):
        setattr(element, _READ, (*start, dict(element.attributes.items())))
    for text, written in zip(_texts(root), _written_texts(xml), strict=True):
        setattr(text, _READ, (written, text.data))
    return tree, root


def text_of(tree: Document, like: str) -> str:
    """The document as text, with the quotes of `like`, and with what stands there around its root element: a
    declaration, a comment such as in libvirt's own files, the last newline.
    """
    quote = "'" if like.count("='") >= like.count('="') else '"'
    root = tree.documentElement
    assert root is not None
    tags = [one for one in _MARKUP.finditer(like) if one["start"] is not None or one[0].startswith("</")]
    return like[: tags[0].start()] + _write(root, quote) + like[tags[-1].end() :]


def create(parent: Element, tag: str, **attributes: str) -> Element:
    """A new element of the same document, not put anywhere yet."""
    tree = parent.ownerDocument
    assert tree is not None
    element = tree.createElement(tag)
    for name, value in attributes.items():
        element.setAttribute(name, value)
    return element


def copy_for(parent: Element, element: Element) -> Element:
    """The element with all that is in it, laid out as a child of `parent`."""
    copy = element.cloneNode(deep=True)
    assert isinstance(copy, Element)
    _lay_out(copy, _indent(parent))
    return copy


def elements(parent: Element | None, tag: str | None = None) -> list[Element]:
    """The child elements, or those of a tag."""
    return [
        one
        for one in (parent.childNodes if parent is not None else ())
        if isinstance(one, Element) and (tag is None or one.tagName == tag)
    ]


def child(parent: Element | None, tag: str) -> Element | None:
    """The first child element of a tag."""
    return next(iter(elements(parent, tag)), None)


def of_namespace(parent: Element | None, namespace: str, name: str) -> list[Element]:
    """The child elements that have this name in another namespace, whatever their prefix for it."""
    return [one for one in elements(parent) if (one.namespaceURI, one.localName) == (namespace, name)]


def content(element: Element) -> str:
    """The text in an element, without the white space around it."""
    return "".join(one.data for one in element.childNodes if isinstance(one, Text)).strip()


def size_of(element: Element | None, attribute: str = "") -> int:
    """As `values.size_of`, of this tree: bytes; 0 when it is absent or cannot be read."""
    if element is None:
        return 0
    text = element.getAttribute(attribute) if attribute else content(element)
    return size_from(text, element.getAttribute("unit"))


def set_content(element: Element, text: str) -> None:
    """Make the text in an element this."""
    if content(element) == text:
        return
    for one in list(element.childNodes):
        element.removeChild(one)
    element.appendChild(_text_node(element, text))


def insert(parent: Element, new: Element, before: Any = None) -> Element:
    """Put a child before another node (None: at the end), on a line of its own where its siblings are."""
    indent = _indent(parent)
    if before is not None and _is_space(before):
        before = before.nextSibling  # that space belongs to what follows it
    if before is not None:
        space: Any = before.previousSibling
        before = space if space is not None and _is_space(space) else before
        if indent:  # in front, as `remove` takes it out
            parent.insertBefore(_text_node(parent, indent), before)
        return parent.insertBefore(new, before)
    last = parent.lastChild
    closing: Any = last if last is not None and _is_space(last) else None
    if indent:
        parent.insertBefore(_text_node(parent, indent), closing)
    parent.insertBefore(new, closing)
    if indent and last is None:
        parent.appendChild(_text_node(parent, indent.removesuffix("  ")))
    return new


def remove(element: Element | None) -> None:
    """Take a child out, with the white space before it; a parent left with white space only is emptied."""
    if element is None or not isinstance(parent := element.parentNode, Element):
        return
    space: Any = element.previousSibling
    if space is not None and _is_space(space):
        parent.removeChild(space)
    parent.removeChild(element)
    if all(_is_space(one) for one in parent.childNodes):
        for one in list(parent.childNodes):
            parent.removeChild(one)


def put_back(parent: Element, tag: str, old: Element | None, *, before: Element | None = None) -> None:
    """Make `parent`'s child of this tag what it was: a copy of `old`, or none."""
    now = child(parent, tag)
    if old is None:
        remove(now)
    elif now is not None:
        parent.replaceChild(copy_for(parent, old), now)
    else:
        insert(parent, copy_for(parent, old), before)


def same(one: str, other: str) -> bool:
    """Whether two XMLs differ in nothing but layout."""
    return _canonical(one) == _canonical(other)


def _canonical(xml: str) -> str:
    return ElementTree.canonicalize(xml, strip_text=True)


def _write(node: Any, quote: str) -> str:
    read = getattr(node, _READ, None)
    if not isinstance(node, Element):
        return str(read[0] if read is not None and read[1] == node.data else node.toxml())
    attributes = dict(node.attributes.items())
    if read is not None and read[2] == attributes:
        start, end = read[:2]
    else:
        written = "".join(f" {name}={_quoted(value, quote)}" for name, value in attributes.items())
        start, end = f"<{node.tagName}{written}", "/>"
    inside = "".join(_write(one, quote) for one in node.childNodes)
    return f"{start}>{inside}</{node.tagName}>" if inside else f"{start}{end}"


def _all(root: Element) -> list[Element]:
    """An element and all below it, in the order of their start tags."""
    return [root, *root.getElementsByTagName("*")]


def _start_tags(xml: str) -> Iterator[tuple[str, str]]:
    """Every start tag as it was written, and how its element ends where nothing is in it."""
    for found in _MARKUP.finditer(xml):
        if found["start"] is None:
            continue
        start, end = found["start"].rstrip(), "/>"
        if found[0].endswith("/>"):
            end = found[0].removeprefix(start)
        elif xml.startswith("</", found.end()):
            end = ">" + xml[found.end() : xml.index(">", found.end()) + 1]
        yield start, end


def _texts(node: Any) -> Iterator[Text]:
    """Every text below a node, in their order, without CDATA sections: those minidom writes as they were."""
    for one in node.childNodes:
        if one.nodeType == one.TEXT_NODE:
            yield one
        yield from _texts(one)


def _written_texts(xml: str) -> Iterator[str]:
    """Every text in the root element as it was written. An empty CDATA section parts none."""
    markup = [one for one in _MARKUP.finditer(xml) if one[0] != _NO_CDATA]
    ends = [place for place, one in enumerate(markup) if one[0].startswith("</")]
    begin = next(place for place, one in enumerate(markup) if one["start"] is not None)
    for before, after in pairwise(markup[begin : ends[-1] + 1] if ends else []):
        written = xml[before.end() : after.start()]
        if written.replace(_NO_CDATA, ""):
            yield written


def _quoted(value: str, quote: str) -> str:
    special = {quote: "&apos;" if quote == "'" else "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
    return f"{quote}{escape(value, special)}{quote}"


def _text_node(near: Element, text: str) -> Text:
    tree = near.ownerDocument
    assert tree is not None
    return tree.createTextNode(text)


def _indent(parent: Element) -> str:
    """The white space that goes before a child of this element; empty where all is on one line."""
    nodes: list[Any] = list(parent.childNodes)
    for one in nodes:
        if _is_space(one) and one.nextSibling is not None and "\n" in one.data:
            return "\n" + str(one.data).rpartition("\n")[2]
    above = parent.parentNode
    outer = _indent(above) if isinstance(above, Element) else ""
    return outer + "  " if outer else ""


def _lay_out(element: Element, indent: str) -> None:
    inside = elements(element)
    if not inside or not indent or content(element):
        return
    for space in [one for one in element.childNodes if _is_space(one)]:
        element.removeChild(space)
    for one in inside:
        element.insertBefore(_text_node(element, indent + "  "), one)
        _lay_out(one, indent + "  ")
    element.appendChild(_text_node(element, indent))


def _is_space(node: Any) -> bool:
    return isinstance(node, Text) and not node.data.strip()
