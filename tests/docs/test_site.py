"""The site as it is built: examples are code, links lead somewhere, every public name is there."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from purepyro import _errors

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
MODULES = (
    "purepyro",
    "purepyro.random",
    "purepyro.infer",
    "purepyro.ensemble",
    "purepyro.distributed",
)
VOID = {"br", "hr", "img", "input", "link", "meta", "source", "wbr"}

# What a visitor looks for, and must find in a tutorial.
WORDS = (
    "hierarchical",
    "VAE",
    "Gaussian process",
    "time series",
    "notebook",
    "install",
    "GPU",
    "MCMC",
)


@dataclass
class Element:
    """An element of a page, with what is in it."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @cached_property
    def classes(self) -> list[str]:
        """The names in its ``class``."""
        return self.attributes.get("class", "").split()

    def walk(self) -> Iterator[Element]:
        """Itself, and all elements in it."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def text(self, *, but: tuple[str, ...] = ()) -> str:
        """Its text, without that of the elements ``but``."""
        return "".join(
            child if isinstance(child, str) else "" if child.tag in but else child.text(but=but)
            for child in self.children
        )


class Reader(HTMLParser):
    """Reads a page into elements."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("html", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        for place in range(len(self.open) - 1, 0, -1):
            if self.open[place].tag == tag:
                del self.open[place:]
                return

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(path: Path) -> Element:
    """A page of the site."""
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.root


@pytest.fixture(scope="module")
def pages() -> dict[Path, Element]:
    """All pages, built from the working tree: this runs the tutorials too."""
    command = [sys.executable, str(ROOT / "docs" / "tooling" / "build.py")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return {path: read(path) for path in sorted(SITE.rglob("*.html"))}


def article(page: Element) -> Element:
    """What a page says, without what stands around it."""
    return next((each for each in page.walk() if each.tag == "article"), page)


def public_names() -> Iterator[str]:
    """Every name of every ``__all__``; what two modules export counts for the one below."""
    modules = {name: importlib.import_module(name) for name in MODULES}
    for name, module in modules.items():
        for each in module.__all__:
            value = getattr(module, each)
            below = any(
                value is getattr(other, each, None) and each in other.__all__
                for path, other in modules.items()
                if path.startswith(f"{name}.")
            )
            if not inspect.ismodule(value) and not below:
                yield f"{name}.{each}"


def test_every_public_name_stands_in_the_reference_once(pages: dict[Path, Element]) -> None:
    count = Counter(
        element.attributes["id"]
        for path, page in pages.items()
        if path.is_relative_to(SITE / "reference")
        for element in page.walk()
        if element.tag in ("h2", "h3", "h4") and "doc-heading" in element.classes
    )
    names = list(public_names())
    assert len(names) >= 90
    assert {name: count[name] for name in names if count[name] != 1} == {}
    of_a_class = {name for name in count if name.rpartition(".")[0] in names}
    assert set(count) - set(names) - of_a_class == set()


def test_examples_are_code(pages: dict[Path, Element]) -> None:
    examples = 0
    for path, page in pages.items():
        for element in article(page).walk():
            assert element.tag != "blockquote" or ">>>" not in element.text(), path
            if element.tag == "p":
                assert ">>>" not in element.text(but=("code",)), path
            examples += element.tag == "pre" and ">>>" in element.text()
    assert examples > 80


def test_no_markup_shows(pages: dict[Path, Element]) -> None:
    marks = (":class:`", ":func:`", ":meth:`", ":math:`", ".. math::", "Example:", "][purepyro.")
    for path, page in pages.items():
        text = article(page).text(but=("pre", "code"))
        assert [mark for mark in marks if mark in text] == [], path
        assert "$$" not in text, path


def test_classes_show_their_defaults(pages: dict[Path, Element]) -> None:
    text = article(pages[SITE / "reference" / "svi" / "index.html"]).text()
    assert 'on_nonfinite: Literal["raise", "skip", "ignore"] = "raise"' in text
    assert "loss: ELBO = Trace_ELBO()" in text
    text = article(pages[SITE / "reference" / "guides" / "index.html"]).text()
    assert "init_scale: float = 0.1" in text


def test_nothing_internal_shows(pages: dict[Path, Element]) -> None:
    for path, page in pages.items():
        if path.is_relative_to(SITE / "reference"):
            text = article(page).text()
            for name in ("Field[", "Node", "Carried", "emit(", "NOTHING", "_PyroField"):
                assert name not in text, (path, name)


def test_every_error_is_listed(pages: dict[Path, Element]) -> None:
    text = article(pages[SITE / "reference" / "errors" / "index.html"]).text()
    errors = [
        name
        for name, value in vars(_errors).items()
        if isinstance(value, type) and issubclass(value, _errors.PurepyroError)
    ]
    assert [name for name in errors if name not in text] == []


def targets(page: Element) -> Iterator[str]:
    """Where the links, images, scripts and styles of a page lead."""
    for element in page.walk():
        for name in ("href", "src"):
            if name in element.attributes and "canonical" not in element.attributes.get("rel", ""):
                yield element.attributes[name]


def test_no_link_is_broken(pages: dict[Path, Element]) -> None:
    ids = {
        path: {each.attributes["id"] for each in page.walk() if "id" in each.attributes}
        for path, page in pages.items()
    }
    broken, images = [], 0
    for path, page in pages.items():
        for target in targets(page):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if place.is_dir():
                place /= "index.html"
            images += place.suffix == ".png"
            # Zensical fills the last two of these in by a script.
            known = ids.get(place, set()) | {"", "__search", "__drawer"}
            if not place.is_file() or (place in ids and unquote(parts.fragment) not in known):
                broken.append(f"{path.relative_to(SITE)}: {target}")
    assert broken == []
    assert images > 20


def test_images_have_words(pages: dict[Path, Element]) -> None:
    for path, page in pages.items():
        for element in article(page).walk():
            if element.tag == "img" and "plot" in element.classes:
                assert element.attributes["alt"] not in ("", "plot"), path


def test_tutorials_show_what_they_print_and_draw(pages: dict[Path, Element]) -> None:
    scripts = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
    assert len(scripts) >= 9
    gallery = article(pages[SITE / "tutorials" / "index.html"])
    pictures = [each for each in gallery.walk() if each.tag == "img"]
    assert len(pictures) == len(scripts)
    for script in scripts:
        page = pages[SITE / "tutorials" / script.stem / "index.html"]
        elements = list(article(page).walk())
        assert any("output" in each.classes for each in elements), script
        assert any(each.tag == "img" and "plot" in each.classes for each in elements), script
        hrefs = [each.attributes.get("href", "") for each in page.walk()]
        assert any(href.endswith(f"edit/main/docs/tutorials/{script.name}") for href in hrefs)
        notebook = SITE / "tutorials" / f"{script.stem}.ipynb"
        nbformat.validate(nbformat.read(notebook, as_version=4))


def test_visitors_find_their_words(pages: dict[Path, Element]) -> None:
    text = " ".join(
        page.text() for path, page in pages.items() if path.is_relative_to(SITE / "tutorials")
    ).lower()
    assert [word for word in WORDS if word.lower() not in text] == []
