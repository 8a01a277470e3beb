"""Man pages from the same text as --help, and dynmem.toml(5) from the configuration's own descriptions.

python -m host_controller.cli.manual DIRECTORY
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, get_type_hints

import click
import msgspec

from host_controller import __version__
from host_controller.cli import COMMANDS, group
from host_controller.config import DEFAULT_PATH, SECTIONS, meta_of
from host_controller.config.rule import MatchSection, RuleSection
from host_controller.units import format_size

SEE_ALSO: Final = "SEE ALSO"
GUESTS: Final = "agent"
"""The group of commands that is called as the program in the guest."""
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"))


def pages() -> Iterator[tuple[str, str]]:
    """File name and text of every page."""
    context = click.Context(group, info_name="dynmem")
    names = sorted(COMMANDS)
    others = ", ".join(f"\\fB{_escape(f'dynmem-{name}')}\\fR(1)" for name in names)
    yield "dynmem.1", _page("dynmem", group, context, f"{others}, \\fBdynmem.toml\\fR(5)")
    for name in names:
        command = group.get_command(context, name)
        assert command is not None
        if name == GUESTS and isinstance(command, click.Group):
            # `dynmem-agent` is the page of the program in the guest.
            for part, one in sorted(command.commands.items()):
                yield from _command(
                    f"dynmem-{name}-{part}", one, _context_of(context, name, command, part, one)
                )
            continue
        yield from _command(f"dynmem-{name}", command, click.Context(command, parent=context, info_name=name))
        if isinstance(command, click.Group):
            for part, one in sorted(command.commands.items()):
                yield from _command(
                    f"dynmem-{name}-{part}", one, _context_of(context, name, command, part, one)
                )
    yield "dynmem.toml.5", _configuration()
    from agent.commands import cli as agent

    context = click.Context(agent, info_name="dynmem-agent")
    yield "dynmem-agent.1", _page("dynmem-agent", agent, context, "\\fBdynmem\\fR(1)")


def _context_of(
    context: click.Context, name: str, command: click.Group, part: str, one: click.Command
) -> click.Context:
    return click.Context(one, parent=click.Context(command, parent=context, info_name=name), info_name=part)


def _command(title: str, command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    yield f"{title}.1", _page(title, command, context, "\\fBdynmem\\fR(1)")


def _page(title: str, command: click.Command, context: click.Context, see_also: str) -> str:
    first, _, rest = inspect.cleandoc(command.help or "").partition("\n\n")
    lines = [
        f'.TH "{title.upper()}" "1" "" "dynmem {__version__}" "Dynamic Memory for VMs"',
        ".SH NAME",
        f"{_escape(title)} \\- {_escape(command.get_short_help_str(200).rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_escape(context.command_path)}",
        _escape(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_paragraphs(first if not rest else f"{first}\n\n{rest}"),
    ]
    options = [record for one in command.params if (record := one.get_help_record(context)) is not None]
    if options:
        lines.append(".SH OPTIONS")
        for names, text in options:
            lines += [".TP", f".B {_escape(names)}", _escape(text)]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for name in command.list_commands(context):
            one = command.get_command(context, name)
            if one is None:
                continue
            usage = " ".join(one.collect_usage_pieces(click.Context(one, parent=context, info_name=name)))
            lines += [".TP", f".B {_escape(name)} {_escape(usage)}", _escape(one.get_short_help_str(200))]
    if "xit code" not in (command.help or ""):
        lines += [
            ".SH EXIT STATUS",
            "0 done, 1 it went wrong, 2 what was asked for cannot be: nothing was changed.",
        ]
    lines += [".SH ENVIRONMENT", ".TP", ".B NO_COLOR", "No colours, where it is set and not empty."]
    lines += [".TP", ".B DYNMEM_SOCKET", "The controller's socket, where no \\-\\-socket is given."]
    return "\n".join([*lines, f".SH {SEE_ALSO}", see_also]) + "\n"


def _configuration() -> str:
    lines = [
        f'.TH "DYNMEM.TOML" "5" "" "dynmem {__version__}" "Dynamic Memory for VMs"',
        ".SH NAME",
        "dynmem.toml \\- configuration of the controller",
        ".SH DESCRIPTION",
        f"TOML, in {_escape(str(DEFAULT_PATH))}. It is taken whole or refused whole; check it with",
        ".B dynmem check\\-config",
        "and take it over with",
        '.BR "dynmem reload" .',
        "Sizes are written like 512M or 1.5GiB, durations like 90s, 10min, 7d.",
    ]
    for section in SECTIONS:
        lines += _table(f"[{section.name}]", section.type)
    lines += _table("[[rule]]", RuleSection)
    lines += _table("match of a [[rule]]", MatchSection)
    return "\n".join([*lines, f".SH {SEE_ALSO}", "\\fBdynmem\\fR(1)"]) + "\n"


def _table(title: str, kind: Any) -> Iterator[str]:
    yield f".SH {title}"
    yield from _paragraphs(inspect.cleandoc(kind.__doc__ or ""))
    hints, said = get_type_hints(kind, include_extras=True), meanings(kind)
    for field in msgspec.structs.fields(kind):
        meta = meta_of(hints[field.name])
        allowed = f"Allowed: {meta.description}." if meta.description else ""
        nothing = field.default is None or isinstance(field.default, msgspec.Struct)
        default = "" if nothing else f"Default: {_plain(field.default, meta)}."
        told = (said[field.name], allowed, default)
        yield from (".TP", f".B {_escape(field.name)}", _escape(" ".join(filter(None, told))))


def meanings(kind: type) -> dict[str, str]:
    """What stands under each field of a class, by its name; Python itself forgets it."""
    (found,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(found, ast.ClassDef)
    said = {}
    for field, under in pairwise(found.body):
        match field, under:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                said[name] = " ".join(text.split())
    return said


def _plain(value: Any, meta: msgspec.Meta) -> str:
    """As people write it in the file."""
    match (meta.extra or {}).get("kind"):
        case "size":
            return format_size(value).replace(" ", "")
        case "duration":
            unit, name = next((one for one in _UNITS if value % one[0] == 0), (1, "s"))
            return f"{value / unit:g}{name}"
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        if paragraph.startswith("\b\n"):  # as it stands, which is click's sign for that, too
            yield ".nf"
            yield from map(_escape, paragraph.splitlines()[1:])
            yield ".fi"
        else:
            yield _escape(" ".join(paragraph.split()))


def _escape(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


def main(directory: Path) -> None:
    """Write all pages."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (directory / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
