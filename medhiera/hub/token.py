"""The Hub's token: found or missed in a moment, before PyTorch is imported and a folder is read.

Below publish.py.
"""

import re

import huggingface_hub
from huggingface_hub import constants

from medhiera.errors import UserError


def find_token(repo_id: str, token: str | None = None) -> str:
    """The token that is to write to a repository; the Hub is not asked yet.

    Args:
        repo_id: "name/repository", or a repository name of the token's owner.
        token: by default HF_TOKEN or the one of `hf auth login`.

    Raises:
        UserError: there is none, the repository has no such name, or the Hub is not to be asked.
    """
    if not re.fullmatch(r"([\w-]+/)?\w[\w.-]*", repo_id):
        raise UserError(f"{repo_id!r} is no repository name; wanted one such as my-name/my-model.")
    if constants.HF_HUB_OFFLINE:
        raise UserError("HF_HUB_OFFLINE is set, so nothing can be published; unset it.")
    found = token or huggingface_hub.get_token()
    if found is None:
        raise UserError("no Hub token; run `hf auth login` or set HF_TOKEN to a token with write permission.")
    return found
