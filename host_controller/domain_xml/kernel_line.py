"""What a guest's kernel is started with, where the host says that: <cmdline>, or `-append`. Pure."""

from itertools import pairwise, takewhile
from xml.dom.minidom import Element as Node
from xml.etree.ElementTree import Element

from host_controller.domain_xml.arguments import QEMU, passed
from host_controller.domain_xml.dom import child, content, of_namespace, set_content


def words(root: Element) -> list[str]:
    """Every parameter of the kernel's, in its order; empty where the guest boots by itself."""
    lines = [root.findtext("./os/cmdline") or ""]
    lines += [one.value for one in passed(root) if one.option == "append"]
    # What stands behind two dashes is its first program's.
    return [word for line in lines for word in takewhile(lambda one: one != "--", line.split())]


def parameter(word: str) -> tuple[str, str]:
    """Its name and its value, as the kernel reads them (kernel/params.c, lib/cmdline.c): quotes are no part
    of them, and in a name a dash is an underscore.
    """
    name, _, value = word.strip('"').partition("=")
    return name.replace("-", "_"), value.strip('"')


def drop_word(word: str, domain: Node) -> None:
    """Take a parameter out, wherever it stands."""
    line = child(child(domain, "os"), "cmdline")
    if line is not None:
        set_content(line, _without(word, content(line)))
    for commandline in of_namespace(domain, QEMU, "commandline"):
        for option, value in pairwise(of_namespace(commandline, QEMU, "arg")):
            if option.getAttribute("value").lstrip("-") == "append":
                value.setAttribute("value", _without(word, value.getAttribute("value")))


def _without(word: str, line: str) -> str:
    found = line.split()
    return " ".join(one for one in found if one != word) if word in found else line
