"""Pictures of a ranking."""

import numpy as np
import pytest
import torch

from ssl_lightning.data.dataset import Split
from ssl_lightning.reports.rankings import contact_sheet
from ssl_lightning.subsets.ranking import Ranking


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_images_of_many_channels_show_the_first_three(tmp_path, monkeypatch, channels, shown):
    images = torch.arange(channels, dtype=torch.uint8).view(1, -1, 1, 1).repeat(6, 1, 4, 4)
    ranking = Ranking(np.arange(6), np.zeros(6, np.int64), np.zeros(6), {"rule": "sas"})
    figures = []
    monkeypatch.setattr(
        "ssl_lightning.reports.figures.save", lambda figure, path, title: figures.append(figure) or path
    )
    contact_sheet(ranking, Split(images, torch.zeros(6, dtype=torch.int64)), tmp_path / "sheet.png")
    sheets = [axis.images[0].get_array() for axis in figures[0].axes]
    assert [sheet[0, 0].tolist() for sheet in sheets] == [shown] * 2
