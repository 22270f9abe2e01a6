r"""Text that came out of data, put where something else would read it as markup.

Belongs here: one function for each language that text is put into. Does not: what the text says, nor SQL, whose identifiers and
values the driver's own means carry. Data are never refused for how they read; they are escaped where they leave the program.

>>> markdown("<b>*2 | 3*</b>")
'\\<b\\>\\*2 \\| 3\\*\\</b\\>'
>>> html('<a href="x">')
'&lt;a href=&quot;x&quot;&gt;'
"""

import html as _html
import re
import unicodedata

JOINERS = "\u200c\u200d"  # Persian, Hindi and emojis are written with them
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_SPECIAL = re.compile(r"[\\`*<>\[\]#|~&$]|(?<![^\W_])_|_(?![^\W_])")  # a _ inside a word is plain: most column names have one
_BLOCK = re.compile(r"-(?=[\s-]|$)|\+(?=\s|$)|=+\s*$|\d{1,9}(?=[.)](\s|$))")
_EDGES = re.compile(r"^\s+|\s+$")
# GitHub and Dagster make links of these after parsing, so that no escape but a node of another kind between them holds them back.
_AUTOLINK = re.compile(r"(?i)(?<=[a-z])(?=://)|(?<=www)(?=\.)|(?<=@)")
# Rich's own `escape` loses the backslash of `\\[` and doubles one at the end, which is one again only where a tag follows.
_TAG = re.compile(r"(\\*)\[([a-z#/@][^\[]*?\])?")
_LAST = re.compile(r"\\+\Z")
_ESCAPED = re.compile(r"\\(.)|&#(\d+);|<!-- -->")
_EVERYBODY = re.compile(r"(?i)@(?=(here|channel|all|everyone|team)\b)")  # Mattermost calls them without brackets
_NOTHING = "<!-- -->"


def markdown(text: str, *, most: int | None = None) -> str:
    """Markdown (CommonMark and GitHub's) that shows `text` and nothing else, in a paragraph, a heading or the cell of a table.

    It becomes no link, image, HTML, code or emphasis, ends no cell and no line; characters that cannot be seen are made `visible`.

    Args:
        most: characters to show; a longer text ends in an ellipsis.
    """
    text = _AUTOLINK.sub("\0", _short(visible(text), most))  # NUL is no longer in the text
    text = _SPECIAL.sub(r"\\\g<0>", text)
    if start := _BLOCK.match(text):
        text = f"{start[0]}\\{text[start.end() :]}" if start[0].isdigit() else f"\\{text}"
    text = _EDGES.sub(lambda spaces: "".join(f"&#{ord(space)};" for space in spaces[0]), text)
    return text.replace("\0", _NOTHING)


def plain(escaped: str) -> str:
    r"""The text that `markdown` was given, `visible`.

    >>> plain(markdown(" 1. <b>*2 | me@example.org"))
    ' 1. <b>*2 | me@example.org'
    """
    return _ESCAPED.sub(lambda found: found[1] or (chr(int(found[2])) if found[2] else ""), escaped)


def html(text: str) -> str:
    """HTML that shows `text` and nothing else, in an element or in a quoted attribute."""
    return _html.escape(visible(text), quote=True)


def terminal(text: str) -> str:
    """Markup of rich that prints `text` and sends the terminal no command; its lines stay lines."""
    markup = _TAG.sub(_escaped_tag, "\n".join(map(visible, text.split("\n"))))
    return _LAST.sub(lambda last: f"{2 * last[0]}[not bold][/not bold]", markup)


def chat(text: str) -> str:
    """Text of a message to Slack and its likes: it calls nobody and hides no link; its lines stay lines.

    Source: https://docs.slack.dev/messaging/formatting-message-text
    """
    text = "\n".join(map(visible, text.split("\n"))).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _EVERYBODY.sub("@\u2060", text)


def visible(text: str, *, most: int | None = None) -> str:
    r"""The text with its control characters, changes of direction and halves of characters written out.

    >>> visible("a\nb\x1b[31m\u202e\ud800")
    'a␊b␛[31m\\u202e\\ud800'
    """
    return _short(text if text.isascii() and text.isprintable() else "".join(map(_visible, text)), most)


def _escaped_tag(tag: re.Match[str]) -> str:
    """As rich reads it: backslashes before a tag are halved, those before another bracket are not."""
    return f"{2 * tag[1] if tag[2] else tag[1]}\\[{tag[2] or ''}"


def _visible(character: str) -> str:
    if character < " ":
        return chr(0x2400 + ord(character))
    if character == "\x7f":
        return "\u2421"
    if unicodedata.category(character) in _UNSEEN and character not in JOINERS:
        return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
    return character


def _short(text: str, most: int | None) -> str:
    return text if most is None or len(text) <= most else f"{text[: most - 1]}…"
