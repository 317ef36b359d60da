"""Build the book from its sources, offline, with every warning an error: ``python book/build.py``.

Cells are executed with the dpzo of this Python, and cached; the cache is dropped when something that they may read has
changed, because it knows the cells' text alone.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
TOOLS = ("jupyter-book", "myst-nb", "sphinx-proof", "matplotlib", "torch", "transformers", "dp-accounting")
READ = (
    "dpzo/**/*.py",
    "synthetic/**/*.py",
    "reproduce/**/*.py",
    "reproduce/results/*",
    "book/*.py",
    "book/_config.yml",
)


def main() -> None:
    """Build the pages, or the PDF."""
    args = _arguments()
    os.environ |= {"DPZO_BOOK_SIZE": args.size, "DPZO_BOOK_DEVICE": args.device, "HF_HUB_OFFLINE": "1"}
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # cells are small: threads that wait for each other take longer
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    out = Path(args.out).resolve() / "_build"
    print(f"pages: {build(out, 'html') / 'index.html'}")
    if args.pdf:
        print(f"PDF: {printed(build(out, 'singlehtml') / 'intro.html', out / 'book.pdf')}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdf", action="store_true", help="also print one PDF, through Chromium")
    parser.add_argument("--size", choices=("small", "laptop", "paper"), default="small", help="of the experiments")
    parser.add_argument("--device", default="cpu", help="where models run")
    parser.add_argument("--out", default=BOOK, help="the folder whose _build gets the pages; book/ unless given")
    return parser.parse_args()


def build(out: Path, builder: str) -> Path:
    """Build into ``out`` and return the folder of the pages; exit as the tool does where it fails."""
    forget_what_is_stale(out)
    tool = Path(sys.executable).with_name("jupyter-book")
    if not tool.exists():
        sys.exit("jupyter-book is not installed beside this Python: pip install -e '.[book]'")
    command = [tool, "build", "-W", "-n", "--keep-going", "--builder", builder, "--path-output", out.parent, BOOK]
    if code := subprocess.run(command, cwd=out.parent).returncode:  # the cache's path begins at the working directory
        sys.exit(code)
    return out / builder


def forget_what_is_stale(out: Path) -> None:
    """Empty ``out`` if it was built from other sources, sizes or versions than today's."""
    built_from = out / "built_from"
    if built_from.exists() and built_from.read_text() == sources():
        return
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    built_from.write_text(sources())


def sources() -> str:
    """Return a hash of all that a cell may depend on, its own text apart."""
    state = hashlib.sha256()
    for path in sorted(path for pattern in READ for path in ROOT.glob(pattern) if path.is_file()):
        state.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    setting = [os.environ.get("DPZO_BOOK_SIZE"), os.environ.get("DPZO_BOOK_DEVICE"), *map(version, TOOLS)]
    state.update(repr(setting).encode())
    return state.hexdigest()


def printed(page: Path, pdf: Path) -> Path:
    """Print ``page`` to ``pdf`` with Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("--pdf prints with Chromium, which is not on the PATH.")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", "--virtual-time-budget=60000"]
    subprocess.run([chromium, *options, f"--print-to-pdf={pdf}", page.as_uri()], check=True, capture_output=True)
    return pdf


if __name__ == "__main__":
    main()
