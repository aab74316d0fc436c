"""The comparison of heat maps: its measures have the right values, and every method gives a map."""

import pytest
import torch

pytest.importorskip("captum")

from benchmarks.heat_map_candidates import METHODS, blurred
from benchmarks.heat_map_methods import Case, area, grown, pixel_areas, unit_areas
from benchmarks.heat_map_models import draw_missing, draw_phantoms, draw_squares, tiny_model


def test_areas_of_known_curves():
    def curve(*values):
        return [torch.tensor(value) for value in values]

    assert area(curve(5.0, 3.0, 1.0), torch.tensor(1.0), torch.tensor(5.0)) == pytest.approx(0.5)
    assert area(curve(5.0, 1.0, 1.0), torch.tensor(1.0), torch.tensor(5.0)) == pytest.approx(0.25)


class BrightUnits(torch.nn.Module):
    """Stands for a classifier: its logit is the mean brightness of what it sees."""

    def forward(self, pixels):
        self.logits = pixels.mean(dim=(1, 2, 3))[:, None]
        return self


def test_a_right_map_has_less_deletion_and_more_insertion_than_its_opposite():
    images = draw_squares(4, torch.Generator().manual_seed(0))
    case = Case.of("", BrightUnits(), images, 0, 0)
    assert len(case.pixels) == 2 and case.pixels.shape[2:] == case.is_target.shape[1:]
    # Blurring moves brightness without removing it, so compare with the difference that it makes.
    heat = (case.pixels - blurred(case.pixels)).mean(dim=1)
    assert heat.flatten(1).argmax(dim=1)[0] in case.is_target[0].flatten().nonzero()
    assert grown(case).sum() == 2 * 16 * 16
    model = tiny_model(0).eval()
    torch.nn.init.normal_(model.classifier.weight)
    case = Case.of("", model, images, 0, 16)
    assert grown(case).sum() > 2 * 32 * 32
    for areas in (pixel_areas, unit_areas):
        deletion, insertion = areas(case, heat)
        # Deleting in one order is inserting in the opposite one, from the other end.
        opposite = areas(case, -heat)
        assert deletion == pytest.approx(opposite[1], abs=1e-3)
        assert insertion == pytest.approx(opposite[0], abs=1e-3)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")  # captum's own
@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_a_map(name):
    model = tiny_model(0).eval()
    torch.nn.init.normal_(model.classifier.weight)
    pixels = draw_squares(2, torch.Generator().manual_seed(0)).pixel_values
    heat = METHODS[name](model, pixels, 0)
    assert heat.shape == (2, 128, 128) and heat.isfinite().all() and heat.flatten(1).std(dim=1).gt(0).all()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("draw", [draw_squares, draw_missing, draw_phantoms])
def test_images_know_where_their_finding_is(draw):
    images = draw(8, torch.Generator().manual_seed(0))
    assert images.pixel_values.shape == (8, 3, 128, 128)
    assert torch.equal(images.is_target.flatten(2).any(dim=2), images.labels > 0)
    assert images.labels.any() and not images.labels.all()
