"""Group published stages in a collection of the Hub: made where it is not there, joined where it is.

Stands beside publish.py, which calls it when a stage has arrived.
"""

from huggingface_hub import HfApi


def add_to_collection(api: HfApi, collection: str, repo_id: str, note: str, private: bool = False) -> str:
    """Put a model into a collection; one that is in it already stays.

    Args:
        api: with a token that may write.
        collection: its slug, "owner/title-0123456789abcdef01234567", or the title of one of the repository's
            owner, which is made if it does not exist.
        repo_id: the published model.
        note: stands beside it.
        private: make a new collection private.

    Returns:
        The collection's address.

    Raises:
        HfHubHTTPError: the Hub does not take it.
    """
    slug = collection
    if "/" not in collection:
        owner = repo_id.split("/")[0]
        found = [one.slug for one in api.list_collections(owner=owner) if one.title == collection]
        slug = found[0] if found else _make(api, collection, owner, private)
    api.add_collection_item(slug, repo_id, "model", note=note, exists_ok=True)
    return f"{api.endpoint}/collections/{slug}"


def _make(api: HfApi, title: str, owner: str, private: bool) -> str:
    description = "The stages of one MedHiera model, each trained from the one before. Not for clinical use."
    made = api.create_collection(
        title, namespace=owner, description=description, private=private, exists_ok=True
    )
    return made.slug
