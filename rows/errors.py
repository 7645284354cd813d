"""What is said of a row, or of a dataset, that cannot be used."""


class BadRow(ValueError):
    """One row cannot be used; the message is the reason."""


LONGEST_REASON = 500  # characters


class DataError(ValueError):
    """The dataset as a whole cannot be used; the message says why and what to do."""


def one_line(text: str) -> str:
    """A text as one line to print: what no terminal shows, or what turns its line around, is spelt out."""
    shown = text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in shown)


def start_of(text: str) -> str:
    """What an error shows of a value."""
    return repr(text if len(text) <= 60 else text[:59] + "…")
