"""What goes up of a stage's folder: a fixed list of its files, the model code, the texts of the licences.

Below publish.py, which sends them. The card's placeholders are filled in here: THIS_FOLDER with the
repository, THIS_REVISION with the tag that publish.py sets on the commit.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dataset_scripts.markdown import front_matter
from medhiera.hub.licences import (
    CODE_LICENCE_FILE,
    LICENCE_FILE,
    code_licence_text,
    licence_sentence,
    licence_text,
)
from medhiera.hub.model_card import card_of, with_placeholders
from medhiera.hub.pictures import examples_in, figures_of
from medhiera.hub.private_text import check_links
from medhiera.hub.record import AnyRecord
from medhiera.layout import (
    CARD_FILE,
    CONFIG_FILE,
    STAGE_FILES,
    TRAINING_IMAGES_FILE,
    read_json_file,
)
from medhiera.shipped_files import PACKAGE
from medhiera.stages import Stage

MODEL_CODE = PACKAGE.parent / "modeling_hiera_mae"

NOT_SHIPPED = ("__init__.py", "convert.py", "foreign_weights.py", "modeling_report.py", "stage_record.py",
               "timm_folder.py")  # fmt: skip

AUTO_MAP = {
    "AutoConfig": "configuration_hiera_mae.HieraMAEConfig",
    "AutoModel": "modeling_hiera.HieraMAEModel",
    "AutoBackbone": "modeling_backbone.HieraMAEBackbone",
    "AutoModelForImageClassification": "modeling_hiera.HieraMAEForImageClassification",
    "AutoModelForPreTraining": "modeling_hiera_mae.HieraMAEForPreTraining",
}

Files = dict[str, bytes | str]
"""Name in the repository to content or local path."""


def collect_files(folder: Path, repo_id: str, stage: Stage[Any], record: AnyRecord) -> Files:
    """The allow-list, nothing else.

    Args:
        folder: of a finished stage.
        repo_id: where it goes, for the snippets of the card.
        stage: its row.
        record: its own.

    Raises:
        UserError: a file is a link out of the folder, or damaged.
    """
    config = read_json_file(folder / CONFIG_FILE)
    if stage.ships_code:
        config |= {"auto_map": AUTO_MAP}
    more = [name for name in (*stage.more_files, TRAINING_IMAGES_FILE) if (folder / name).is_file()]
    check_links([folder / name for name in more], folder)
    files: Files = {name: str(folder / name) for name in (*STAGE_FILES, *more)}
    files[CONFIG_FILE] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    pictures = [*figures_of(folder, record), *examples_in(folder)]
    check_links(pictures, folder)
    files |= {picture.relative_to(folder).as_posix(): str(picture) for picture in pictures}
    files[LICENCE_FILE] = licence_text(record).encode()
    if stage.ships_code:
        files[CODE_LICENCE_FILE] = code_licence_text().encode()
        for code in sorted(MODEL_CODE.glob("*.py")):
            if code.name not in NOT_SHIPPED:
                files[code.name] = str(code)
    card = (folder / CARD_FILE).read_text(encoding="utf-8")
    card = with_placeholders(card, card_of(folder))  # of a downloaded stage, which names where it was
    card = card.replace("THIS_FOLDER", repo_id).replace("THIS_REVISION", revision_of(files))
    files[CARD_FILE] = card.encode()
    return files


def revision_of(files: Files) -> str:
    """A name for exactly these files but for the card: a tag, which can be named before its commit exists.

    A commit's own hash cannot stand in a card that is part of it; a name that follows from the content can,
    and the same content gets the same name again.
    """
    digest = hashlib.sha256()
    for name in sorted(files.keys() - {CARD_FILE}):
        content = files[name]
        if isinstance(content, bytes):
            part = hashlib.sha256(content)
        else:
            with open(content, "rb") as file:
                part = hashlib.file_digest(file, "sha256")
        digest.update(f"{name}\0{part.hexdigest()}\n".encode())
    return f"medhiera-{digest.hexdigest()[:12]}"


def with_gate(card: str, record: AnyRecord) -> str:
    """A card whose metadata have the Hub ask who wants the files, and what for, before it gives them."""
    parts = card.split("---\n", 2)
    metadata = yaml.safe_load(parts[1])
    gate: Mapping[str, Any] = {
        "extra_gated_heading": "Agree to the terms before you download this model",
        "extra_gated_prompt": "This model is for research. It has not been validated for any patient's care "
        f"and must not be used in it. Licence of the weights: {licence_sentence(record)}",
        "extra_gated_fields": {
            "Name": "text",
            "Institution": "text",
            "Country": "country",
            "What I want it for": {"type": "select", "options": ["Research", "Teaching", "Something else"]},
            "I will not use it in any patient's care": "checkbox",
            "I agree to the licences of the weights and of the data behind them": "checkbox",
        },
        "extra_gated_button_content": "Agree and ask for access",
    }
    return f"{front_matter(metadata | gate)}{parts[2]}"
