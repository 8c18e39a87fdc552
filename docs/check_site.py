"""Opens every page of the built documentation in a headless browser, and fails on what is wrong with it.

    python docs/check_site.py docs/_build/html              # `make check-docs` builds first
    python docs/check_site.py docs/_build/html --only coming_from

Wide and narrow, light and dark: errors in the console, resources that are missing, a page wider than the window,
pictures without a text, players and controls without a name or out of reach of the keyboard, and what axe-core calls
serious or critical, contrast among it.  Links and anchors within the site are looked up in the files.

It needs the extra `site` and a Chromium: that of `--browser`, the system's, or that of `playwright install chromium`.
"""

from __future__ import annotations

import argparse
import importlib.resources
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
# Pages that only lead to others by a script, and those of frames.
IGNORED = ("_static", "_sources", "plot_directive")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# What axe-core has no rule for.  A name is what a screen reader says; Sphinx gives a picture without a text its path.
_LOOK = """
() => {
  const found = [];
  const shown = (e) => e.checkVisibility() && !e.closest('[aria-hidden="true"]');
  const outer = (e) => e.outerHTML.replace(/\\s+/g, " ").slice(0, 120);
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  if (wide > 0) {
    const over = [...document.body.querySelectorAll("*")].filter(
      (e) => shown(e) && e.getBoundingClientRect().right > window.innerWidth + 1);
    found.push(`${wide} px wider than the window, from ${over.length ? outer(over[0]) : "nothing in sight"}`);
  }
  for (const e of document.querySelectorAll("img")) {
    const text = (e.getAttribute("alt") || "").trim(), file = decodeURI(e.src).split("/").pop();
    if (e.getAttribute("role") === "presentation" || !shown(e)) continue;
    // An empty text says that the picture adds nothing to the words beside it, if there are some.
    const beside = e.closest("a, figure, .sphx-glr-thumbcontainer");
    if (e.getAttribute("alt") === "" && beside && beside.textContent.trim()) continue;
    if (!text || text.endsWith(file) || /\\.(png|svg|jpe?g|gif)$/i.test(text))
      found.push(`picture without a text: ${outer(e)}`);
    else if (e.complete && e.naturalWidth === 0) found.push(`picture that does not show: ${outer(e)}`);
  }
  for (const e of document.querySelectorAll("svg[role=img], [role=img]:not(img)"))
    if (shown(e) && !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.querySelector("title")))
      found.push(`drawing without a text: ${outer(e)}`);
  const named = (e) => ["aria-label", "aria-labelledby", "title"].some((n) => (e.getAttribute(n) || "").trim());
  for (const e of document.querySelectorAll("audio[controls], video[controls], canvas, [role=slider]"))
    if (shown(e) && !named(e) && !(e.tagName === "CANVAS" && e.textContent.trim()) && !(e.labels && e.labels.length))
      found.push(`no name: ${outer(e)}`);
  const native = "a[href], button, input, select, textarea, summary, audio[controls], video[controls]";
  for (const e of document.querySelectorAll("[onclick], [role=button], [role=slider], [role=link], [role=checkbox]"))
    if (shown(e) && !e.matches(native) && e.tabIndex < 0) found.push(`not reached by the keyboard: ${outer(e)}`);
  return found;
}
"""

# Contrast takes most of the time, and depends on the colours alone.
_AXE = """
async (contrast) => {
  const run = await axe.run(document, {resultTypes: ["violations"], rules: {"color-contrast": {enabled: contrast}}});
  const text = (v, n) => n.any.concat(n.all, n.none).map((c) => c.message)[0] || v.help;
  const outer = (n) => n.html.replace(/\\s+/g, " ").slice(0, 120);
  return run.violations.filter((v) => ["serious", "critical"].includes(v.impact)).flatMap((v) =>
    v.nodes.map((n) => `${v.id}: ${text(v, n)}: ${outer(n)}`));
}
"""

# Fades are over at once, and what is drawn when it comes into view is drawn.
_STILL = "*, *::before, *::after { transition: none !important; animation: none !important; }"
_SCROLL = """
async () => {
  for (let y = 0; y < document.body.scrollHeight; y += 800) {
    scrollTo(0, y);
    await new Promise(requestAnimationFrame);
  }
  scrollTo(0, 0);
}
"""

# Players and what moves them are marked, and each must once have the focus as the tabulator goes through the page.
_PLAYERS = (
    "audio[controls], video[controls], main button, main input, main select, main [role=slider], main [role=button]"
)
_MARK = """
(selector) => [...document.querySelectorAll(selector)].filter(
  (e) => e.checkVisibility() && !e.disabled && !e.closest("[inert]")
    // Of the choices of one name the tabulator stops at one.
    && !(e.type === "radio" && !e.checked && document.querySelector(`input[name="${e.name}"]:checked`))
).map((e, index) => { e.dataset.checkSite = index; return e.outerHTML.replace(/\\s+/g, " ").slice(0, 120); })
"""
_FOCUS = "() => [document.activeElement?.dataset?.checkSite ?? null, document.activeElement === document.body]"


