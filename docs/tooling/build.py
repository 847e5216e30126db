"""Builds the site: runs the tutorials, writes the pages to build/docs, and calls Zensical.

A tutorial is a script of cells (`# %%`). Each cell runs here, and the page shows what it printed
and drew; the notebook for download has the same. A cell with the tag "thumbnail" draws the picture
of the gallery. A warning or an error in a tutorial ends the build.

    python docs/tooling/build.py                # the whole site, into site/
    python docs/tooling/build.py --only vae     # the pages of one tutorial alone, into build/docs
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import linecache
import re
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext
import matplotlib
import nbformat

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from public_api import link_targets, public_names
from purepyro import _errors

ROOT = Path(__file__).parents[2]
DOCS, PAGES, SITE = ROOT / "docs", ROOT / "build" / "docs", ROOT / "site"
DPI = 110
OTHER_THAN_PROSE = re.compile(r"(^```.*?^```$|^#[^\n]*$|\[[^\]]*\])", re.DOTALL | re.MULTILINE)


@dataclass
class Tutorial:
    """A tutorial that has been run."""

    name: str
    title: str
    summary: str
    thumbnail: str


def run_cell(module: ModuleType, source: str, name: str) -> tuple[str, list[Figure]]:
    """What a cell prints, and the figures that it leaves open."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, name, "exec"), module.__dict__)
    return printed.getvalue(), [plt.figure(number) for number in plt.get_fignums()]


def alternative_text(figure: Figure) -> str:
    """What stands above the plots of a figure."""
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    return ". ".join(title.replace("\n", " ") for title in titles if title) or "plot"


