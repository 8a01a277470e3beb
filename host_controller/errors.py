"""What can go wrong, as the rest of the program sees it.

The tree, and what each kind means:

    DynmemError
    ├── InputError               a size, a limit or a name that cannot be used
    ├── DomainError              one domain
    │   ├── DomainNotFound
    │   ├── DomainMustBeOff
    │   └── DomainUnsuitable     its XML cannot be made to do dynamic memory
    └── HypervisorError
        ├── HypervisorUnreachable
        └── CallFailed           libvirt refused; nothing was done

Other modules hang their own below DynmemError.
"""

from typing import ClassVar


class DynmemError(Exception):
    """A sentence for people, the VM that it is about, and the way out."""

    exit_code: ClassVar[int] = 1
    """Of a command that ends with it: 2 when what was asked for cannot be and nothing was changed."""

    def __init__(self, message: str, *, vm: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.vm = vm
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.vm}: {self.message}" if self.vm else self.message
        return f"{text}; {self.hint}" if self.hint else text


class InputError(DynmemError):
    """What the user gave cannot be used."""

    exit_code = 2


class DomainError(DynmemError):
    """Something about one domain."""

    exit_code = 2


class DomainNotFound(DomainError):  # noqa: N818 # read as what happened
    """The hypervisor knows no domain of this name or UUID."""


class DomainMustBeOff(DomainError):  # noqa: N818 # read as what happened
    """This can only be changed while the domain is off."""


class DomainUnsuitable(DomainError):  # noqa: N818 # read as what happened
    """The domain's definition does not allow it."""


class HypervisorError(DynmemError):
    """libvirt, or the way to it."""


class HypervisorUnreachable(HypervisorError):  # noqa: N818 # read as what happened
    """No connection could be made, or it was lost."""


class CallFailed(HypervisorError):  # noqa: N818 # read as what happened
    """libvirt answered that it will not or cannot."""