class _Links(HTMLParser):
    """The identifiers of a page, and where it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.identifiers: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.identifiers |= {value for name in ("id", "name") if (value := found.get(name))}
        self.links += [value for name in ("href", "src") if (value := found.get(name))]


@cache
def _parsed(path: Path) -> _Links:
    parser = _Links()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def pages(folder: Path, only: str = "") -> list[Path]:
    """The pages of a site, without those that belong to its machinery."""
    found = (path for path in sorted(folder.rglob("*.html")) if path.relative_to(folder).parts[0] not in IGNORED)
    return [path for path in found if only in str(path.relative_to(folder))]


def broken_links(folder: Path, page: Path) -> list[str]:
    """Links of a page within the site that lead to no file, or to no place in it."""
    found = []
    for link in dict.fromkeys(_parsed(page).links):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        path = unquote(parts.path)
        target = (folder / path.lstrip("/") if path.startswith("/") else page.parent / path) if path else page
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file():
            found.append(f"link to a file that is not there: {link}")
        elif parts.fragment and target.suffix == ".html":
            # Browsers scroll to a phrase that is not there without complaint, and "#" and "#top" are every page's.
            identifier = unquote(parts.fragment)
            if identifier != "top" and identifier not in _parsed(target).identifiers:
                found.append(f"link to a place that is not there: {link}")
    return found


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a site, as long as it is served on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _unreached(page: Page) -> list[str]:
    """Players and controls of the page that the tabulator does not stop at."""
    wanted: list[str] = page.evaluate(_MARK, _PLAYERS)
    reached: set[int] = set()
    if not wanted:
        return []
    # A player of the browser has some ten stops of its own inside.
    stops = page.evaluate(
        "() => document.querySelectorAll('a[href], button, input, select, summary, [tabindex]').length"
    )
    for _ in range(stops + 12 * len(wanted) + 20):
        page.keyboard.press("Tab")
        index, at_the_end = page.evaluate(_FOCUS)
        if index is not None:
            reached.add(int(index))
        if len(reached) == len(wanted) or (at_the_end and reached):
            break
    return [f"the tabulator does not reach {wanted[index]}" for index in range(len(wanted)) if index not in reached]


@dataclass
class Window:
    """A window of one width, in light or dark, that shows one page after another."""

    width: int
    scheme: str
    page: Page
    axe: str
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Browsers ask for one in any case.
        self.page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.heard.append(f"script: {error}"))
        self.page.on("requestfailed", self._failed)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.heard.append(f"console: {message.text} ({urlsplit(message.location['url']).path})")

    def _failed(self, request: Request) -> None:
        # A player stops loading when it has what it needs.
        if request.failure != "net::ERR_ABORTED":
            self.heard.append(f"not loaded: {request.url}")

    def look(self, address: str) -> list[str]:
        """What is wrong with a page."""
        self.heard.clear()
        self.page.goto(address, wait_until="load")
        self.page.add_style_tag(content=_STILL)
        self.page.evaluate(_SCROLL)
        found: list[str] = self.page.evaluate(_LOOK)
        self.page.evaluate(self.axe)
        found += self.page.evaluate(_AXE, self.width == WIDTHS[0])
        # The way of the tabulator depends on no colours.
        if self.scheme == SCHEMES[0]:
            found += _unreached(self.page)
        return list(dict.fromkeys([*self.heard, *found]))


def _opened(width: int, scheme: str) -> dict[str, Any]:
    # Pages may forbid scripts and styles of others, such as those that look at them.
    return {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, "bypass_csp": True}


def check(folder: Path, browser: Browser, only: str = "") -> dict[str, dict[str, list[str]]]:
    """What is wrong, by page and problem, with the windows in which it is."""
    axe = (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    windows = [
        Window(width, scheme, browser.new_page(**_opened(width, scheme)), axe) for width in WIDTHS for scheme in SCHEMES
    ]
    problems: dict[str, dict[str, list[str]]] = {}
    with served(folder) as address:
        for path in pages(folder, only):
            name = path.relative_to(folder).as_posix()
            found: dict[str, list[str]] = {link: [] for link in broken_links(folder, path)}
            for window in windows:
                for problem in window.look(address + name):
                    found.setdefault(problem, []).append(f"{window.width} {window.scheme}")
            print(f"{name}: {len(found) or 'nothing'}", file=sys.stderr)
            if found:
                problems[name] = found
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what is wrong; returns the exit status: 1 if anything is, 2 if it could not be looked at."""
    parser = argparse.ArgumentParser("python docs/check_site.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="the built pages")
    parser.add_argument("--only", default="", help="pages with this in their path")
    parser.add_argument("--browser", help="the program of a Chromium")
    options = parser.parse_args(arguments)
    if not pages(options.folder):
        print(f"{options.folder} has no pages: make docs", file=sys.stderr)
        return 2
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        print(f"{error}: pip install '.[site]'", file=sys.stderr)
        return 2
    program = options.browser or next(filter(None, map(shutil.which, _BROWSERS)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except Error as error:
            print(f"no Chromium, name one by --browser: {str(error).splitlines()[0]}", file=sys.stderr)
            return 2
        problems = check(options.folder.resolve(), browser, options.only)
    for name, found in problems.items():
        for problem, windows in found.items():
            where = f" [{', '.join(windows)}]" if windows else ""
            print(f"{name}: {problem}{where}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