def run_tutorial(script: Path, folder: Path) -> Tutorial:
    """Run a tutorial; write its page, pictures, notebook and script into ``folder``."""
    name = script.stem
    notebook: Any = jupytext.read(script)
    module = ModuleType(f"tutorial_{name}")
    module.__file__ = str(script)
    sys.modules[module.__name__] = module
    page: list[str] = []
    thumbnail = ""
    pictures = 0
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            page.append(cell.source)
            continue
        printed, figures = run_cell(module, cell.source, f"{script.name} cell {index}")
        page.append(f"```python\n{cell.source}\n```")
        if printed:
            page.append(
                f'<div class="output" markdown>\n\n```text\n{printed.rstrip()}\n```\n\n</div>'
            )
            cell.outputs.append(nbformat.v4.new_output("stream", name="stdout", text=printed))
        for figure in figures:
            pictures += 1
            file = f"{name}_{pictures}.png"
            figure.savefig(folder / file, dpi=DPI)
            if "thumbnail" in cell.metadata.get("tags", []):
                thumbnail = file
            page.append(f"![{alternative_text(figure)}]({file}){{ .plot }}")
            picture = base64.b64encode((folder / file).read_bytes()).decode()
            output = nbformat.v4.new_output("display_data", {"image/png": picture})
            cell.outputs.append(output)
        plt.close("all")
    if not thumbnail:
        raise RuntimeError(f'{script.name} has no cell with the tag "thumbnail" that draws.')

    first = notebook.cells[0].source
    heading = re.fullmatch(r"# (.+?)\n\n(.+?)(?:\n\n.*)?", first, re.DOTALL)
    if heading is None:
        raise RuntimeError(f"{script.name} does not begin with a title and a sentence.")
    title, summary = heading.groups()
    links = f"[Notebook]({name}.ipynb){{ download }} · [Script]({name}.py){{ download }}"
    page[0] = page[0].replace(f"# {title}", f"# {title}\n\n{links}", 1)
    (folder / f"{name}.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    shutil.copy(script, folder)
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return Tutorial(name, title, " ".join(summary.split()), thumbnail)


def tutorials(only: str | None = None) -> list[Path]:
    """The scripts, in the order of the navigation."""
    order = re.findall(r"- tutorials/(\w+)\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    names = [name for name in order if name != "index"]
    missing = {path.stem for path in (DOCS / "tutorials").glob("*.py")} ^ set(names)
    if missing and only is None:
        raise RuntimeError(f"mkdocs.yml and docs/tutorials/ differ: {sorted(missing)}.")
    return [DOCS / "tutorials" / f"{name}.py" for name in names if only in (None, name)]


def gallery(done: list[Tutorial]) -> str:
    """The cards of the tutorials: picture, title, first sentence."""
    cards = [
        f'<a href="{each.name}/"><img src="{each.thumbnail}" alt="" loading="lazy">'
        f"<strong>{each.title}</strong><span>{each.summary}</span></a>"
        for each in done
    ]
    return '<div class="gallery">\n' + "\n".join(cards) + "\n</div>"


def errors() -> str:
    """The table of what is raised, from the classes themselves."""
    rows = ["| error | is also | |", "|---|---|---|"]
    for name, each in vars(_errors).items():
        if isinstance(each, type) and issubclass(each, _errors.PurepyroError):
            others = [base for base in each.__mro__[2:] if base.__module__ == "builtins"][:1]
            also = ", ".join(f"`{base.__name__}`" for base in others)
            says = (each.__doc__ or "").split("\n\n")[0].replace("``", "`")
            anchor = f"[](){{ #{each.__module__}.{name} }}"  # where `Raises:` leads
            rows.append(f"| {anchor}`{name}` | {also} | {' '.join(says.split())} |")
    return "\n".join(rows[:2] + rows[3:])  # the root has an entry of its own


def write_pages(only: str | None = None) -> None:
    """All pages, as Zensical reads them."""
    if PAGES.exists():
        shutil.rmtree(PAGES)
    shutil.copytree(DOCS, PAGES, ignore=shutil.ignore_patterns("tooling", "*.py", "__pycache__"))
    done = []
    for script in tutorials(only):
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.* is deprecated")
            done.append(run_tutorial(script, PAGES / "tutorials"))
        print(f"{script.stem}: {time.perf_counter() - start:.1f} s", flush=True)
    fill(PAGES / "tutorials" / "index.md", "<!-- gallery -->", gallery(done))
    fill(PAGES / "reference" / "errors.md", "<!-- errors -->", errors())
    link_names()


def link_names() -> None:
    """On each page of prose, the first mention of a public class becomes a link to it."""
    targets = link_targets(public_names())
    for page in (*PAGES.glob("*.md"), *(PAGES / "tutorials").glob("*.md")):
        seen: set[str] = set()

        def link(match: re.Match[str], seen: set[str] = seen) -> str:
            target = targets.get(match[1])
            if target is None or target in seen:
                return match[0]
            seen.add(target)
            return f"[`{match[1]}`][{target}]"

        # Not in code, headings, and what is a link already.
        parts = OTHER_THAN_PROSE.split(page.read_text(encoding="utf-8"))
        parts[::2] = [re.sub(r"(?<!`)`([\w.]+)`(?!`)", link, prose) for prose in parts[::2]]
        page.write_text("".join(parts), encoding="utf-8")


def fill(page: Path, mark: str, text: str) -> None:
    """Put a text in the place of a mark."""
    old = page.read_text(encoding="utf-8")
    if mark not in old:
        raise RuntimeError(f"{page.name} has no {mark}.")
    page.write_text(old.replace(mark, text), encoding="utf-8")


def build_site() -> None:
    """The pages, as HTML."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    subprocess.run(command, cwd=ROOT, check=True)
    # The source of a tutorial is its script.
    for page in (SITE / "tutorials").glob("*/index.html"):
        text = page.read_text(encoding="utf-8")
        source = f"docs/tutorials/{page.parent.name}"
        page.write_text(text.replace(f"{source}.md", f"{source}.py"), encoding="utf-8")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="run this tutorial alone, and build no site")
    only = parser.parse_args().only
    write_pages(only)
    if only is None:
        build_site()


if __name__ == "__main__":
    main()
