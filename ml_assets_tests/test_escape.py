"""What text from data becomes in Markdown, HTML and a terminal, judged by programs that read these."""

import io
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from ml_assets.escape import chat, html, markdown, plain, terminal, visible

EXAMPLES = 3000
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](http://evil.example/x.png)",
    "[click](javascript:alert(1))",
    "<http://evil.example>",
    "http://evil.example and www.evil.example, ftp://evil.example, mailto:me@evil.example",
    "a | b \\| c",
    "two\nlines\r\n\ttab",
    "\\",
    "\\\\|",
    "`code` ``` ~~~",
    "**bold** *it* __bold__ _it_ ~~gone~~ ~a~",
    "_private, trailing_, snake_case_name, a__b",
    "# heading",
    "- item",
    "+ item",
    "1. item",
    "2) item",
    "---",
    "===",
    "> quote",
    "    code",
    "ends with two  ",
    "&lt;b&gt; &#60; &copy; &",
    "[ref]: http://evil.example",
    "[^1]",
    "$x^2$ $$y$$",
    "=HYPERLINK(1)",
    "\x00 \x1b[31m \x7f \x85 \u202eab\u202c \ufeff \u2028 \ud800",
    "{{ 7 * 7 }} {% raw %} ${x}",
    "' OR 1=1; --",
    '"><svg onload=alert(1)>',
    "<!-- comment",
    "--> -->",
    "@here",
    "日本語 می‌خواهم 👩‍👩‍👧",
    "",
    " ",
]
TEXT = st.text(
    alphabet=st.one_of(st.sampled_from("\\`*_{}[]<>()#+-.!|~&$:/@=\"'\n\t wWhtps0123;\0\u202e"), st.characters()), max_size=30
)
RENDERED = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert tag in ("th", "td", "table", "thead", "tbody", "tr", "p", "h2")
        assert dict(attrs).keys() <= {"title"}

    def handle_data(self, data: str) -> None:
        self.text += data


def squeezed(text: str) -> str:
    return " ".join(text.split(" ")).strip(" ")


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_hostile_text_in_a_cell_a_paragraph_and_a_heading(text: str) -> None:
    check_markdown(text)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(TEXT)
@example("_a_ b_")
def test_markdown_shows_any_text(text: str) -> None:
    check_markdown(text)


def check_markdown(text: str) -> None:
    shown = visible(text)
    escaped = markdown(text)
    assert plain(escaped) == shown
    paragraph = Page(RENDERED.render(escaped))
    assert paragraph.tags == (["p"] if text else [])
    assert paragraph.text == (f"{shown}\n" if text else "")
    cells = Page(RENDERED.render(f"| a | b |\n|---|---|\n| {escaped} | end |\n")).text.split("\n")
    assert [cell for cell in cells if cell] == ["a", "b", *([shown] if shown else []), "end"]
    assert Page(RENDERED.render(f"## {escaped}")).text == f"{shown}\n"


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("http://a.b", ["http", "://a.b"]),
        ("see HTTPS://a.b", ["see HTTPS", "://a.b"]),
        ("www.a.b", ["www", ".a.b"]),
        ("me@a.b", ["me@", "a.b"]),
    ],
)
def test_an_address_is_torn_where_a_renderer_would_make_a_link_of_it_after_parsing(text: str, nodes: list[str]) -> None:
    inline = RENDERED.parse(markdown(text))[1].children or []
    assert [node.content for node in inline if node.type == "text"] == nodes
    assert {node.type for node in inline} == {"text", "html_inline"}


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(TEXT)
def test_html_shows_any_text(text: str) -> None:
    page = Page(f'<p title="{html(text)}">{html(text)}</p>')
    assert page.tags == ["p"]
    assert page.text == visible(text)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(TEXT)
@example("[red]no[/]")
@example("[/]")
@example("ends in \\")
@example("\x1b]0;title\x07")
def test_a_terminal_shows_any_text(text: str) -> None:
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=10_000, soft_wrap=True, highlight=False, emoji=False).print(terminal(text), end="")
    assert out.getvalue() == "\n".join(map(visible, text.split("\n")))


def test_a_message_calls_nobody_and_hides_no_link() -> None:
    assert chat("<!here> <https://evil.example|bank> a & b\n@channel, @all.") == (
        "&lt;!here&gt; &lt;https://evil.example|bank&gt; a &amp; b\n@\u2060channel, @\u2060all."
    )


def test_a_long_text_ends_in_an_ellipsis() -> None:
    assert visible("abcdef", most=4) == "abc…"
    assert markdown("a*****", most=4) == "a\\*\\*…"


def test_what_cannot_be_seen_is_written_out_and_scripts_keep_their_joiners() -> None:
    assert visible("a\x00\n\u202e\ud800\U000e0041") == "a␀␊\\u202e\\ud800\\U000e0041"
    assert visible("می‌خواهم 👩‍👧 é") == "می‌خواهم 👩‍👧 é"
