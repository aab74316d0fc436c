"""Publish a finished stage's folder to the Hub: the last arrow, after the card.

What goes up is a fixed list (published_files.py): weights, configuration, processor, card, metrics, figures,
the names of the images that it has seen (data/training_images.py), the licences' texts, and the flat model
code with an `auto_map`: no flag loads transformers' own Hiera, `trust_remote_code=True` loads ours.
Everything is checked before anything is sent, and all files arrive in one commit or not at all; a tag on it
is the revision that the card's snippets pin. With `--gated` the Hub asks for agreement before it gives any.

    python -m medhiera.hub.publish runs/cls my-name/hiera-tiny-chestxray14
    python -m medhiera.hub.publish runs/mae my-name/hiera-tiny-cocktail-mae --private --collection MedHiera
    python -m medhiera.hub.publish runs/cls my-name/hiera-tiny-mimic --gated manual
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
from pathlib import Path

from medhiera.command_line import new_parser
from medhiera.errors import run_script
from medhiera.hub.token import find_token


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = new_parser(__doc__)
    parser.add_argument(
        "folder", type=Path, help="the output folder of `medhiera train-mae`, `train-cls` or `train-report`"
    )
    parser.add_argument("repo_id", help="name/repository; it is made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--stage", type=int, choices=(0, 1, 2), help="refuse a folder of another stage")
    parser.add_argument("--collection", help="title or slug of a collection to group it in; made if absent")
    parser.add_argument(
        "--gated", choices=("auto", "manual"),
        help="whoever wants the files first agrees to the terms; access is given at once (auto) or by you "
        "(default: as the repository is)",
    )  # fmt: skip
    return parser


def check_words(words: list[str]) -> None:
    """Answer --help, mistyped options and a missing token."""
    find_token(build_parser().parse_args(words).repo_id)


if __name__ == "__main__":  # now, and not after the imports below
    run_script(check_words)

import importlib
import json
import logging
import re
import shlex
import tempfile
import time
import warnings
from collections.abc import Sequence
from typing import Any, Literal

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_session,
)
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from dataset_scripts.mistyped import no_folder
from medhiera.errors import UserError, one_line
from medhiera.hub.collection import add_to_collection
from medhiera.hub.contents import content_of, refuse_changed
from medhiera.hub.licences import CODE_LICENCE_FILE
from medhiera.hub.lineage import card_metadata
from medhiera.hub.private_text import check_links, check_private_text
from medhiera.hub.published_files import Files, collect_files, revision_of, with_gate
from medhiera.hub.record import AnyRecord, read_record
from medhiera.layout import (
    CARD_FILE,
    CONFIG_FILE,
    FIGURES_FOLDER,
    METRICS_FILE,
    PUBLISHED_FILE,
    STAGE_FILES,
    TRAINING_IMAGES_FILE,
    WEIGHTS_FILE,
    read_json_file,
)
from medhiera.loading import check_weights
from medhiera.stages import STAGES, Stage

logger = logging.getLogger(__name__)


ATTEMPTS = 3


def publish_stage(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    stage: int | None = None,
    collection: str | None = None,
    gated: Literal["auto", "manual"] | None = None,
    token: str | None = None,
) -> str:
    """Upload a stage's folder to a repository of its own, which is made if it does not exist.

    Args:
        folder: config.json, model.safetensors, preprocessor_config.json, README.md, metrics.json, figures/,
            and examples/ where there are pictures for the Hub's widget. `published.json` is left in it, so
            that a stage trained from it names the repository as its base model.
        repo_id: "name/repository", or a repository name of the token's owner.
        private: make a new repository private; an existing one keeps its visibility.
        stage: 0, 1 or 2, to insist on; by default what metrics.json says.
        collection: group the repository in this collection of its owner, by title or slug.
        gated: have the Hub ask for agreement before it gives a file, and give access at once or have you do
            it; None leaves the repository's own setting, and the terms in the card of one that is gated.
        token: a write token; by default HF_TOKEN or the one of `hf auth login`.

    Returns:
        The address of the repository.

    Raises:
        UserError: the folder is incomplete or would give away paths, the token cannot write, or the
            repository holds something else; or the upload failed, and the message has the command to retry.
    """
    folder = Path(folder)
    row, record = _check_folder(folder, stage)
    check_private_text(collect_files(folder, repo_id, row, record), folder, repo_id)
    api, repo_id = _check_token(repo_id, token)
    retry = ["python", "-m", "medhiera.hub.publish", str(folder), repo_id, "--stage", str(row.number)]
    retry += ["--collection", collection] if collection else []
    retry += ["--gated", gated] if gated else []
    command = shlex.join(retry + ["--private"] * private)
    files = collect_files(folder, repo_id, row, record)
    _upload(api, files, repo_id, record, private, gated, command)
    logger.info("Published %d files of %s to %s.", len(files), row.words, repo_id)
    try:
        (folder / PUBLISHED_FILE).unlink(missing_ok=True)  # it may be a link to another file
        note = {"repo_id": repo_id, "weights": content_of(folder / WEIGHTS_FILE)}
        (folder / PUBLISHED_FILE).write_text(json.dumps(note) + "\n", encoding="utf-8")
    except OSError as error:
        logger.warning("%s cannot be written (%s); what is trained from here will not name %s.",
                       folder / PUBLISHED_FILE, error, repo_id)  # fmt: skip
    if collection:
        try:
            place = add_to_collection(api, collection, repo_id, row.note, private)
        except _upload_errors() as error:
            raise UserError(
                f"{repo_id} is published, but not in the collection {collection!r} ({_in_words(error)}). "
                f"To retry: {command}"
            ) from error
        logger.info("It stands in the collection %s.", place)
    return f"{api.endpoint}/{repo_id}"


def _upload(
    api: HfApi,
    files: Files,
    repo_id: str,
    record: AnyRecord,
    private: bool,
    gated: Literal["auto", "manual"] | None,
    command: str,
) -> None:
    """Send all files in one commit and tag it, three times at most.

    Raises:
        UserError: the repository holds something else; or the upload failed: `command` repeats it.
    """
    stage = STAGES[record.key]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            stale = _check_repository(api, repo_id, stage.key)
            api.create_repo(repo_id, private=private, exist_ok=True)
            if gated is not None:
                api.update_repo_settings(repo_id, gated=gated)  # before there is a file to give
            if gated is not None or api.model_info(repo_id).gated:  # also where an earlier run has gated it
                card = files[CARD_FILE]
                assert isinstance(card, bytes), "collect_files fills in the repository's name"
                files = files | {CARD_FILE: with_gate(card.decode(), record).encode()}
            operations: list[CommitOperationAdd | CommitOperationDelete] = [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
                for name, content in files.items()
            ]
            operations += [CommitOperationDelete(path_in_repo=name) for name in stale if name not in files]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*about to commit a data file", UserWarning)  # it is meant
                commit = api.create_commit(repo_id, operations, commit_message=f"Publish {stage.words}")
            api.create_tag(repo_id, tag=revision_of(files), revision=commit.oid, exist_ok=True)
            return
        except _upload_errors() as error:
            if attempt == ATTEMPTS or not _may_pass(error):
                raise UserError(
                    f"the upload to {repo_id} failed ({_in_words(error)}). Your folder is untouched; what "
                    f"has arrived is not sent again. To retry: {command}"
                ) from error
            logger.warning("The upload to %s failed (%s); trying again.", repo_id, _in_words(error))
            time.sleep(attempt)


def check_can_push(
    repo_id: str, *, stage: int | None = None, task: str = "", token: str | None = None
) -> None:
    """Say before a night of training, not after it, that the push at its end cannot work.

    Args:
        repo_id: as for `publish_stage`.
        stage: the stage that will be published; a repository that holds another one is refused.
        task: of that stage, see Stage.
        token: as for `publish_stage`.

    Raises:
        UserError: no network, no token, one that cannot write to this repository, or a repository that is
            taken.
    """
    api, repo_id = _check_token(repo_id, token)
    try:
        _check_repository(api, repo_id, None if stage is None else (stage, task))
    except _network_errors() as error:
        raise UserError(f"cannot look at {repo_id} on the Hub: {_in_words(error)}") from error


def _network_errors() -> tuple[type[Exception], ...]:
    """What the client raises; which HTTP library is below it depends on its version, so ask its session."""
    library = importlib.import_module(type(get_session()).__module__.split(".")[0])
    return (HfHubHTTPError, library.HTTPError, OSError)


def _upload_errors() -> tuple[type[Exception], ...]:
    """What an upload may end with: the network's errors, and the client's own refusals."""
    return (*_network_errors(), RuntimeError, ValueError)


def _in_words(error: BaseException) -> str:
    """Say what happened in one line, and why where the client tells."""
    line = one_line(error)
    return (
        f"{line} {_in_words(error.__cause__)}"
        if isinstance(error, RuntimeError) and error.__cause__
        else line
    )


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may succeed: not after an answer such as 403 or invalid metadata."""
    if isinstance(error, HfHubHTTPError):
        return (
            error.response is None or error.response.status_code >= 500 or error.response.status_code == 429
        )
    return not isinstance(error, ValueError)


