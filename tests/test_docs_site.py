"""The site of the documentation: built strictly, complete; its links resolve, nothing is from elsewhere."""

import ast
import http.server
import os
import pkgutil
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urldefrag

import build_site
import pytest
import refresh
from markdown_it import MarkdownIt

import earmark

ROOT = Path(__file__).resolve().parents[1]
CONFIG = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8")
COUNTED = ("h1", "h2", "h3", "ul", "ol", "li", "table", "tr", "pre", "img")
"""Tags of which a page has as many on the site as on a code forge."""
CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]


class Page(HTMLParser):
    """What a page has: identifiers, links, addresses that are loaded, tags within its article."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.tags: Counter[str] = Counter()
        self._in_article = "<article" not in text
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self._in_article |= tag == "article"
        self.tags[tag] += self._in_article
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        self.loads += [values[name] for name in ("src", "srcset", "poster", "data") if name in values]
        self.loads += [values["href"]] if tag == "link" and "href" in values else []

    def handle_endtag(self, tag: str) -> None:
        self._in_article &= tag != "article"


def target_of(page: Path) -> Path:
    """Where a Markdown page of the repository lies on the site."""
    path = page.relative_to(ROOT).with_suffix(".html")
    return path.with_name("index.html") if page.stem in ("README", "index") else path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zensical", reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    assert build_site.main([str(folder)]) == 0, "the builder warns"
    return folder / "html"


@pytest.fixture(scope="module")
def html(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_every_page_is_in_the_navigation_once() -> None:
    listed = re.findall(r"^ +- (?:[^:\n]+: )?([\w/.-]+\.md)$", CONFIG, re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(ROOT).as_posix() for page in build_site.pages())
    assert len(re.findall(r"^  - [^:]+:$", CONFIG.split("\nnav:\n")[1], re.MULTILINE)) <= 8


@pytest.mark.slow
def test_a_link_to_nothing_stops_the_build(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="the extra docs is not installed")
    (tmp_path / "pages").mkdir()
    page = tmp_path / "pages" / "README.md"
    for text, works in (("[here](#here)\n\n## Here\n", True), ("[there](#there)\n", False)):
        page.write_text(f"# Title\n\n{text}", encoding="utf-8")
        assert (build_site.build(tmp_path) == 0) is works


@pytest.mark.slow
def test_links_and_anchors_resolve(html: dict[Path, Page]) -> None:
    broken = []
    for path, page in html.items():
        for link in page.links if path.name != "404.html" else ():
            file, anchor = urldefrag(link)
            target = (path.parent / unquote(file)).resolve() if file else path
            if file.startswith(("https://", "http://", "mailto:")):
                continue
            if not target.exists() or (anchor and target in html and unquote(anchor) not in html[target].ids):
                broken.append(f"{path.name}: {link}")
    assert not broken


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site: Path, html: dict[Path, Page]) -> None:
    for path, page in html.items():
        for load in page.loads:
            assert load.startswith("data:") or not re.match(r"(?:\w+:)?//", load), f"{path.name}: {load}"
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", text), path.name


@pytest.mark.slow
def test_pages_are_what_they_are_on_a_code_forge(html: dict[Path, Page], site: Path) -> None:
    markdown = MarkdownIt("commonmark").enable("table")
    for page in build_site.pages():
        if page.parent.name != "reference":
            there = Page(markdown.render(page.read_text(encoding="utf-8"))).tags
            here = html[site / target_of(page)].tags
            assert {tag: here[tag] for tag in COUNTED} == {tag: there[tag] for tag in COUNTED}, page.name


def public_names() -> set[str]:
    """The names of the package, of rooms that list theirs, and those that examples import."""
    rooms = ("audio", "custom", "models", "data.augment", "evaluation.metrics")
    names = {f"earmark.{name}" for name in earmark.__all__ if not name.startswith("__")}
    for room in rooms:
        module = import_module(f"earmark.{room}")
        names |= {f"{module.__name__}.{name}" for name in module.__all__}
    for page in refresh.documents():
        for example in refresh.fences(page.read_text(encoding="utf-8"), "python"):
            for node in ast.walk(ast.parse(example)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("earmark."):
                    names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.slow
def test_reference_has_every_public_name(html: dict[Path, Page], site: Path) -> None:
    pages = [page for path, page in html.items() if path.parent == site / "docs" / "reference"]
    anchors = {anchor for page in pages for anchor in page.ids if anchor.startswith("earmark.")}
    documented = {id(named(anchor)) for anchor in anchors}
    missing = [name for name in public_names() if id(named(name)) not in documented]
    assert not missing


def named(name: str) -> object:
    """What a name stands for; if a function and the module that it is in share one, the function."""
    parent, _, attribute = name.rpartition(".")
    try:
        module = import_module(parent)
    except ModuleNotFoundError:  # of a class; a field of a dataclass without a default is no attribute of it
        return getattr(pkgutil.resolve_name(parent), attribute, None)
    return getattr(module, attribute) if hasattr(module, attribute) else import_module(name)


@pytest.mark.slow
def test_docstrings_are_rendered(site: Path) -> None:
    for path in (site / "docs" / "reference").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r":(?:class|func|meth|attr|data|mod):", text), path.name
        assert "<autoref" not in text, path.name


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The site behind a server on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("from_a_folder", [False, True])
def test_search_in_a_browser_without_a_network(site: Path, address: str, from_a_folder: bool) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    start = site.as_uri() if from_a_folder else address
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    asked: list[str] = []
    faults: list[str] = []
    with playwright.sync_playwright() as program:
        browser = program.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, env=environment)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        for path in ("docs/reference/tagging.html", "docs/models.html", "index.html"):
            page.goto(f"{start}/{path}")
        page.keyboard.press("/")
        page.get_by_role("combobox").or_(page.locator("input[type=search], input[type=text]")).first.fill(
            "hysteresis"
        )
        page.get_by_text("EventOptions").first.wait_for(timeout=30_000)
        browser.close()
    assert not faults
    assert {url for url in asked if not url.startswith((start, "data:", "blob:"))} == set()


def test_every_paper_that_the_code_names_is_cited() -> None:
    cited = (ROOT / "docs" / "citation.md").read_text(encoding="utf-8")
    for path in (ROOT / "earmark").rglob("*.py"):
        for paper in re.findall(r"(?:arXiv:|/abs/)(\d{4}\.\d{4,5})", path.read_text(encoding="utf-8")):
            assert f"(https://arxiv.org/abs/{paper})" in cited, f"{path.name}: arXiv:{paper}"


def test_citation_file_has_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {earmark.__version__}\n" in text
    assert f"version = {{{earmark.__version__}}}" in (ROOT / "docs" / "citation.md").read_text(
        encoding="utf-8"
    )
