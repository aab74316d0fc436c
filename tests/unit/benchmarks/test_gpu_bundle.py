"""The bundle holds what the project needs and the machine lacks, and no package twice."""

from importlib.metadata import requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.gpu_bundle import NOT_NEEDED, PEERS, PRESENT, missing_packages, pinned, project_packages


def test_what_a_bare_machine_lacks_is_brought_and_its_pytorch_is_not():
    names = missing_packages([*project_packages(), *PEERS])
    assert {"datasets", "evaluate", "nibabel", "hiera-transformer", "hiera-optim"} <= set(names)
    assert not PRESENT & set(names) and len(set(names)) == len(names)
    assert {line.split("==")[0].lower().replace("_", "-") for line in pinned(names)} == set(names)


def test_whatever_a_brought_package_needs_is_there_or_brought():
    names = set(missing_packages(project_packages()))
    for name in names:
        for line in requires(name) or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"python_version": "3.12", "extra": ""}):
                assert canonicalize_name(need.name) in names | PRESENT | NOT_NEEDED, f"{name} needs {need}"
