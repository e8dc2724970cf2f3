"""Checks the book and the README without rendering them: every page is in SUMMARY.md, every relative link leads to
a file, every anchor to a heading."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "docs" / "src"
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    found: dict[str, int] = {}
    result = set()
    for heading in re.findall(r"^#{1,6}\s+(.*?)\s*#*$", text_of(page), re.MULTILINE):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", heading.lower(), flags=re.UNICODE).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        result.add(slug if count == 0 else f"{slug}-{count}")
    return result


def check(page: Path) -> list[str]:
    wrong = []
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            wrong.append(f"{page.relative_to(ROOT)}: {target} leads nowhere")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            wrong.append(f"{page.relative_to(ROOT)}: {target}: there is no such heading")
    return wrong


def main() -> int:
    summary = BOOK / "SUMMARY.md"
    if not summary.exists():
        print(f"{summary.relative_to(ROOT)} is missing")
        return 1
    listed = {(BOOK / link.partition("#")[0]).resolve() for link in LINK.findall(text_of(summary))}
    pages = {page.resolve() for page in BOOK.rglob("*.md")} - {summary.resolve()}
    wrong = [f"{page.relative_to(ROOT)} is not in SUMMARY.md" for page in sorted(pages - listed)]
    others = [ROOT / name for name in ("README.md", "CHANGELOG.md") if (ROOT / name).exists()]
    checked = [summary, *sorted(pages), *others]
    for page in checked:
        wrong += check(page)
    print("\n".join(wrong) if wrong else f"{len(checked)} pages, every link leads somewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