def _check_folder(folder: Path, stage: int | None) -> tuple[Stage[Any], AnyRecord]:
    """Return the stage of a complete folder, and its record."""
    if not folder.is_dir():
        fault = "is a file" if folder.exists() else no_folder(folder)
        raise UserError(
            f"{folder}: {fault}; give the output folder of `medhiera train-mae`, `train-cls` or "
            "`train-report`."
        )
    absent = [name for name in STAGE_FILES if not (folder / name).is_file()]
    if absent:
        raise UserError(
            f"{folder} is not a finished stage: {', '.join(absent)} absent. A stage's folder holds "
            f"{', '.join(STAGE_FILES)} and figures/*.png; let the training script finish."
        )
    check_links([folder / name for name in STAGE_FILES], folder)
    record = read_record(folder)
    if record is None:
        raise UserError(f"{folder / METRICS_FILE} is not the record of a stage; wanted stage 0, 1 or 2.")
    if stage is not None and stage != record.stage:
        raise UserError(f"{folder} holds stage {record.stage}, but stage {stage} was asked for.")
    config = read_json_file(folder / CONFIG_FILE)
    classes = config.get("architectures") or []
    row = STAGES[record.key]
    is_type = config.get("model_type") == row.model_type
    if not is_type or not any(str(name).endswith(row.architecture) for name in classes):
        kind = "Hiera" if row.model_type == "hiera" else row.model_type
        raise UserError(
            f"{folder / CONFIG_FILE} describes {config.get('model_type')} {classes}; {row.words} is "
            f"a {kind} model {row.architecture}."
        )
    if row.has_figures and not list((folder / FIGURES_FOLDER).glob("*.png")):
        raise UserError(f"{folder / FIGURES_FOLDER} holds no .png; let the training script finish.")
    try:
        check_weights(folder)
        card_metadata(folder)
    except UserError as error:
        raise UserError(f"{folder} is damaged: {_in_words(error)}") from error
    refuse_changed(folder, record)
    return row, record


