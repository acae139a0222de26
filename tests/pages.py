"""Reading a report's page as a browser and as a person would."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Tags with their attributes, and how deep each opened tag was closed again."""

    VOID = frozenset({"meta", "img", "br", "path", "use", "rect", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def text_of(page: str) -> str:
    """What a reader sees, in one line."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def assert_self_contained(page: str) -> None:
    """No script, and nothing that is not in the page itself."""
    tags = Page(page).tags
    assert "http://" not in page
    assert "https://" not in page
    assert {"script", "link", "iframe"}.isdisjoint(tag for tag, _ in tags)
    assert all(re.match("data:image/(png|jpeg);base64,", str(found["src"])) for _, found in tags if "src" in found)
    assert all(str(attributes.get("href", "#")).startswith("#") for _, attributes in tags)
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def assert_accessible(page: str) -> None:
    """Pictures and charts have words, tables have captions, and references lead somewhere."""
    tags = Page(page).tags
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    assert all(
        attributes.get("aria-label") for tag, attributes in tags if tag == "svg" and "aria-hidden" not in attributes
    )
    assert page.count("<caption>") == page.count("<table")
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|href="#|aria-labelledby=")([^)"]+)', page)) <= set(ids)
