"""What a guest's kernel is started with, where the host says that. Pure.

<cmdline>, `-append`, and what systemd's boot stub and boot loader add to a kernel's own line from the strings
of the firmware (<oemStrings>, man smbios-type-11).
"""

from itertools import pairwise, takewhile
from typing import Final
from xml.dom.minidom import Element as Node
from xml.etree.ElementTree import Element

from host_controller.domain_xml.arguments import QEMU, passed
from host_controller.domain_xml.dom import child, content, elements, of_namespace, set_content

_BY_FIRMWARE: Final = ("io.systemd.stub.kernel-cmdline-extra=", "io.systemd.boot.kernel-cmdline-extra=")


def words(root: Element) -> list[str]:
    """Every parameter of the kernel's, in its order; empty where the guest boots by itself."""
    lines = [root.findtext("./os/cmdline") or ""]
    lines += [one.value for one in passed(root) if one.option == "append"]
    lines += by_firmware(root)
    # What stands behind two dashes is its first program's.
    return [word for line in lines for word in takewhile(lambda one: one != "--", line.split())]


def by_firmware(root: Element) -> list[str]:
    """The lines that come from strings of the firmware."""
    texts = [(one.text or "").strip() for one in root.findall("./sysinfo/oemStrings/entry")]
    return [one.partition("=")[2] for one in texts if one.startswith(_BY_FIRMWARE)]


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
    for entry in elements(child(child(domain, "sysinfo"), "oemStrings"), "entry"):
        name, _, line_added = content(entry).partition("=")
        if f"{name}=" in _BY_FIRMWARE:
            set_content(entry, f"{name}={_without(word, line_added)}")
    for commandline in of_namespace(domain, QEMU, "commandline"):
        for option, value in pairwise(of_namespace(commandline, QEMU, "arg")):
            if option.getAttribute("value").lstrip("-") == "append":
                value.setAttribute("value", _without(word, value.getAttribute("value")))


def _without(word: str, line: str) -> str:
    found = line.split()
    return " ".join(one for one in found if one != word) if word in found else line