def _check_token(repo_id: str, token: str | None) -> tuple[HfApi, str]:
    """Return a client that may write to the repository, and the repository's full name."""
    token = find_token(repo_id, token)
    api = HfApi(token=token)
    try:
        owner = api.whoami()
    except _network_errors() as error:
        raise UserError(f"the Hub at {api.endpoint} does not take the token: {_in_words(error)}") from error
    if "/" not in repo_id:
        repo_id = f"{owner['name']}/{repo_id}"
    if not _may_write(owner, repo_id):
        raise UserError(
            f"the Hub token of {owner['name']} cannot write to {repo_id}; make one with write permission "
            f"for it at {api.endpoint}/settings/tokens."
        )
    return api, repo_id


def _may_write(owner: dict[str, Any], repo_id: str) -> bool:
    """Judge what the Hub says of a token: its role, and whether it reaches the repository's namespace."""
    namespace = repo_id.split("/")[0]
    access = owner.get("auth", {}).get("accessToken", {})
    if access.get("role") == "fineGrained":
        return any(
            "repo.write" in scope.get("permissions", ())
            and scope.get("entity", {}).get("name") in {namespace, repo_id}
            for scope in access.get("fineGrained", {}).get("scoped", ())
        )
    groups = {group["name"] for group in owner.get("orgs", ()) if group.get("roleInOrg") != "read"}
    return access.get("role") != "read" and namespace in {owner["name"], *groups}


def _check_repository(api: HfApi, repo_id: str, key: tuple[int, str] | None) -> list[str]:
    """Return what in the repository not every stage of its kind has, or refuse it if it holds another."""
    try:
        names = api.list_repo_files(repo_id)
    except RepositoryNotFoundError:
        return []
    if set(names) <= {".gitattributes", "README.md"}:
        return []
    published = _published_stage(api, repo_id) if METRICS_FILE in names else None
    if published is None or (key is not None and published != key):
        what = "something that is not one of our stages" if published is None else STAGES[published].words
        raise UserError(f"{repo_id} already holds {what}; nothing was sent. Choose another repository name.")
    optional = {*STAGES[published].more_files, TRAINING_IMAGES_FILE, CODE_LICENCE_FILE}
    return [
        name
        for name in names
        if name in optional or re.fullmatch(r"(figures|examples)/[^/]+\.png|[^/]+\.py", name)
    ]


def _published_stage(api: HfApi, repo_id: str) -> tuple[int, str] | None:
    """The stage that a repository's record names, whatever version wrote it; None where it names none."""
    with tempfile.TemporaryDirectory() as place:
        content = read_json_file(Path(api.hf_hub_download(repo_id, METRICS_FILE, local_dir=place)))
    key = content.get("stage"), content.get("task", "")
    return key if key in STAGES else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)  # ours alone: the HTTP client would tell of every request
    try:
        address = publish_stage(
            options.folder,
            options.repo_id,
            private=options.private,
            stage=options.stage,
            collection=options.collection,
            gated=options.gated,
        )
    except UserError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    parser.exit(0, f"{address}\n")


if __name__ == "__main__":
    main()
