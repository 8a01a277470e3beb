"""What an arbiter's log says once. It works for months, and what changes is to be found there."""


class News:
    """The problems that there are, each with the words in which it was told."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def is_new(self, problem: str, text: str) -> bool:
        """It has just begun, or is another one by now: to be told."""
        known = self._told.get(problem) == text
        self._told[problem] = text
        return not known

    def over(self, problem: str) -> bool:
        """It is no more; whether it was: then that is to be told."""
        return self._told.pop(problem, None) is not None
