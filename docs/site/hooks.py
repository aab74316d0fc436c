"""What makes a site of pages that are written for GitHub; mkdocs.yml names this file, `make docs` runs it."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

MENTION = re.compile(r"(?<![\w/`\[])(?<!\]\()(?:`docs/([\w/]+\.md)`|docs/([\w/]+\.md))")
"""A page that a text names, in code type or plain, by its path in the repository."""

ELSEWHERE = re.compile(r"\[([^\]]+)\]\((?!docs/|https?:|#)[^)]+\)")
"""A link of README to a file that the site does not hold, such as the notebook; its text stays."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make README.md the home page: its links to pages begin with docs/, where the site begins."""
    readme = (Path(config.config_file_path).parent / "README.md").read_text(encoding="utf-8")
    readme = ELSEWHERE.sub(r"\1", readme).replace("](docs/", "](").replace('src="docs/', 'src="')
    files.append(File.generated(config, "index.md", content=readme))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the pages that a text names into links."""
    up = "../" * page.file.src_uri.count("/")

    def link(found: re.Match[str]) -> str:
        path = found[1] or found[2]
        is_page = files.get_file_from_path(path) is not None
        return f"[{found[0]}]({up}{path})" if is_page else found[0]

    blocks = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(block if block.startswith("```") else MENTION.sub(link, block) for block in blocks)
